"""The audit: journal against chain, to the nanoton (BAT-10 to BAT-17), and earnings (LAN-30)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import Malformed
from cocoon.core.values import replace
from cocoon.ledger import escrow
from cocoon.ledger.acts import EscrowHistory, LaneEnd, history_of
from cocoon.ledger.audit import (
    LaneBooks,
    audit_account,
    audit_escrow,
    audit_lane,
    audit_lanes,
    audit_receipts,
    flow_of,
)
from cocoon.ledger.earnings import earnings_of
from cocoon.ledger.onchain import OutMessage, Transaction
from cocoon.ledger.till import SoldLane
from cocoon.ledger.verify import verify_record
from cocoon.wire import orders
from cocoon.wire.cells import Cell, CellBuilder
from tests.unit.ledger.chainside import PAYOUT, PROVIDER_KEY, TON, escrow_state, head_at, lane_state, voucher_at
from tests.unit.ledger.parties import (
    BIRTH,
    REQUESTER,
    close,
    deliver,
    issuer,
    record_of,
    settle,
    verifier,
)

ESCROW = BIRTH.address()
FEE, FORWARD = 3_000_000, 200_000
SIGNATURE = bytes(64)


class Books:
    """An escrow's transactions, as the chain would list them; every message brings a coin, and gets the rest back."""

    def __init__(self) -> None:
        self.transactions: list[Transaction] = []
        self.number = 0

    def take(
        self, body: Cell | None, keep: int = 0, paid: int = 0, *, success: bool = True, value: int = TON
    ) -> Books:
        back = OutMessage(REQUESTER.key, value - keep - FEE - 2 * FORWARD, FORWARD, Cell(0, 0), False)
        out = OutMessage(PAYOUT, paid, FORWARD, Cell(0, 0), False)
        self.transactions.append(Transaction(
            address=ESCROW, lt=len(self.transactions) + 1, hash=bytes(32), at_s=0, fees_nanoton=FEE,
            in_source=REQUESTER.key, in_value_nanoton=value, in_hash=bytes(32), in_body=body, in_bounced=False,
            outs=(back, out), exit_code=0 if success else 105, success=success,
        ))
        return self

    def order(self, make: Any, keep: int = 0, paid: int = 0) -> Books:
        head = orders.OrderHead(BIRTH.network_tag, ESCROW, self.number, 600)
        self.number += 1
        signed = bytes(64) if paid else None
        return self.take(escrow.order_body(1, keep, SIGNATURE, make(head), signed), keep, paid)

    def open(self, lane: int, cap: int = TON, deposit: int = 0) -> Books:
        new = orders.NewLane(lane, cap, 1_000, PAYOUT, PROVIDER_KEY)
        return self.order(lambda head: orders.open_order(head, [new]), keep=deposit)

    def claim(self, lane: int, total: int, due: int) -> Books:
        return self.take(escrow.claim_body(1, SIGNATURE, voucher_at(head_at(1, total), lane).cell()), paid=due)


def opened() -> Books:
    """An escrow of three coins with lane 9, from which 300 were claimed in two steps."""
    return Books().open(9, deposit=3 * TON).claim(9, 100, 100).claim(9, 300, 200)


def test_an_accounts_balance_follows_from_its_transactions() -> None:
    flow = flow_of(opened().transactions)
    assert flow.left_nanoton == 3 * TON - 300
    assert audit_account(ESCROW, flow, 3 * TON - 300) == []
    (found,) = audit_account(ESCROW, flow, 3 * TON - 299)
    assert (found.code, found.expected_nanoton, found.found_nanoton) == ("balance", 3 * TON - 300, 3 * TON - 299)


def test_an_escrows_state_follows_from_its_transactions() -> None:
    history = history_of(opened().transactions)
    state = escrow_state({9: lane_state(paid_nanoton=300)}, order_number=1)
    assert audit_escrow(history, state, 3 * TON - 300) == []
    assert history.lanes[9].claims == 2


