"""TON's records from cells, against pytoniq's writers, and against nonsense (CHN-7, CHN-8)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytoniq_core import Address, begin_cell
from pytoniq_core import Cell as ForeignCell

from cocoon.core.errors import Malformed
from cocoon.core.values import replace
from cocoon.ledger.onchain import Prices
from cocoon.ledger.tlb import read_account, read_prices, read_transaction
from cocoon.wire.boc import unpack
from cocoon.wire.cells import Cell, CellBuilder

HERE = bytes(range(32))
THERE = bytes(range(32, 64))


def ours(builder) -> Cell:
    return unpack(builder.end_cell().to_boc())


def account(state, *, extra: bool = False, due: bool = False):
    """An ``Account`` by pytoniq's builder."""
    made = begin_cell().store_bit(1).store_address(Address((0, HERE)))
    made.store_var_uint(5, 3).store_var_uint(900, 3)
    made = made.store_uint(1, 3).store_bytes(HERE) if extra else made.store_uint(0, 3)
    made.store_uint(1_800_000_000, 32)
    made = made.store_bit(1).store_coins(7) if due else made.store_bit(0)
    made.store_uint(99, 64).store_coins(123_456_789_012).store_bit(0)
    return state(made)


def active(made):
    return (
        made.store_bit(1).store_bit(0).store_bit(0)
        .store_maybe_ref(ForeignCell.empty()).store_maybe_ref(begin_cell().store_uint(5, 8).end_cell()).store_bit(0)
    )


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("due", [False, True])
def test_an_active_account_reads_back(extra, due):
    found = read_account(ours(account(active, extra=extra, due=due)))
    assert (found.balance_nanoton, found.code, found.data) == (123_456_789_012, Cell(0, 0), Cell(5, 8))


def test_an_account_without_a_contract_has_a_balance_and_no_data():
    uninit, frozen = (lambda made: made.store_uint(0, 2)), (lambda made: made.store_uint(1, 2).store_bytes(HERE))
    for state in (uninit, frozen):
        found = read_account(ours(account(state)))
        assert (found.balance_nanoton, found.code, found.data) == (123_456_789_012, None, None)
    assert read_account(Cell(0, 1)).balance_nanoton == 0


def message(*, source: Address | None = None, bounced=False, external=False, inline_state=False):
    made = begin_cell()
    if external:
        made.store_uint(0b10, 2).store_uint(0, 2).store_address(Address((0, HERE))).store_coins(0)
    else:
        made.store_uint(0, 1).store_uint(0b110 | bounced, 3).store_address(source).store_address(Address((0, HERE)))
        made.store_coins(5).store_bit(0).store_coins(0).store_coins(3).store_uint(1, 64).store_uint(2, 32)
    if inline_state:
        made.store_bit(1).store_bit(0).store_uint(0b00110, 5).store_ref(ForeignCell.empty())
        made.store_ref(ForeignCell.empty())
    else:
        made.store_bit(0)
    return made.store_bit(1).store_ref(begin_cell().store_uint(9, 8).end_cell()).end_cell()


def transaction(caused_by, *, skipped: bool = False, success: bool = True, exit_code: int = 0, acted: bool = True):
    messages = begin_cell().store_maybe_ref(caused_by).store_bit(0).end_cell()
    described = begin_cell().store_uint(0, 4).store_bit(0).store_bit(0).store_bit(0)
    if skipped:
        described.store_bit(0).store_uint(0b10, 2)
    else:
        described.store_bit(1).store_bit(success).store_bit(0).store_bit(0).store_coins(400)
        more = begin_cell().store_var_uint(1_000, 3).store_var_uint(2_000, 3).store_bit(0).store_int(0, 8)
        more.store_int(exit_code, 32).store_bit(0).store_uint(10, 32).store_bytes(HERE + THERE)
        described.store_ref(more.end_cell())
    action = begin_cell().store_bit(acted).store_bit(1).end_cell()
    described.store_maybe_ref(action).store_bit(not success).store_bit(0).store_bit(0)
    made = begin_cell().store_uint(7, 4).store_bytes(HERE).store_uint(77, 64).store_bytes(THERE).store_uint(66, 64)
    made.store_uint(1_800_000_000, 32).store_uint(0, 15).store_uint(0b1010, 4).store_ref(messages)
    return ours(made.store_coins(1_234).store_bit(0).store_ref(ForeignCell.empty()).store_ref(described.end_cell()))


