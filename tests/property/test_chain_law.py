"""Laws of the journal's hash chain, over everything Hypothesis can think of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Corrupt
from cocoon.core.values import replace
from cocoon.store.chain import GENESIS, Entry, check_all, link

records = st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8), st.binary(max_size=40))


def chain(rows: list[tuple[str, bytes | None, bytes]]) -> list[Entry]:
    entries: list[Entry] = []
    head = GENESIS
    for seq, (kind, unique, body) in enumerate(rows, start=1):
        head = link(head, seq, kind, unique, body)
        entries.append(Entry(seq, kind, body, unique, head))
    return entries


@given(st.lists(records, max_size=12))
def test_every_honest_chain_is_accepted(rows):
    entries = chain(rows)
    assert check_all(entries) == (len(rows), entries[-1].hash if rows else GENESIS)


@given(rows=st.lists(records, min_size=1, max_size=8), data=st.data())
def test_any_edited_record_is_named(rows, data):
    """Whatever field changes, the walk stops at exactly that record."""
    entries = chain(rows)
    at = data.draw(st.integers(0, len(entries) - 1))
    kind, unique, body = data.draw(records.filter(lambda row: row != rows[at]))
    entries[at] = replace(entries[at], kind=kind, unique=unique, body=body)
    with pytest.raises(Corrupt, match=rf"record {at + 1} "):
        check_all(entries)


@given(rows=st.lists(records, min_size=2, max_size=8), data=st.data())
def test_no_order_but_the_written_one_is_accepted(rows, data):
    entries = chain(rows)
    shuffled = data.draw(st.permutations(entries).filter(lambda found: found != entries))
    with pytest.raises(Corrupt):
        check_all(shuffled)


@given(one=records, other=records, previous=st.binary(min_size=32, max_size=32), seq=st.integers(1, 2**63))
def test_two_different_records_never_share_a_hash(one, other, previous, seq):
    same = link(previous, seq, *one) == link(previous, seq, *other)
    assert same == (one == other)
