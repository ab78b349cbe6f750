"""Bags of cells: as pytoniq-core and the TVM write them, and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell as TheirCell

from cocoon.core.errors import Malformed, TooLarge, UsageError
from cocoon.core.limits import BOC_BYTES, BOC_CELLS
from cocoon.ledger import bytecode
from cocoon.wire import boc
from cocoon.wire.cells import MAX_DEPTH, Cell, CellBuilder


def cells(depth: int = 4) -> st.SearchStrategy[Cell]:
    """Trees of cells."""
    def build(refs: list[Cell], bits: int, seed: int) -> Cell:
        return Cell(random.Random(seed).getrandbits(bits) if bits else 0, bits, tuple(refs))

    leaf = st.builds(build, st.just([]), st.integers(0, 1_023), st.integers(0, 1 << 32))
    return st.recursive(
        leaf, lambda below: st.builds(build, st.lists(below, max_size=4), st.integers(0, 1_023), st.integers(0, 9)),
        max_leaves=12,
    )


def chain(length: int) -> Cell:
    """A tree of depth ``length`` without branches."""
    cell = Cell(0, 0)
    for number in range(length):
        cell = CellBuilder().uint(number, 32).ref(cell).end()
    return cell


@given(cells())
def test_a_bag_is_read_back_by_us_and_by_pytoniq(cell: Cell) -> None:
    data = boc.pack(cell)
    assert boc.unpack(data) == cell
    theirs = TheirCell.one_from_boc(data)
    assert theirs.hash == cell.hash()


@given(cells(), st.booleans(), st.booleans())
def test_a_bag_of_pytoniq_is_read(cell: Cell, index: bool, crc: bool) -> None:
    theirs = TheirCell.one_from_boc(boc.pack(cell))
    assert boc.unpack(theirs.to_boc(has_idx=index, hash_crc32=crc)) == cell


def test_the_contracts_code_is_one_bag_in_every_spelling() -> None:
    for code in (bytecode.escrow_code(), bytecode.anchor_code()):
        theirs = TheirCell.one_from_boc(boc.pack(code))
        assert boc.unpack(theirs.to_boc()) == code


def test_golden_bag() -> None:
    leaf = CellBuilder().uint(0b101, 3).end()
    root = CellBuilder().uint(0xC0C0, 16).ref(leaf).ref(leaf).end()
    assert boc.pack(root).hex() == "b5ee9c72410102010009000204c0c001010001b097b6c336"
    assert TheirCell.one_from_boc(boc.pack(root)).hash == root.hash()


def test_a_shared_subtree_costs_nothing_twice() -> None:
    """A tree of 2^200 paths has 201 cells."""
    cell = Cell(0, 0)
    for _ in range(200):
        cell = Cell(0, 0, (cell, cell, cell, cell))
    data = boc.pack(cell)
    assert boc.unpack(data) == cell and len(data) < 2_000
    assert "Cell(" in repr(cell) and len({cell, boc.unpack(data)}) == 1


def test_the_deepest_tree_is_read_and_a_deeper_one_refused() -> None:
    deep = chain(MAX_DEPTH)
    assert boc.unpack(boc.pack(deep)).depth() == MAX_DEPTH
    with pytest.raises(UsageError, match="depth"):
        Cell(0, 0, (deep,))
    with pytest.raises(Malformed, match="depth"):
        boc.unpack(_longer(boc.pack(deep)))


def _longer(data: bytes) -> bytes:
    """The bag of a chain with one more cell before its root."""
    cells, width, offset = int.from_bytes(data[6:8], "big"), 2, data[5]
    start = 6 + 3 * width + offset + width
    body = data[start:-4]
    moved = b""
    at = 0
    while at < len(body):
        refs, bits = body[at], body[at + 1]
        end = at + 2 + (bits + 1) // 2
        moved += body[at:end]
        for _ in range(refs):
            moved += (int.from_bytes(body[end : end + width], "big") + 1).to_bytes(width, "big")
            end += width
        at = end
    moved = b"\x01\x00" + (1).to_bytes(width, "big") + moved
    head = data[:4] + bytes((width, offset)) + (cells + 1).to_bytes(width, "big") + (1).to_bytes(width, "big")
    return head + bytes(width) + len(moved).to_bytes(offset, "big") + bytes(width) + moved


@given(cells(), st.data())
def test_a_changed_byte_never_passes(cell: Cell, data: st.DataObject) -> None:
    """Every bag of ours ends with a CRC; what it does not cover is nothing."""
    packed = bytearray(boc.pack(cell))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    try:
        found = boc.unpack(bytes(packed))
    except Malformed:
        return
    # The flag of the CRC itself may go; then four bytes are left over. Nothing else may pass.
    assert found == cell


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bag_or_malformed(data: bytes) -> None:
    for head in (b"", bytes.fromhex("b5ee9c72"), bytes.fromhex("b5ee9c7201010101")):
        try:
            boc.unpack(head + data)
        except Malformed:
            pass


LEAF = "b5ee9c72" "0101" "01" "01" "00" "02" "00" "0000"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("00000000" + LEAF[8:], "magic"),
        ("b5ee9c72" "0901" "01" "01" "00" "02" "00" "0000", "flags"),
        ("b5ee9c72" "0501" "01" "01" "00" "02" "00" "0000", "flags"),
        ("b5ee9c72" "0109" "01" "01" "00" "02" "00" "0000", "flags"),
        ("b5ee9c72" "2101" "01" "01" "00" "02" "00" "0000", "cache"),
        ("b5ee9c72" "0101" "01" "02" "00" "02" "00" "0000", "one root"),
        ("b5ee9c72" "0101" "01" "00" "00" "02" "00" "0000", "one root"),
        ("b5ee9c72" "0101" "01" "01" "01" "02" "00" "0000", "one root"),
        ("b5ee9c72" "0101" "00" "01" "00" "00" "00", "one root"),
        ("b5ee9c72" "0101" "01" "01" "00" "02" "01" "0000", "root is cell 1"),
        ("b5ee9c72" "0101" "01" "01" "00" "03" "00" "000000", "too many"),
        (LEAF + "00", "too many"),
        (LEAF[:-2], "early"),
        ("b5ee9c72" "0101" "01" "01" "00" "02" "00" "0800", "exotic"),
        ("b5ee9c72" "0101" "01" "01" "00" "02" "00" "2000", "exotic"),
        ("b5ee9c72" "0101" "01" "01" "00" "02" "00" "0500", "exotic"),
        ("b5ee9c72" "0101" "01" "01" "00" "03" "00" "000100", "completion tag"),
        ("b5ee9c72" "0101" "01" "01" "00" "03" "00" "010000", "only later ones"),
        ("b5ee9c72" "0101" "01" "01" "00" "03" "00" "010001", "only later ones"),
        ("b5ee9c72" "0101" "01" "01" "00" "24" "00" "1000" + "00" * 34, "another hash"),
    ],
)
def test_what_is_no_bag_is_malformed_and_says_why(data: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        boc.unpack(bytes.fromhex(data))


def test_a_cell_may_carry_its_own_right_hash() -> None:
    empty = Cell(0, 0)
    data = bytes.fromhex("b5ee9c72" "0101" "01" "01" "00" "24" "00" "1000")
    assert boc.unpack(data + empty.hash() + bytes(2)) == empty


def test_a_bag_above_its_bounds_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(TooLarge):
        boc.unpack(bytes(BOC_BYTES + 1))
    with pytest.raises(TooLarge, match="cells"):
        boc.unpack(bytes.fromhex("b5ee9c72" "0401" "ffffffff" "00000001" "00000000" "02" "00000000" "0000"))
    with pytest.raises(TooLarge):
        boc.pack(_wide(BOC_CELLS))
    with pytest.raises(TooLarge):
        boc.pack(_heavy())


def test_a_bag_of_more_cells_than_the_caller_allows_is_refused() -> None:
    with pytest.raises(TooLarge):
        boc.unpack(boc.pack(chain(5)), max_cells=5)
    assert boc.unpack(boc.pack(chain(5)), max_cells=6).depth() == 5


def _wide(leaves: int) -> Cell:
    level = [Cell(number, 32) for number in range(leaves)]
    while len(level) > 1:
        level = [Cell(0, 0, tuple(level[i : i + 4])) for i in range(0, len(level), 4)]
    return level[0]


def _heavy() -> Cell:
    level = [Cell(number, 1_023) for number in range(2_100)]
    while len(level) > 1:
        level = [Cell(0, 0, tuple(level[i : i + 4])) for i in range(0, len(level), 4)]
    return level[0]
