"""A file that only takes space, to be given back when the disk is full.

Purity: shell. Spec: docs/spec/store.md, rules STO-8 and STO-9.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cocoon.core.units import MIB
from cocoon.identity.files import FULL_ERRNOS, sync_dir

_PROBE_BYTES = 64 * 1_024


def hold(path: Path, size_bytes: int) -> bool:
    """Take ``size_bytes`` of disk under ``path``; True if they are held now.

    Nothing is taken from a disk with less than twice that free: it would be
    full again at once.
    """
    if path.exists() and path.stat().st_size == size_bytes:
        return True
    if _free_bytes(path.parent) < 2 * size_bytes:
        return False
    return _fill(path, size_bytes) == 0


def release(path: Path) -> bool:
    """Give the space back; False if there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_dir(path.parent)
    return True


def disk_is_full(folder: Path) -> bool:
    """Whether a small file cannot be written now: quotas and blocks, by trying it."""
    probe = folder / ".probe"
    full = _fill(probe, _PROBE_BYTES) in FULL_ERRNOS
    probe.unlink(missing_ok=True)
    return full


def _fill(path: Path, size_bytes: int) -> int:
    """Write incompressible bytes: a file system may store zeros in no space at all.

    Returns 0, or the errno of the refusal; then nothing is left behind.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            for start in range(0, size_bytes, MIB):
                stream.write(os.urandom(min(MIB, size_bytes - start)))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        return error.errno or errno.EIO
    return 0


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
