"""The hash chain as plain arithmetic."""

from __future__ import annotations

import hashlib

import pytest

from cocoon.core.errors import Corrupt
from cocoon.store.chain import GENESIS, Entry, check_all, link


def chain(*bodies: bytes) -> list[Entry]:
    entries: list[Entry] = []
    head = GENESIS
    for seq, body in enumerate(bodies, start=1):
        head = link(head, seq, "k", None, body)
        entries.append(Entry(seq, "k", body, None, head))
    return entries


def test_link_is_the_documented_sha256():
    """STO-3, written out by hand."""
    size = (3).to_bytes(8, "big")
    spelled = bytes(32) + (7).to_bytes(8, "big") + size + b"abc" + b"\x01" + size + b"key" + size + b"xyz"
    assert link(GENESIS, 7, "abc", b"key", b"xyz") == hashlib.sha256(spelled).digest()


def test_a_missing_key_differs_from_an_empty_one():
    assert link(GENESIS, 1, "k", None, b"") != link(GENESIS, 1, "k", b"", b"")


def test_bytes_do_not_move_between_fields():
    assert link(GENESIS, 1, "ab", b"c", b"d") != link(GENESIS, 1, "a", b"bc", b"d")
    assert link(GENESIS, 1, "a", b"bc", b"d") != link(GENESIS, 1, "a", b"b", b"cd")


def test_a_whole_chain_gives_its_length_and_head():
    entries = chain(b"1", b"2", b"3")
    assert check_all(entries) == (3, entries[-1].hash)
    assert check_all([]) == (0, GENESIS)


def test_a_missing_record_is_named():
    entries = chain(b"1", b"2", b"3")
    with pytest.raises(Corrupt, match="record 2 is missing"):
        check_all([entries[0], entries[2]])