def test_a_transaction_reads_back_with_what_precedes_it():
    caused_by = message(source=Address((0, THERE)))
    cell = transaction(caused_by)
    linked = read_transaction(cell)
    found = linked.transaction
    assert (linked.previous_hash, linked.previous_lt) == (THERE, 66)
    assert (found.address, found.lt, found.hash, found.at_s) == (HERE, 77, cell.hash(), 1_800_000_000)
    assert (found.in_source, found.in_value_nanoton, found.in_body) == (THERE, 5, Cell(9, 8))
    assert (found.fees_nanoton, found.exit_code, found.success, found.in_bounced) == (1_234, 0, True, False)
    assert found.in_hash == caused_by.hash and found.outs == ()


def test_a_message_from_outside_has_no_source_and_a_bounced_one_says_so():
    assert read_transaction(transaction(message(external=True))).transaction.in_source is None
    assert read_transaction(transaction(message(source=Address((0, THERE)), bounced=True))).transaction.in_bounced
    assert read_transaction(transaction(None)).transaction.in_body is None
    inline = message(source=Address((0, THERE)), inline_state=True)
    assert read_transaction(transaction(inline)).transaction.in_body == Cell(9, 8)


def test_no_sender_of_another_workchain_looks_like_one_of_ours():
    """A masterchain account with the same 32 bytes is somebody else."""
    found = read_transaction(transaction(message(source=Address((-1, THERE))))).transaction
    assert found.in_source is not None and found.in_source != THERE and len(found.in_source) == 36


@pytest.mark.parametrize(
    ("how", "exit_code", "success"),
    [
        ({"skipped": True}, None, False),
        ({"success": False, "exit_code": 132}, 132, False),
        ({"success": False, "exit_code": -14}, -14, False),
        ({"acted": False}, 0, False),
        ({}, 0, True),
    ],
)
def test_success_means_that_neither_phase_failed(how, exit_code, success):
    found = read_transaction(transaction(message(external=True), **how)).transaction
    assert (found.exit_code, found.success) == (exit_code, success)


def prices(flat: bool = True) -> Prices:
    gas = CellBuilder()
    if flat:
        gas.uint(0xD1, 8).uint(100, 64).uint(40_000, 64)
    gas.uint(0xDE, 8).uint(400 << 16, 64)
    forward = CellBuilder().uint(0xEA, 8).uint(400_000, 64).uint(400 << 16, 64).uint(40_000 << 16, 64)
    rent = CellBuilder().uint(0b10, 2).uint(32, 6).uint(0, 32)  # one key of 32 zero bits
    rent.uint(0xCC, 8).uint(0, 32).uint(1, 64).uint(500, 64)
    return read_prices(gas.end(), forward.uint(0, 32).uint(21_845, 16).end(), rent.end())


def test_prices_round_up_like_the_chain_does():
    found = prices()
    assert found.gas_nanoton == 400
    assert [found.gas_fee_nanoton(gas) for gas in (0, 100, 101)] == [40_000, 40_000, 40_400]
    assert found.forward_fee_nanoton(1, 1) == 440_400
    assert [found.storage_fee_nanoton(1, 1, seconds) for seconds in (0, 1, 65_536)] == [0, 1, 501]
    assert prices(flat=False).gas_fee_nanoton(10) == 4_000


cells = st.recursive(
    st.integers(0, 400).flatmap(lambda bits: st.builds(Cell, st.integers(0, (1 << bits) - 1), st.just(bits))),
    lambda below: st.integers(0, 200).flatmap(
        lambda bits: st.builds(
            Cell, st.integers(0, (1 << bits) - 1), st.just(bits), st.lists(below, max_size=4).map(tuple)
        )
    ),
    max_leaves=6,
)


@given(cells)
@example(Cell(0, 0))
@example(Cell(0b0111, 4))
def test_any_cells_are_a_record_or_refused_typed(cell):
    for read in (read_account, read_transaction):
        try:
            read(cell)
        except Malformed:
            pass
    with pytest.raises(Malformed):
        read_prices(cell, cell, cell)


#: Bits of a transaction that nobody here asks for: the number of messages out, and the account's status around it.
UNREAD = range(4 + 256 + 64 + 256 + 64 + 32, 4 + 256 + 64 + 256 + 64 + 32 + 15 + 2 + 2)


def test_every_bit_of_a_transaction_that_is_read_says_something():
    """With another bit it is another transaction in more than its hash, or refused."""
    cell = transaction(message(source=Address((0, THERE))))
    right = read_transaction(cell)
    for at in range(cell.bits):
        flipped = Cell(cell.value ^ 1 << cell.bits - 1 - at, cell.bits, cell.refs)
        try:
            found = read_transaction(flipped)
        except Malformed:
            continue
        assert found.transaction.hash == flipped.hash()
        under_the_same_hash = replace(found, transaction=replace(found.transaction, hash=cell.hash()))
        assert (under_the_same_hash == right) == (at in UNREAD), at
