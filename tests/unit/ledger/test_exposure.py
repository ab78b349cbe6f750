"""Credit before a lane is on chain (MON-16 to MON-18), and what was withdrawn."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import CreditRefused
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import CREDIT_DEBTORS
from cocoon.ledger.events import StatementMade, StatementsWithdrawn
from cocoon.ledger.exposure import CREDIT_FACTS, CreditBook, CreditEnded, WorkLost, lost_nanoton
from tests.unit.ledger.parties import REQUESTER, STRANGER, close, deliver, issuer, next_statement, settle, verifier

ONE, TWO = LeaseId(b"\x01" * 32), LeaseId(b"\x02" * 32)


def book(**changes: Any) -> CreditBook:
    return CreditBook(**({"strangers_nanoton": 3_000, "tranches_behind": 10} | changes))


def given(book: CreditBook, lease: LeaseId, requester: PeerKey, tranche: int = 1_000) -> None:
    book.record(book.ask(lease, requester, tranche, 10 * tranche))


def test_ten_tranches_must_lie_unlocked_behind_a_lease_on_credit() -> None:
    assert book().ask(ONE, REQUESTER.key, 1_000, 10_000).nanoton == 1_000
    with pytest.raises(CreditRefused):
        book().ask(ONE, REQUESTER.key, 1_000, 9_999)


def test_the_total_for_strangers_bounds_all_of_them_together() -> None:
    made = book()
    for n in range(3):
        given(made, LeaseId(bytes([n]) * 32), PeerKey(bytes([n]) * 32))
    with pytest.raises(CreditRefused):
        given(made, LeaseId(b"\x09" * 32), STRANGER.key)
    made.record(CreditEnded(LeaseId(bytes(32)), 0))
    given(made, LeaseId(b"\x09" * 32), STRANGER.key)


def test_whoever_did_not_pay_gets_no_credit_until_it_did() -> None:
    made = book()
    given(made, ONE, REQUESTER.key)
    made.record(CreditEnded(ONE, 400))
    assert made.concerns(ONE)
    with pytest.raises(CreditRefused, match="400 nanoton of delivered work were never promised"):
        given(made, TWO, REQUESTER.key)
    given(made, TWO, STRANGER.key)
    made.record(CreditEnded(ONE, 0))
    assert not made.concerns(ONE)
    given(made, ONE, REQUESTER.key)


def test_a_requester_that_cost_more_than_we_bear_is_served_no_more() -> None:
    made = book(patience_nanoton=1_000)
    made.record(WorkLost(ONE, REQUESTER.key, 1_000))
    made.check(REQUESTER.key)
    made.record(WorkLost(TWO, REQUESTER.key, 1))
    with pytest.raises(CreditRefused):
        made.check(REQUESTER.key)
    made.check(STRANGER.key)
    made.record(WorkLost(TWO, REQUESTER.key, 0))
    made.check(REQUESTER.key)


def test_results_that_were_withdrawn_count_as_not_paid() -> None:
    """Else a stranger could take a tranche, say that nothing came, and do it again."""
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 3)
    assert lost_nanoton(seller.tab) == seller.tab.open_nanoton == 12
    seller.handle(0, StatementsWithdrawn(1))
    assert (lost_nanoton(seller.tab), seller.tab.open_nanoton) == (12, 9)


def test_what_was_withdrawn_is_on_no_bill_and_the_next_run_costs_what_it_would_have() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 2)
    tab, lost = seller.tab, next_statement(seller.tab)
    seller.handle(0, StatementMade(lost))
    seller.handle(0, StatementsWithdrawn(2))
    assert (tab.units, tab.billed_nanoton) == (2, tab.terms.bill_nanoton(2))
    assert tab.price_nanoton(1) == lost.price_nanoton
    settle(seller, buyer, close(seller, buyer))
    assert (tab.billed_nanoton, tab.open_nanoton) == (tab.terms.bill_nanoton(2), 0)


def test_what_a_dead_provider_may_never_have_sent_is_not_counted_against_its_buyer() -> None:
    seller, buyer = issuer(paid=True), verifier(paid=True)
    deliver(seller, buyer, 3)
    seller.handle(0, StatementsWithdrawn(1))
    assert lost_nanoton(seller.tab, cut=True) == seller.tab.open_nanoton


def test_no_credit_at_all_can_be_configured() -> None:
    with pytest.raises(CreditRefused):
        given(book(strangers_nanoton=0), ONE, REQUESTER.key, 1)


def test_debtors_are_bounded_and_the_oldest_is_forgiven() -> None:
    made = book(strangers_nanoton=1 << 62)
    for n in range(CREDIT_DEBTORS + 1):
        lease, requester = LeaseId(n.to_bytes(32, "big")), PeerKey(n.to_bytes(32, "big"))
        given(made, lease, requester)
        made.record(CreditEnded(lease, 1))
    assert len(made.owed) == CREDIT_DEBTORS and not made.concerns(LeaseId(bytes(32)))


def test_a_replay_gives_the_same_book() -> None:
    made, again = book(), book()
    for fact in (made.ask(ONE, REQUESTER.key, 1_000, 10_000), CreditEnded(ONE, 5), WorkLost(TWO, STRANGER.key, 7)):
        made.record(fact)
        again.record(CREDIT_FACTS.unpack(CREDIT_FACTS.pack(fact)))
    assert made == again
