"""The identity on disk: ``keys/peer.key`` for ever, ``keys/hpke.key`` for a day.

Purity: shell. Spec: docs/spec/identity.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cocoon.identity import keys
from cocoon.identity.files import create_secret, private_dir, read_secret, sync_dir, write_draft
from cocoon.identity.keys import Identity

KEYS_DIR = "keys"
PEER_FILE = "peer.key"
HPKE_FILE = "hpke.key"
_DAY_S = 86_400


def load_or_create(home: Path, *, today: int | None = None) -> Identity:
    """Read the keys of ``home``; make what is missing, replace a stale HPKE key.

    The caller holds ``lock_home``. Every secret comes from ``os.urandom``.

    Args:
        home: COCOON_HOME; made with mode 0700 if missing.
        today: Days since 1970-01-01 UTC; None reads the wall clock.

    Raises:
        LaxPermissions: a key file or directory is open to others.
        Corrupt: a key file is damaged.
        StorageFull, Unavailable: the disk refuses.
    """
    folder = private_dir(private_dir(home) / KEYS_DIR)
    day = int(time.time()) // _DAY_S if today is None else today
    seed = _peer_seed(folder / PEER_FILE)
    hpke, made_day = _hpke_key(folder / HPKE_FILE, day)
    return keys.identity_of(seed, hpke, made_day)


def _peer_seed(path: Path) -> bytes:
    try:
        return keys.unpack_peer(read_secret(path, keys.PEER_FILE_BYTES))
    except FileNotFoundError:
        create_secret(path, keys.pack_peer(os.urandom(keys.SEED_BYTES)))
    return keys.unpack_peer(read_secret(path, keys.PEER_FILE_BYTES))


def _hpke_key(path: Path, today: int) -> tuple[bytes, int]:
    try:
        hpke, day = keys.unpack_hpke(read_secret(path, keys.HPKE_FILE_BYTES))
        if not keys.is_stale(day, today):
            return hpke, day
    except FileNotFoundError:
        pass
    # Unlike the peer key this one is replaced: what was sealed to yesterday's key is over.
    os.replace(write_draft(path, keys.pack_hpke(os.urandom(keys.HPKE_SEED_BYTES), today)), path)
    sync_dir(path.parent)
    return keys.unpack_hpke(read_secret(path, keys.HPKE_FILE_BYTES))