@pytest.mark.parametrize(
    ("lanes", "order_number", "balance", "codes"),
    [
        ({9: lane_state(paid_nanoton=301)}, 1, 3 * TON - 300, ["locked", "paid"]),
        ({9: lane_state(paid_nanoton=300, cap_nanoton=TON + 5)}, 1, 3 * TON - 300, ["locked", "cap"]),
        ({9: lane_state(paid_nanoton=305, cap_nanoton=TON + 5)}, 1, 3 * TON - 300, ["paid", "cap"]),
        ({9: lane_state(paid_nanoton=300)}, 1, 3 * TON, ["balance"]),
        ({9: lane_state(paid_nanoton=300)}, 2, 3 * TON - 300, ["order"]),
        ({}, 1, 3 * TON - 300, ["locked", "lane"]),
        ({9: lane_state(paid_nanoton=300), 10: lane_state()}, 1, 3 * TON - 300, ["locked", "lane"]),
    ],
)
def test_a_state_that_does_not_follow_is_reported(
    lanes: Any, order_number: int, balance: int, codes: list[str]
) -> None:
    state = escrow_state(lanes, order_number=order_number)
    found = audit_escrow(history_of(opened().transactions), state, balance)
    assert [one.code for one in found] == codes
    assert all(one.expected_nanoton != one.found_nanoton for one in found if one.code in ("paid", "cap", "locked"))


def test_every_act_of_an_escrow_is_followed() -> None:
    books = opened().open(10).open(11)
    books.order(lambda head: orders.open_order(head, [orders.TopUp(9, 2 * TON, 2_000)]))
    books.order(lambda head: orders.expire_order(head, [10]))
    books.order(lambda head: orders.withdraw_order(head, 0))
    books.order(orders.cancel_order)
    books.order(lambda head: orders.close_order(head, 9, 500), paid=200)
    books.take(escrow.prune_body(1, [10])).take(escrow.expire_all_body(1)).take(escrow.owner_withdraw_body(1))
    books.take(escrow.external_claim_body(SIGNATURE, SIGNATURE, voucher_at(head_at(1, 7), 11).cell()), paid=7)
    books.take(None, keep=TON).take(CellBuilder().uint(0, 32).end()).take(escrow.top_up_body(1))
    history = history_of(books.transactions)
    assert {lane.lane: (lane.end, lane.cap_nanoton, lane.paid_nanoton) for lane in history.lanes.values()} == {
        9: (LaneEnd.CLOSED, 2 * TON, 500), 10: (LaneEnd.PRUNED, TON, 0), 11: (LaneEnd.LIVE, TON, 7),
    }
    assert history.order_number == 8 + 2
    assert history.balance_nanoton == flow_of(books.transactions).left_nanoton


@pytest.mark.parametrize(
    "body",
    [
        None, Cell(0, 0), CellBuilder().uint(0, 32).ref(Cell(0, 0)).end(),
        CellBuilder().uint(escrow.OP_TOP_UP, 32).end(),
        CellBuilder().uint(escrow.OP_TOP_UP, 32).uint(7, 31).end(),
    ],
)
def test_a_deposit_is_followed_however_a_stranger_spells_it(body: Cell | None) -> None:
    history = history_of(opened().take(body, keep=TON).transactions)
    assert history.lanes == history_of(opened().transactions).lanes
    assert (history.order_number, history.balance_nanoton) == (1, 4 * TON - 300)


def test_an_order_is_followed_though_its_carrier_spells_the_amount_longer_and_adds_words() -> None:
    books = opened()
    order = orders.cancel_order(orders.OrderHead(BIRTH.network_tag, ESCROW, 1, 600))
    body = CellBuilder().uint(escrow.OP_ORDER, 32).uint(1, 64).uint(3, 4).uint(5, 24).blob(SIGNATURE, 64).ref(order)
    books.take(body.uint(0, 1).uint(7, 17).ref(Cell(0, 0)).end())
    assert history_of(books.transactions).order_number == 2


def test_a_refused_transaction_did_nothing_but_cost() -> None:
    books = opened()
    books.take(escrow.claim_body(1, SIGNATURE, voucher_at(head_at(1, 900), 9).cell()), success=False)
    assert history_of(books.transactions).lanes[9].paid_nanoton == 300


def test_transactions_of_something_else_are_no_escrows_history() -> None:
    for books in (Books().claim(9, 100, 100), Books().take(CellBuilder().uint(0x0C0C1007, 32).uint(1, 64).end())):
        with pytest.raises(Malformed):
            history_of(books.transactions)


