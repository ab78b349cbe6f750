"""Dictionaries as the TVM writes them, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import HashMap

from cocoon.core.errors import Malformed, TooLarge
from cocoon.wire import boc
from cocoon.wire.cells import Cell, CellBuilder
from cocoon.wire.dictionary import read_dictionary

#: Every key of 16 bits holds its own square.
VALUE_BITS = 32


def made(keys: set[int], key_bits: int) -> Cell | None:
    """By pytoniq-core."""
    table = HashMap(key_bits, value_serializer=lambda value, builder: builder.store_uint(value, VALUE_BITS))
    for key in keys:
        table.set_int_key(key, key * key & 0xFFFF_FFFF)
    found = table.serialize()
    return None if found is None else boc.unpack(found.to_boc())


@pytest.mark.parametrize("key_bits", [4, 15, 32])
@given(data=st.data())
def test_every_entry_is_read_in_order(key_bits: int, data: st.DataObject) -> None:
    keys = data.draw(st.sets(st.integers(0, (1 << key_bits) - 1), max_size=12))
    found = read_dictionary(made(keys, key_bits), key_bits, most=12)
    assert list(found) == sorted(keys)
    for key, reader in found.items():
        assert reader.uint(VALUE_BITS) == key * key & 0xFFFF_FFFF
        reader.end()


def test_the_empty_dictionary_has_no_cell() -> None:
    assert read_dictionary(None, 32, most=0) == {}


def test_a_dictionary_may_not_hold_more_than_it_should() -> None:
    full = made(set(range(16)), 4)
    assert len(read_dictionary(full, 4, most=16)) == 16
    with pytest.raises(TooLarge):
        read_dictionary(full, 4, most=15)


def test_a_dictionary_of_many_paths_and_few_cells_is_refused_in_time() -> None:
    """2^32 entries in 33 cells, each fork with one child twice."""
    cell = CellBuilder().uint(0b00, 2).uint(0, 1).end()
    for _ in range(32):
        cell = CellBuilder().uint(0b00, 2).ref(cell).ref(cell).end()
    with pytest.raises(TooLarge):
        read_dictionary(cell, 32, most=64)


@pytest.mark.parametrize(
    "root",
    [
        Cell(0, 0),
        Cell(0b00, 2),
        Cell(0b00, 2, (Cell(0, 0),)),
        CellBuilder().uint(0b00, 2).uint(1, 1).ref(Cell(0, 2)).ref(Cell(0, 2)).end(),
        # A label longer than the key: unary 0 11111 0, then long, then same.
        Cell(0b0111110_00000, 12),
        Cell(0b10_111_0000000, 12),
        Cell(0b11_0_111, 6),
        Cell((1 << 40) - 1, 40),
    ],
    ids=["empty", "no_fork", "half_a_fork", "bits_in_a_fork", "short", "long", "same", "ones"],
)
def test_what_is_no_dictionary_is_malformed(root: Cell) -> None:
    with pytest.raises(Malformed):
        read_dictionary(root, 4, most=16)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 64))
def test_any_cell_is_a_dictionary_or_malformed(value: int, bits: int) -> None:
    leaf = Cell(value >> (64 - bits), bits)
    for root in (leaf, Cell(leaf.value, leaf.bits, (leaf, leaf))):
        try:
            read_dictionary(root, 32, most=64)
        except Malformed:
            pass
