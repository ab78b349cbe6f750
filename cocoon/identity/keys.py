"""Key maths and key-file layouts; seeds come from the shell.

A key file carries more than the seed, so that a flipped bit is noticed and
does not quietly become another identity (IDY-3).

Purity: pure. Spec: docs/spec/identity.md, rules IDY-1 to IDY-4.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NoReturn

from nacl.bindings import crypto_sign
from nacl.signing import SigningKey

from cocoon.core.errors import Corrupt, UsageError
from cocoon.core.ids import PeerKey, peer_id

SEED_BYTES = 32
SIGNATURE_BYTES = 64
#: ML-KEM-768 seed (d and z of FIPS 203), then the X25519 private key.
HPKE_KEM_BYTES = 64
HPKE_X25519_BYTES = 32
HPKE_SEED_BYTES = HPKE_KEM_BYTES + HPKE_X25519_BYTES

_PEER_MAGIC = b"cocoon-peer-1\n"
_HPKE_MAGIC = b"cocoon-hpke-1\n"
_CHECK_BYTES = 8
PEER_FILE_BYTES = len(_PEER_MAGIC) + 2 * SEED_BYTES
HPKE_FILE_BYTES = len(_HPKE_MAGIC) + 4 + HPKE_SEED_BYTES + _CHECK_BYTES


def public_key(seed: bytes) -> PeerKey:
    """Ed25519 public key of a 32-byte seed."""
    return PeerKey(bytes(_signing_key(seed).verify_key))


@dataclass(frozen=True, slots=True)
class Identity:
    """The keys of one peer; a ``wire.signing.Signer``.

    Attributes:
        key: Ed25519 public key, 32 bytes; the peer's name.
        seed: Ed25519 seed, 32 bytes. Only ``p2p.open_mesh`` takes it.
        hpke: ML-KEM-768 seed (64 B) then X25519 private key (32 B).
        hpke_day: Day the HPKE key was made, in days since 1970-01-01 UTC.
    """

    key: PeerKey
    seed: bytes = field(repr=False)
    hpke: bytes = field(repr=False)
    hpke_day: int

    def __post_init__(self) -> None:
        if len(self.hpke) != HPKE_SEED_BYTES:
            raise UsageError(f"an HPKE private key has {HPKE_SEED_BYTES} bytes, not {len(self.hpke)}")
        if public_key(self.seed) != self.key:
            raise UsageError("the public key is not that of the seed")

    @property
    def peer(self) -> str:
        """libp2p text form of the public key (``12D3KooW...``)."""
        return peer_id(self.key)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature of ``message``, 64 bytes."""
        return _signature(self.seed, self.key, message)

    def __repr__(self) -> str:
        return f"Identity({self.peer})"

    def __reduce__(self) -> NoReturn:
        raise UsageError("an identity never leaves its process")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key that is no peer's name: wallet, lane and provider keys; a ``wire.signing.Signer``.

    Attributes:
        key: Public key, 32 bytes.
        seed: Private seed, 32 bytes.
    """

    key: PeerKey
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if public_key(self.seed) != self.key:
            raise UsageError("the public key is not that of the seed")

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature of ``message``, 64 bytes."""
        return _signature(self.seed, self.key, message)

    def __reduce__(self) -> NoReturn:
        raise UsageError("a key pair never leaves its process")


def key_pair(seed: bytes) -> KeyPair:
    """The key pair of a 32-byte seed."""
    return KeyPair(public_key(seed), seed)


def identity_of(seed: bytes, hpke: bytes, hpke_day: int) -> Identity:
    """Assemble an identity from its private parts; lengths as in ``Identity``."""
    return Identity(public_key(seed), seed, hpke, hpke_day)


def pack_peer(seed: bytes) -> bytes:
    """Content of ``keys/peer.key``: magic, seed, public key."""
    return _PEER_MAGIC + seed + public_key(seed)


def unpack_peer(data: bytes) -> bytes:
    """The seed inside ``keys/peer.key``.

    Raises:
        Corrupt: another length or magic, or the public key does not fit.
    """
    seed = data[len(_PEER_MAGIC) : len(_PEER_MAGIC) + SEED_BYTES]
    if len(data) != PEER_FILE_BYTES or not data.startswith(_PEER_MAGIC) or pack_peer(seed) != data:
        raise Corrupt(f"keys/peer.key is damaged: {len(data)} of {PEER_FILE_BYTES} bytes, or its check fails")
    return seed


def pack_hpke(hpke: bytes, day: int) -> bytes:
    """Content of ``keys/hpke.key``: magic, u32 day, 96 private bytes, 8 bytes of check."""
    body = _HPKE_MAGIC + day.to_bytes(4, "big") + hpke
    return body + hashlib.sha256(body).digest()[:_CHECK_BYTES]


def unpack_hpke(data: bytes) -> tuple[bytes, int]:
    """Private bytes and day of creation inside ``keys/hpke.key``.

    Raises:
        Corrupt: another length or magic, or the check does not fit.
    """
    start = len(_HPKE_MAGIC)
    if len(data) == HPKE_FILE_BYTES:
        day, hpke = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : -_CHECK_BYTES]
        if pack_hpke(hpke, day) == data:
            return hpke, day
    raise Corrupt(f"keys/hpke.key is damaged: {len(data)} of {HPKE_FILE_BYTES} bytes, or its check fails")


def is_stale(made_day: int, today: int) -> bool:
    """Whether an HPKE key made on ``made_day`` is replaced at a start on ``today`` (IDY-4).

    A clock that went back keeps the key: a key from "tomorrow" is not old.
    """
    return today > made_day


def _signature(seed: bytes, key: bytes, message: bytes) -> bytes:
    """libsodium's own call: ``SigningKey`` computes the public key anew each time, which doubles the cost.

    Two keys under one seed would give the seed away, so both classes check that theirs is the one.
    """
    return crypto_sign(message, seed + key)[:SIGNATURE_BYTES]


def _signing_key(seed: bytes) -> SigningKey:
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a peer seed has {SEED_BYTES} bytes, not {len(seed)}")
    return SigningKey(seed)
