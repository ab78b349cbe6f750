"""An audit follows everything that an escrow on the real TVM takes, however strangers spell it (BAT-14 to BAT-17)."""

from __future__ import annotations

import pytest

from cocoon.ledger import escrow
from cocoon.ledger.acts import LaneEnd
from cocoon.ledger.audit import audit_escrow
from cocoon.wire import orders
from cocoon.wire.cells import Cell, CellBuilder
from tests.tvm.chain import TON, Result
from tests.tvm.parties import CAP, CARRIER, DAY_S, EMPTY, Escrow
from tests.tvm.refusals import NOTHING_DUE, UNKNOWN, refused


def followed(one: Escrow) -> bool:
    """Whether state and balance follow from the transactions."""
    return audit_escrow(one.history, one.state, one.balance) == []


def sent(one: Escrow, body: Cell, value: int = TON) -> Result:
    """A stranger's message."""
    return one.chain.internal(one.address, value, body, source=CARRIER)


def test_a_whole_life_is_followed_to_the_nanoton(one: Escrow) -> None:
    acts = [
        lambda: one.open(one.new([1, 5, 6])), lambda: one.top_up(1, 2 * CAP), lambda: one.claim(1, 10**7),
        lambda: one.claim(1, 3 * 10**7), lambda: one.external_claim(5, 6 * 10**7), lambda: one.expire([0]),
        lambda: one.close(5, 7 * 10**7), lambda: one.withdraw(10**7, Cell(5, 3)), lambda: one.deposit(TON),
        lambda: one.send(orders.cancel_order(one.head())), lambda: one.owner(escrow.owner_withdraw_body(1, 10**7)),
        lambda: one.owner(escrow.expire_all_body(1)),
    ]
    for act in acts:
        assert act().ok
        assert followed(one)
    refused(one, one.claim(1, 10**7), NOTHING_DUE)
    one.chain.now_s += DAY_S
    assert one.prune([0, 6]).ok and followed(one)
    assert {lane.lane: (lane.end, lane.paid_nanoton) for lane in one.history.lanes.values()} == {
        0: (LaneEnd.PRUNED, 0), 1: (LaneEnd.LIVE, 3 * 10**7), 5: (LaneEnd.CLOSED, 7 * 10**7), 6: (LaneEnd.PRUNED, 0),
    }


@pytest.mark.parametrize(
    "body",
    [
        EMPTY, CellBuilder().uint(0, 32).end(), CellBuilder().uint(0, 32).uint(1, 1).ref(EMPTY).end(),
        CellBuilder().uint(escrow.OP_TOP_UP, 32).end(), CellBuilder().uint(escrow.OP_TOP_UP, 32).uint(1, 63).end(),
        CellBuilder().uint(escrow.OP_TOP_UP, 32).uint(1, 64).ref(EMPTY).end(),
    ],
)
def test_a_strangers_dust_is_followed_as_a_deposit(one: Escrow, body: Cell) -> None:
    assert sent(one, body, 10**6).ok
    assert followed(one)


@pytest.mark.parametrize("length", [1, 3, 15])
def test_an_order_whose_carrier_wastes_bytes_or_adds_some_is_followed(one: Escrow, length: int) -> None:
    """The lane key signs the order, not what it travels in."""
    order = orders.open_order(one.head(), one.new([1]))
    head = CellBuilder().uint(escrow.OP_ORDER, 32).uint(1, 64).uint(length, 4).uint(0, 8 * length)
    signed = head.blob(one.lane_key.sign(order.hash()).signature, 64).ref(order).uint(0, 1)
    assert sent(one, signed.uint(3, 9).ref(EMPTY).end()).ok
    assert set(one.state.lanes) == {0, 1} and followed(one)


def test_what_the_contract_refuses_changes_no_history(one: Escrow) -> None:
    before = one.history.lanes
    for op in (escrow.OP_EXTERNAL_CLAIM, escrow.OP_TOP_UP + 1):
        refused(one, one.owner(CellBuilder().uint(op, 32).uint(0, 64).end()), UNKNOWN)
    for bits in (1, 31):
        assert not sent(one, CellBuilder().uint(1, bits).end()).ok
    assert one.history.lanes == before and followed(one)