# --- receipts against the chain --------------------------------------------


def lane_books(**changes: Any) -> LaneBooks:
    """Two true receipts of lane 9, 3 and 4 runs: 18 nanoton."""
    seller, buyer = issuer(paid=True), verifier(paid=True)
    receipts = []
    for runs in (3, 4):
        deliver(seller, buyer, runs)
        promise = settle(seller, buyer, close(seller, buyer))
        receipts.append(verify_record(record_of(promise.statements, promise, paid=True)))
    return replace(LaneBooks(ESCROW, 9, receipts, 18), **changes)


def test_true_receipts_are_one_chain_that_adds_up() -> None:
    assert audit_receipts(lane_books()) == []


@pytest.mark.parametrize(
    ("books", "codes"),
    [
        (lane_books(vouched_nanoton=19), ["vouched"]),
        (lane_books(receipts=lane_books().receipts[1:]), ["chain", "lines"]),
        (lane_books(receipts=lane_books().receipts[:1]), ["vouched"]),
        (lane_books(receipts=[replace(lane_books().receipts[0], total_nanoton=13)]), ["lines", "vouched"]),
    ],
)
def test_receipts_that_do_not_add_up_are_reported(books: LaneBooks, codes: list[str]) -> None:
    assert [one.code for one in audit_receipts(books)] == codes


@pytest.mark.parametrize(
    ("paid", "end", "closed", "codes"),
    [
        (0, LaneEnd.LIVE, None, []), (18, LaneEnd.LIVE, None, []), (19, LaneEnd.LIVE, None, ["overpaid"]),
        (18, LaneEnd.CLOSED, 18, []), (18, LaneEnd.CLOSED, None, ["close"]), (17, LaneEnd.CLOSED, 17, ["unpaid"]),
        (18, LaneEnd.PRUNED, None, []), (9, LaneEnd.PRUNED, None, ["unpaid"]),
    ],
)
def test_a_lane_is_paid_what_was_vouched_or_it_is_reported(
    paid: int, end: LaneEnd, closed: int | None, codes: list[str]
) -> None:
    history = replace(history_of(Books().open(9).transactions).lanes[9], paid_nanoton=paid, end=end)
    assert [one.code for one in audit_lane(lane_books(closed_nanoton=closed), history)] == codes


def test_money_vouched_on_a_lane_that_does_not_exist_or_holds_less_is_reported() -> None:
    assert [one.code for one in audit_lane(lane_books(), None)] == ["unopened"]
    assert audit_lane(LaneBooks(ESCROW, 9, [], 0), None) == []
    small = replace(history_of(Books().open(9).transactions).lanes[9], cap_nanoton=17)
    assert [one.code for one in audit_lane(lane_books(), small)] == ["cap"]


def test_a_whole_journal_is_audited_lane_by_lane() -> None:
    chain = {ESCROW: history_of(Books().open(9, deposit=2 * TON).claim(9, 18, 18).transactions)}
    assert audit_lanes([lane_books()], chain) == []
    assert audit_lanes([lane_books()], {}) == [], "a lease on credit, whose lane is still on its way"
    later = {ESCROW: history_of(Books().open(10).transactions)}
    assert [one.code for one in audit_lanes([lane_books()], later)] == ["unopened"]
    assert [one.code for one in audit_lanes([lane_books(vouched_nanoton=17)], chain)] == ["vouched", "overpaid"]


# --- earnings --------------------------------------------------------------


def test_earnings_are_what_is_vouched_split_into_claimed_pending_and_lost() -> None:
    lanes = [
        SoldLane(ESCROW, lane, REQUESTER.key, head=head_at(1, earned)) for lane, earned in ((9, 500), (10, 40), (11, 7))
    ]
    books = opened().open(10).take(escrow.prune_body(1, [10]))
    made = earnings_of(lanes, {ESCROW: history_of(books.transactions)}, fees_nanoton=12)
    assert (made.earned_nanoton, made.claimed_nanoton, made.pending_nanoton, made.lost_nanoton, made.fees_nanoton) == (
        547, 300, 207, 40, 12,
    )
    assert earnings_of(lanes, {}, 0).pending_nanoton == 547
    assert EscrowHistory().lanes == {}
