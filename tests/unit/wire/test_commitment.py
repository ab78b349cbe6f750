"""Commitments fix payload and salt, with the algorithm that the size decides."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from cocoon.core.errors import UsageError
from cocoon.wire.commitment import ALG_BLAKE3, ALG_SHA256, SALT_BYTES, SHA256_UP_TO_BYTES, commit

SALT = bytes(range(16))


@pytest.mark.parametrize("size", [0, 1, SHA256_UP_TO_BYTES - 1, SHA256_UP_TO_BYTES])
def test_up_to_64_kib_it_is_sha256(size: int) -> None:
    made = commit(SALT, bytes(size))
    assert made.alg == ALG_SHA256
    assert made.hash == hashlib.sha256(b"cocoon/1/payload\0" + SALT + bytes(size)).digest()


@pytest.mark.parametrize("size", [SHA256_UP_TO_BYTES + 1, 1 << 20])
def test_above_64_kib_it_is_blake3(size: int) -> None:
    made = commit(SALT, bytes(size))
    assert made.alg == ALG_BLAKE3
    assert made.hash == blake3(b"cocoon/1/payload\0" + SALT + bytes(size)).digest()


def test_another_salt_or_payload_is_another_commitment() -> None:
    assert len({commit(SALT, b"a"), commit(SALT, b"b"), commit(bytes(16), b"a"), commit(SALT, b"")}) == 4


@pytest.mark.parametrize("size", [0, SALT_BYTES - 1, SALT_BYTES + 1])
def test_a_salt_of_another_length_is_our_own_mistake(size: int) -> None:
    """Otherwise salt and payload could trade bytes."""
    with pytest.raises(UsageError):
        commit(bytes(size), b"payload")
