"""What a liteserver answers is looked at before it is used (CHN-6); proofs themselves: tests/adapters/ledger."""

from __future__ import annotations

import pytest
from pytoniq_core import Cell, begin_cell
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.boc.tvm_bitarray import TvmBitarray
from pytoniq_core.tl.block import BlockIdExt

from cocoon.core.errors import BadProof, Malformed
from cocoon.ledger.proofs import account_of, our_cell
from cocoon.wire.cells import CellReader

SHARD = BlockIdExt(0, -(1 << 63), 1, bytes(32), bytes(32))


@pytest.mark.parametrize("state", [None, 7, "text", {"@type": "liteServer.error"}])
def test_an_account_state_that_is_no_bytes_is_no_proof(state: object) -> None:
    with pytest.raises(BadProof, match="no bytes"):
        account_of({"state": state, "proof": b""}, SHARD, bytes(32), 1)


def test_what_stands_below_an_exotic_cell_is_opaque_and_the_tree_keeps_its_hash() -> None:
    bits = TvmBitarray(1023)
    bits.frombytes(bytes([CellTypes.library_ref]) + bytes(32))
    tree = begin_cell().store_uint(5, 7).store_ref(Cell(bits, [], CellTypes.library_ref)).end_cell()
    found = our_cell(tree)
    assert (found.hash(), found.bits, found.depth()) == (tree.hash, 7, 1)
    with pytest.raises(Malformed):
        CellReader.of(found.refs[0]).uint(8)


def test_a_tree_of_too_many_cells_is_refused() -> None:
    tree = begin_cell().end_cell()
    for number in range(12):
        tree = begin_cell().store_uint(number, 32).store_ref(tree).end_cell()
    with pytest.raises(Malformed, match="more than 12 cells"):
        our_cell(tree, most=12)
