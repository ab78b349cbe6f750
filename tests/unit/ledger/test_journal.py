"""What both sides rebuild after a restart (REC-18, REC-19)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import (
    BadSignature,
    CocoonError,
    Corrupt,
    OutOfOrder,
    Replayed,
    UsageError,
    WrongField,
)
from cocoon.core.limits import RECEIPT_REPLY_NS, TRANCHE_RUNS
from cocoon.core.machine import DeadlinePassed
from cocoon.ledger.events import (
    Countersign,
    IssueReceipt,
    LinkResumed,
    RunAccepted,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.journal import pack_event, replay, unpack_event
from tests.unit.ledger.parties import (
    countersigned,
    deliver,
    issuer,
    next_statement,
    second_tranche,
    settle,
    signed,
    verifier,
)


def test_both_sides_rebuild_from_their_journals() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    sold: list[bytes] = []
    bought: list[bytes] = []

    def at_seller(event: Any) -> list[Any]:
        orders = seller.handle(0, event)
        sold.append(pack_event(event))
        return list(orders)

    def at_buyer(event: Any) -> list[Any]:
        orders = buyer.handle(0, event)
        bought.append(pack_event(event))
        return list(orders)

    for _ in range(2):
        for _ in range(TRANCHE_RUNS + 3):
            made = next_statement(seller.tab)
            at_buyer(RunAccepted(made))
            for order in at_seller(StatementMade(made)):
                (promise,) = at_buyer(signed(order))
                at_seller(countersigned(seller.tab.terms, promise))
    at_seller(StatementMade(next_statement(seller.tab)))
    at_seller(StatementsWithdrawn(seller.tab.last_number - 1))
    at_buyer(TrancheClosed(buyer.tab.last_number))
    (order,) = at_seller(TrancheClosed(buyer.tab.last_number))

    seller_again, buyer_again = issuer(paid=True), verifier(paid=True)
    owed = replay(seller_again, 0, sold)
    promises = replay(buyer_again, 0, bought)
    assert (seller_again, buyer_again) == (seller, buyer)
    assert [type(o) for o in owed] == [IssueReceipt, SettleTranche, IssueReceipt, SettleTranche, IssueReceipt]
    assert owed[-1] == order and [type(p) for p in promises] == [Countersign, Countersign]
    settle(seller_again, buyer_again, order)


def test_a_crash_between_journal_and_effect_resends_the_receipt() -> None:
    seller, buyer = issuer(), verifier()
    deliver(seller, buyer, 1)
    facts = [pack_event(StatementMade(seller.tab.open[0])), pack_event(TrancheClosed(1))]
    again = issuer()
    (order,) = replay(again, 5, facts)
    assert isinstance(order, IssueReceipt) and again.deadline_ns() == 5 + RECEIPT_REPLY_NS
    settle(again, buyer, order)


@pytest.mark.parametrize(
    "body", [b"", b"\x90", b"\x91\xa4made", b"\x92\xa4made\xc4\x01x", b"\x92\xa3who\x01", b"\xff"]
)
def test_a_journal_body_that_is_no_fact_is_our_own_corruption(body: bytes) -> None:
    with pytest.raises(Corrupt):
        unpack_event(body)


def test_a_journal_that_contradicts_itself_is_corrupt() -> None:
    seller, buyer, order = second_tranche()
    (promise,) = buyer.handle(0, signed(order))
    with pytest.raises(Corrupt):
        replay(issuer(), 0, [pack_event(countersigned(seller.tab.terms, promise))])


def test_timers_and_links_are_not_facts_of_record() -> None:
    for event in (DeadlinePassed(), LinkResumed()):
        with pytest.raises(UsageError):
            pack_event(event)


def test_every_refusal_has_a_code_of_the_table() -> None:
    assert all(issubclass(e, CocoonError) for e in (WrongField, Replayed, OutOfOrder, BadSignature))
