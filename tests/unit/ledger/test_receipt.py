"""Issuer and verifier, rule by rule (REC-5 to REC-19)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cocoon.core.errors import (
    BadSignature,
    LimitExceeded,
    OutOfOrder,
    Replayed,
    UsageError,
    WrongField,
)
from cocoon.core.ids import ReceiptHash
from cocoon.core.limits import RECEIPT_REPLY_NS, RECEIPT_RESENDS, RUNS_UNSETTLED, TRANCHE_RUNS
from cocoon.core.machine import DeadlinePassed
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    CountersignReceived,
    IssueReceipt,
    LeaseResumed,
    LinkResumed,
    ReceiptReceived,
    RepeatCountersign,
    ReportReceiptLate,
    ReportUnsettled,
    RunAccepted,
    RunsForgotten,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.tab import Head, Tab
from cocoon.wire.judged import sign_cell
from cocoon.wire.schema import digest
from cocoon.wire.signing import sign
from tests.unit.ledger.parties import (
    PROVIDER,
    REQUESTER,
    STRANGER,
    close,
    countersigned,
    deliver,
    issuer,
    next_statement,
    second_tranche,
    settle,
    signed,
    statement,
    terms,
    verifier,
)

# --- the true path ---------------------------------------------------------


def test_a_closed_tranche_becomes_one_receipt_that_both_sides_sign() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 3)
    order = close(seller, buyer)
    receipt = order.receipt
    assert (receipt.seq, receipt.first_number, receipt.runs, receipt.units) == (1, 1, 3, 3)
    assert order.receipt.previous == bytes(32) and order.durable
    (promise,) = buyer.handle(0, signed(order))
    assert isinstance(promise, Countersign) and promise.durable
    assert promise.voucher.head == digest(order.receipt)
    assert [s.number for s in promise.statements] == [1, 2, 3]
    (kept,) = seller.handle(0, countersigned(seller.tab.terms, promise))
    assert isinstance(kept, SettleTranche) and kept.durable
    assert kept.statements == promise.statements
    assert seller.tab.head == buyer.tab.head == Head(1, ReceiptHash(digest(order.receipt)), 0)


def test_on_a_price_0_lease_lane_and_total_are_0() -> None:
    _, buyer, order = second_tranche()
    (promise,) = buyer.handle(0, signed(order))
    assert (order.receipt.lane, order.receipt.total_nanoton) == (0, 0)
    assert (promise.voucher.lane, promise.voucher.total_nanoton, promise.voucher.escrow) == (0, 0, bytes(32))


def test_receipts_form_a_chain_with_cumulative_figures() -> None:
    seller, buyer, order = second_tranche(paid=True)
    receipt = order.receipt
    assert (receipt.seq, receipt.previous) == (2, seller.tab.head.digest)
    assert (receipt.first_number, receipt.runs, receipt.units) == (4, 4, 7)
    # 7 of set-up and ceil(7 x 1.5) for the runs.
    assert receipt.total_nanoton == 18
    promise = settle(seller, buyer, order)
    assert promise.voucher.total_nanoton == 18 and promise.voucher.lane == 9


def test_lines_add_up_to_the_total() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 11)
    assert sum(s.price_nanoton for s in seller.tab.open) == close(seller, buyer).receipt.total_nanoton


def test_a_lane_that_served_before_goes_on_counting() -> None:
    opening = Head(5, ReceiptHash(b"\x09" * 32), 100)
    seller, buyer = ReceiptIssuer(Tab(terms(True), opening)), ReceiptVerifier(Tab(terms(True), opening))
    deliver(seller, buyer, 1)
    order = close(seller, buyer)
    assert (order.receipt.seq, order.receipt.previous) == (6, b"\x09" * 32)
    assert (order.receipt.units, order.receipt.total_nanoton) == (1, 109)
    settle(seller, buyer, order)


def test_a_full_tranche_is_receipted_unasked() -> None:
    seller, buyer = issuer(), verifier()
    (order,) = deliver(seller, buyer, TRANCHE_RUNS)
    assert order.receipt.runs == TRANCHE_RUNS
    assert buyer.deadline_ns() == RECEIPT_REPLY_NS
    settle(seller, buyer, order)
    assert buyer.deadline_ns() is None and seller.deadline_ns() is None


def test_runs_go_on_while_a_receipt_is_out_and_the_next_follows_its_countersignature() -> None:
    seller, buyer = issuer(), verifier()
    (first,) = deliver(seller, buyer, RUNS_UNSETTLED)
    assert first.receipt.runs == TRANCHE_RUNS
    (promise,) = buyer.handle(0, signed(first))
    kept, second = seller.handle(0, countersigned(seller.tab.terms, promise))
    assert isinstance(kept, SettleTranche) and isinstance(second, IssueReceipt)
    assert (second.receipt.seq, second.receipt.first_number) == (2, TRANCHE_RUNS + 1)


def test_failed_runs_leave_gaps_and_nothing_else() -> None:
    seller, buyer = issuer(), verifier()
    for number in (2, 5, 9):
        made = next_statement(seller.tab, number)
        seller.handle(0, StatementMade(made))
        buyer.handle(0, RunAccepted(made))
    order = close(seller, buyer)
    assert (order.receipt.first_number, order.receipt.runs, order.receipt.units) == (2, 3, 3)
    settle(seller, buyer, order)


def test_a_close_of_nothing_asks_and_issues_nothing() -> None:
    seller, buyer = issuer(), verifier()
    assert seller.handle(0, TrancheClosed(10)) == [] == buyer.handle(0, TrancheClosed(10))
    deliver(seller, buyer, 1)
    assert seller.outstanding is None and buyer.deadline_ns() is None


# --- bounds ----------------------------------------------------------------


def test_a_provider_stops_at_the_bound_of_unsettled_runs() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, RUNS_UNSETTLED)
    assert seller.room() == 0
    extra = next_statement(seller.tab)
    with pytest.raises(LimitExceeded):
        seller.handle(0, StatementMade(extra))
    with pytest.raises(OutOfOrder):
        buyer.handle(0, RunAccepted(extra))
    assert len(seller.tab.open) == len(buyer.tab.open) == RUNS_UNSETTLED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lease": bytes(32)}, "wrong_lease"), ({"number": 0}, "wrong_number"),
        ({"number": 1001}, "wrong_number"),
        ({"units": 2}, "wrong_units"), ({"price_nanoton": 8}, "wrong_price"),
        ({"number": 3, "ran_us": 21}, "wrong_statement"),
    ],
)
def test_a_statement_that_the_lease_does_not_allow_is_refused_by_either_side(
    changes: dict[str, Any], code: str
) -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 3)
    bad = next_statement(buyer.tab, **changes)
    with pytest.raises(WrongField) as refused:
        buyer.handle(0, RunAccepted(bad))
    assert refused.value.code == code
    with pytest.raises(UsageError):
        seller.handle(0, StatementMade(bad))
    assert seller.tab == buyer.tab and len(buyer.tab.open) == 3


def test_a_bill_above_the_ceiling_is_refused() -> None:
    agreed = terms(paid=True, ceiling_nanoton=10)
    buyer = ReceiptVerifier(Tab(agreed))
    for _ in range(2):
        buyer.handle(0, RunAccepted(next_statement(buyer.tab)))
    with pytest.raises(WrongField) as refused:
        buyer.handle(0, RunAccepted(next_statement(buyer.tab)))
    assert refused.value.code == "wrong_ceiling"


# --- wrong receipts --------------------------------------------------------

WRONG_RECEIPTS = [
    ({"network": b"\x09" * 32}, "wrong_network_id"), ({"lease": b"\x09" * 32}, "wrong_lease"),
    ({"lane": 8}, "wrong_lane"), ({"seq": 3}, "wrong_seq"), ({"seq": 0}, "wrong_seq"),
    ({"seq": 1}, "wrong_seq"),
    ({"previous": bytes(32)}, "wrong_previous"), ({"root": bytes(32)}, "wrong_root"),
    ({"first_number": 3}, "wrong_number"), ({"first_number": 5}, "wrong_number"), ({"runs": 5}, "wrong_runs"),
    ({"runs": 0}, "wrong_runs"), ({"units": 6}, "wrong_units"), ({"units": 8}, "wrong_units"),
    ({"total_nanoton": 17}, "wrong_total"), ({"total_nanoton": 19}, "wrong_total"),
    ({"total_nanoton": 0}, "wrong_total"),
]


@pytest.mark.parametrize(("changes", "code"), WRONG_RECEIPTS)
def test_each_wrong_field_of_a_signed_receipt_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    seller, buyer, order = second_tranche(paid=True)
    before = (deepcopy(buyer.tab), buyer.promised, buyer.deadline_ns())
    with pytest.raises(WrongField) as refused:
        buyer.handle(0, signed(order, **changes))
    assert refused.value.code == code
    assert (buyer.tab, buyer.promised, buyer.deadline_ns()) == before
    settle(seller, buyer, order)


def test_every_field_of_a_receipt_is_covered_by_a_wrong_one() -> None:
    _, _, order = second_tranche()
    covered = {name for changes, _ in WRONG_RECEIPTS for name in changes}
    assert covered == {field.name for field in order.receipt.shape.fields}


def test_a_receipt_signed_by_another_peer_is_refused() -> None:
    _, buyer, order = second_tranche()
    for stranger in (STRANGER, REQUESTER):
        with pytest.raises(WrongField) as refused:
            buyer.handle(0, ReceiptReceived(sign(order.receipt, stranger)))
        assert refused.value.code == "wrong_provider"


def test_a_price_on_a_free_lease_is_a_wrong_total() -> None:
    _, buyer, order = second_tranche()
    with pytest.raises(WrongField) as refused:
        buyer.handle(0, signed(order, total_nanoton=1))
    assert refused.value.code == "wrong_total"


def test_a_receipt_over_fewer_runs_than_were_accepted_is_lawful() -> None:
    """A provider that drains may close early; the rest stays owed to nobody but the next receipt."""
    buyer = verifier()
    seller = issuer()
    deliver(seller, buyer, 4)
    early = IssueReceipt(seller.tab.receipt(3))
    (promise,) = buyer.handle(0, signed(early))
    assert len(promise.statements) == 3 and [s.number for s in buyer.tab.open] == [4]


# --- repeats ---------------------------------------------------------------


def test_a_replayed_receipt_changes_nothing_and_repeats_the_countersignature() -> None:
    seller, buyer, order = second_tranche()
    promise = settle(seller, buyer, order)
    before = deepcopy(buyer.tab)
    assert buyer.handle(9, signed(order)) == [RepeatCountersign(promise.voucher)]
    assert buyer.tab == before and buyer.deadline_ns() is None


def test_a_receipt_from_before_the_newest_is_a_replay() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 1)
    first = close(seller, buyer)
    settle(seller, buyer, first)
    deliver(seller, buyer, 1)
    settle(seller, buyer, close(seller, buyer))
    before = deepcopy(buyer.tab)
    with pytest.raises(Replayed):
        buyer.handle(0, signed(first))
    assert buyer.tab == before


def test_a_second_different_receipt_with_the_newest_number_is_refused() -> None:
    seller, buyer, order = second_tranche()
    settle(seller, buyer, order)
    with pytest.raises(WrongField) as refused:
        buyer.handle(0, signed(order, units=99))
    assert refused.value.code == "wrong_seq"


def test_a_statement_twice_counts_once() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 2)
    again = seller.tab.open[1]
    assert seller.handle(0, StatementMade(again)) == [] == buyer.handle(0, RunAccepted(again))
    assert len(seller.tab.open) == len(buyer.tab.open) == 2


def test_a_run_that_was_settled_cannot_be_stated_again() -> None:
    seller, buyer, order = second_tranche()
    with pytest.raises(Replayed):
        buyer.handle(0, RunAccepted(statement(buyer.tab.terms, 2)))
    with pytest.raises(UsageError):
        seller.handle(0, StatementMade(statement(buyer.tab.terms, 2)))
    settle(seller, buyer, order)


def test_a_replayed_countersignature_changes_nothing() -> None:
    seller, buyer, order = second_tranche()
    again = countersigned(seller.tab.terms, settle(seller, buyer, order))
    before = deepcopy(seller.tab)
    assert seller.handle(0, again) == []
    assert seller.tab == before


# --- wrong countersignatures -----------------------------------------------

WRONG_VOUCHERS = [
    ({"network_tag": 9}, "wrong_network_id"), ({"escrow": bytes(32)}, "wrong_escrow"),
    ({"lane": 8}, "wrong_lane"), ({"seq": 3}, "wrong_seq"), ({"seq": 1}, "wrong_seq"),
    ({"total_nanoton": 17}, "wrong_total"), ({"total_nanoton": 19}, "wrong_total"),
    ({"head": bytes(32)}, "wrong_head"),
]


@pytest.mark.parametrize(("changes", "code"), WRONG_VOUCHERS)
def test_each_wrong_field_of_a_signed_voucher_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    seller, buyer, order = second_tranche(paid=True)
    (promise,) = buyer.handle(0, signed(order))
    with pytest.raises(WrongField) as refused:
        seller.handle(0, countersigned(seller.tab.terms, promise, **changes))
    assert refused.value.code == code
    assert seller.outstanding == order.receipt and seller.tab.head.seq == 1
    assert isinstance(seller.handle(0, countersigned(seller.tab.terms, promise))[0], SettleTranche)


@pytest.mark.parametrize("paid", [False, True])
def test_a_voucher_signed_by_another_key_is_refused(paid: bool) -> None:
    seller, buyer, order = second_tranche(paid)
    (promise,) = buyer.handle(0, signed(order))
    for signer in (STRANGER, PROVIDER, *([REQUESTER] if paid else [])):
        with pytest.raises(BadSignature):
            seller.handle(0, CountersignReceived(promise.voucher, sign_cell(promise.voucher.hash(), signer)))
    with pytest.raises(BadSignature):
        seller.handle(0, CountersignReceived(promise.voucher, b""))
    assert seller.outstanding == order.receipt


def test_a_voucher_for_a_receipt_that_is_not_out_is_refused() -> None:
    seller, buyer, order = second_tranche()
    promise = settle(seller, buyer, order)
    with pytest.raises(WrongField) as refused:
        seller.handle(0, countersigned(seller.tab.terms, promise, seq=3))
    assert refused.value.code == "wrong_seq"
    with pytest.raises(Replayed):
        seller.handle(0, countersigned(seller.tab.terms, promise, seq=1))


# --- time ------------------------------------------------------------------


def test_a_receipt_without_countersignature_is_sent_again_and_then_reported_once() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 1)
    order = close(seller, buyer)
    now = 0
    for _ in range(RECEIPT_RESENDS):
        assert seller.handle(now, DeadlinePassed()) == []
        now = seller.deadline_ns() or 0
        assert seller.handle(now, DeadlinePassed()) == [order]
    now = seller.deadline_ns() or 0
    assert seller.handle(now, DeadlinePassed()) == [ReportUnsettled(1)]
    assert seller.deadline_ns() is None and seller.handle(now + 1, DeadlinePassed()) == []


def test_a_late_countersignature_still_settles() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 1)
    order = close(seller, buyer)
    while (due := seller.deadline_ns()) is not None:
        seller.handle(due, DeadlinePassed())
    settle(seller, buyer, order)
    assert seller.tab.head.seq == 1


def test_a_missing_receipt_is_reported_once_and_accepted_late() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 2)
    order = close(seller, buyer)
    assert buyer.handle(RECEIPT_REPLY_NS - 1, DeadlinePassed()) == []
    assert buyer.handle(RECEIPT_REPLY_NS, DeadlinePassed()) == [ReportReceiptLate(2)]
    assert buyer.handle(RECEIPT_REPLY_NS, DeadlinePassed()) == []
    settle(seller, buyer, order)


def test_a_resumed_link_repeats_what_may_be_lost() -> None:
    seller, buyer = issuer(), verifier()
    assert seller.handle(0, LinkResumed()) == [] == buyer.handle(0, LinkResumed())
    deliver(seller, buyer, 2)
    order = close(seller, buyer)
    assert seller.handle(7, LinkResumed()) == [order]
    assert seller.deadline_ns() == 7 + RECEIPT_REPLY_NS
    assert buyer.handle(7, LinkResumed()) == [AskReceipt(2)]


def test_results_that_never_arrived_are_withdrawn() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 2)
    seller.handle(0, StatementMade(next_statement(seller.tab)))
    seller.handle(0, StatementsWithdrawn(2))
    order = close(seller, buyer)
    assert (order.receipt.seq, order.receipt.runs) == (1, 2)
    settle(seller, buyer, order)
    with pytest.raises(UsageError):
        seller.handle(0, StatementMade(next_statement(seller.tab, 3)))
    deliver(*_skipped(seller, buyer))


def test_a_receipt_over_a_result_that_never_arrived_is_voided_and_its_number_never_used_again() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 2)
    seller.handle(0, StatementMade(next_statement(seller.tab)))
    (void,) = seller.handle(0, TrancheClosed(3))
    assert (void.receipt.seq, void.receipt.runs) == (1, 3)
    (ask,) = buyer.handle(0, LeaseResumed())
    assert ask == AskReceipt(2)
    (order,) = seller.handle(0, StatementsWithdrawn(ask.through))
    assert (order.receipt.seq, order.receipt.runs, order.receipt.previous) == (2, 2, bytes(32))
    with pytest.raises(WrongField):
        buyer.handle(0, signed(void))
    promise = settle(seller, buyer, order)
    assert promise.voucher.seq == 2 and seller.tab.head == buyer.tab.head
    assert seller.tab.head.skipped == 0


def test_runs_that_the_provider_forgot_are_owed_no_more_and_those_before_them_are_settled() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 2)
    before, buyer_alone = seller.tab.units, next_statement(seller.tab)
    buyer.handle(0, RunAccepted(buyer_alone))           # the provider's power went before it was on its disk
    mark = buyer.mark()
    assert buyer.handle(0, RunsForgotten(2)) == [] and buyer.mark() != mark, "a fact of record"
    (ask,) = buyer.handle(0, LeaseResumed())
    assert [made.number for made in buyer.tab.open] == [1, 2] and buyer.tab.units == before
    seller.handle(0, StatementsWithdrawn(ask.through))
    (order,) = seller.handle(0, TrancheClosed(ask.through))
    settle(seller, buyer, order)
    assert buyer.settled and seller.tab.head.total_nanoton == buyer.tab.head.total_nanoton


def test_nothing_that_is_settled_can_be_forgotten() -> None:
    seller, buyer, order = second_tranche(paid=True)
    settle(seller, buyer, order)
    head, units = buyer.tab.head, buyer.tab.units
    buyer.handle(0, RunsForgotten(0))
    assert (buyer.tab.head, buyer.tab.units, buyer.settled) == (head, units, True)


def test_a_receipt_that_is_out_when_its_lease_ends_uses_its_number_up() -> None:
    seller, buyer, order = second_tranche(paid=True)
    assert seller.parting() == (False, 1)
    settle(seller, buyer, order)
    assert seller.parting() == (True, 0)
    seller.handle(0, StatementMade(next_statement(seller.tab)))
    assert seller.parting() == (False, 0)


def test_a_resumed_lease_without_a_loss_goes_on_where_it_stood() -> None:
    seller, buyer, order = second_tranche(paid=True)
    (ask,) = buyer.handle(0, LeaseResumed())
    assert seller.handle(0, StatementsWithdrawn(ask.through)) == []
    assert seller.handle(0, TrancheClosed(ask.through)) == []
    assert seller.handle(0, LinkResumed()) == [order]
    settle(seller, buyer, order)
    assert buyer.settled and buyer.tab.head == seller.tab.head


def test_a_number_beyond_the_voided_ones_is_refused() -> None:
    seller, buyer, order = second_tranche(paid=True)
    buyer.handle(0, LeaseResumed())
    for seq, code in ((order.receipt.seq + 2, "wrong_seq"), (order.receipt.seq - 1, "wrong_seq")):
        with pytest.raises(WrongField) as refused:
            buyer.handle(0, signed(order, seq=seq))
        assert refused.value.code == code


def _skipped(seller: ReceiptIssuer, buyer: ReceiptVerifier) -> tuple[ReceiptIssuer, ReceiptVerifier, int]:
    """Both go on at run 4 and agree about its price."""
    made = next_statement(seller.tab, 4)
    seller.handle(0, StatementMade(made))
    buyer.handle(0, RunAccepted(made))
    return seller, buyer, 1
