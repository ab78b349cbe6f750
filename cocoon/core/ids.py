"""Ids: what each names, how long it is, and how people read it.

A peer is named by its Ed25519 public key on the wire and by the libp2p peer id
(base58 of the identity multihash of that key) in text. All other ids are
digests or random bytes, shown in hex.

Purity: pure.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NewType

import base58

from cocoon.core.errors import UsageError

#: Ed25519 public key of a peer, 32 bytes.
PeerKey = NewType("PeerKey", bytes)
#: SHA-256 of the canonical network file, 32 bytes.
NetworkId = NewType("NetworkId", bytes)
#: SHA-256 of the canonical manifest, 32 bytes.
ModelId = NewType("ModelId", bytes)
#: The manifest beside the files of a package.
PACKAGE_FILE = "manifest.cocoon"
#: SHA-256 of the canonical lease body, 32 bytes.
LeaseId = NewType("LeaseId", bytes)
#: Random, 16 bytes, chosen by the requester's peer.
TaskId = NewType("TaskId", bytes)
#: SHA-256 of the canonical signed receipt body, 32 bytes.
ReceiptHash = NewType("ReceiptHash", bytes)

# Identity multihash (0x00, 36 bytes) of a libp2p protobuf key: type Ed25519 (08 01), data (12 20).
_PEER_ID_PREFIX = bytes.fromhex("002408011220")


@lru_cache(maxsize=1_024)
def peer_id(key: bytes) -> str:
    """The libp2p text form (``12D3KooW...``) of a 32-byte Ed25519 public key."""
    if len(key) != 32:
        raise UsageError(f"a peer key has 32 bytes, not {len(key)}")
    return base58.b58encode(_PEER_ID_PREFIX + key).decode("ascii")


@lru_cache(maxsize=1_024)
def peer_key(text: str) -> PeerKey:
    """The public key inside a libp2p Ed25519 peer id.

    Raises:
        UsageError: not a base58 Ed25519 peer id.
    """
    try:
        raw = base58.b58decode(text) if len(text) <= 64 else b""
    except ValueError:
        raw = b""
    # base58 ignores white space around the text; one peer has one spelling.
    if len(raw) != 38 or not raw.startswith(_PEER_ID_PREFIX) or peer_id(raw[6:]) != text:
        raise UsageError(f"{text[:64]!r} is no Ed25519 peer id (12D3KooW...)")
    return PeerKey(raw[6:])


def network_tag(network: NetworkId) -> int:
    """First 32 bits of the network id, as judged messages carry it."""
    return int.from_bytes(network[:4], "big")


def kind_key(network: NetworkId, kind: str) -> bytes:
    """DHT key under which every peer that sells ``kind`` on ``network`` is found (P2P-4)."""
    return hashlib.sha256(f"cocoon/{network.hex()}/{kind}".encode()).digest()
