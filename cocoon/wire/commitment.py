"""Commitments to payloads: a salted hash that fixes inputs or outputs without showing them.

The 16-byte salt is drawn once per run by the requester; without it nobody can
test a guessed input against a receipt. BLAKE3 above 64 KiB, because SHA-256 is
five times slower there; the algorithm's number stands beside every hash.

Purity: pure. Spec: docs/spec/wire.md, rule WIR-20.
"""

from __future__ import annotations

import hashlib

from blake3 import blake3

from cocoon.core.errors import UsageError
from cocoon.core.pieces import Piece
from cocoon.core.units import KIB
from cocoon.core.values import Value
from cocoon.wire.widths import SALT_BYTES

ALG_SHA256 = 1
ALG_BLAKE3 = 2
SHA256_UP_TO_BYTES = 64 * KIB
_DOMAIN = b"cocoon/1/payload\0"


class Commitment(Value):
    """Which algorithm, and its 32 bytes."""

    alg: int
    hash: bytes


def commit(salt: bytes, payload: Piece) -> Commitment:
    """The commitment to ``payload`` under a 16-byte ``salt``.

    Raises:
        UsageError: a salt of another length.
    """
    if len(salt) != SALT_BYTES:
        raise UsageError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    if len(payload) <= SHA256_UP_TO_BYTES:
        return Commitment(ALG_SHA256, hashlib.sha256(_DOMAIN + salt + payload).digest())
    hasher = blake3(_DOMAIN + salt)
    hasher.update(payload)
    return Commitment(ALG_BLAKE3, hasher.digest())
