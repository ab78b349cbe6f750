"""Tranches by value: when a receipt is due, and what is never started (MON-13 to MON-16)."""

from __future__ import annotations

import pytest

from cocoon.core.errors import LimitExceeded, OutOfOrder
from cocoon.core.limits import RECEIPT_REPLY_NS, TRANCHE_RUNS
from cocoon.ledger.events import LaneProven, RunAccepted, StatementMade
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.tab import Tab
from tests.unit.ledger.parties import deliver, next_statement, second_tranche, settle, signed, terms


def priced(tranche: int, price: int, setup: int = 0, ceiling: int = 1_000_000) -> tuple[ReceiptIssuer, ReceiptVerifier]:
    """Both sides of a lease at ``price`` nanoton a run."""
    agreed = terms(
        paid=True, tranche_nanoton=tranche, price_nanoton=1_000 * price, setup_nanoton=setup, ceiling_nanoton=ceiling
    )
    return ReceiptIssuer(Tab(agreed)), ReceiptVerifier(Tab(agreed))


def test_a_receipt_is_due_at_half_a_tranche_rounded_up() -> None:
    seller, buyer = priced(tranche=999, price=100)
    assert deliver(seller, buyer, 4) == [] and buyer.deadline_ns() is None
    (order,) = deliver(seller, buyer, 1)
    assert (order.receipt.runs, order.receipt.total_nanoton) == (5, 500)
    assert buyer.deadline_ns() == RECEIPT_REPLY_NS
    settle(seller, buyer, order)
    assert buyer.deadline_ns() is None


def test_a_provider_starts_no_run_that_would_leave_more_than_a_tranche_unpaid() -> None:
    seller, buyer = priced(tranche=1_000, price=100)
    orders = deliver(seller, buyer, 9)
    assert seller.may_start() and not seller.may_start(open_runs=1)
    deliver(seller, buyer, 1)
    assert not seller.may_start()
    extra = next_statement(seller.tab)
    with pytest.raises(LimitExceeded):
        seller.handle(0, StatementMade(extra))
    with pytest.raises(OutOfOrder):
        buyer.handle(0, RunAccepted(extra))
    assert seller.tab == buyer.tab
    settle(seller, buyer, orders[0])
    assert seller.may_start(open_runs=4) and not seller.may_start(open_runs=5)


def test_a_unit_dearer_than_a_tranche_is_delivered_and_paid_alone() -> None:
    seller, buyer = priced(tranche=1_000, price=5_000)
    assert seller.may_start() and not seller.may_start(open_runs=1)
    (order,) = deliver(seller, buyer, 1)
    assert order.receipt.total_nanoton == 5_000 and not seller.may_start()
    settle(seller, buyer, order)
    assert seller.may_start()


def test_the_set_up_counts_with_the_first_run() -> None:
    seller, buyer = priced(tranche=1_000, price=100, setup=450)
    (order,) = deliver(seller, buyer, 1)
    assert order.receipt.total_nanoton == 550
    assert seller.may_start(open_runs=3) and not seller.may_start(open_runs=4)


def test_before_its_lane_is_proven_a_lease_may_cost_one_tranche_in_all() -> None:
    seller, buyer = priced(tranche=1_000, price=100)
    seller.proven = False
    (order,) = deliver(seller, buyer, 5)
    settle(seller, buyer, order)
    assert seller.may_start(open_runs=4) and not seller.may_start(open_runs=5)
    assert seller.handle(0, LaneProven()) == []
    assert seller.may_start(open_runs=9) and not seller.may_start(open_runs=10)


def test_no_run_is_started_or_asked_for_above_the_ceiling() -> None:
    seller, buyer = priced(tranche=1_000, price=100, ceiling=300)
    deliver(seller, buyer, 2)
    for side in (seller, buyer):
        assert side.affordable() and not side.affordable(1)


def test_many_cheap_runs_end_a_tranche_by_their_number() -> None:
    seller, buyer = priced(tranche=1_000_000, price=1)
    (order,) = deliver(seller, buyer, TRANCHE_RUNS)
    assert order.receipt.runs == TRANCHE_RUNS


def test_what_changes_nothing_need_not_be_journalled() -> None:
    seller, buyer, order = second_tranche(paid=True)
    settle(seller, buyer, order)
    before = buyer.mark()
    buyer.handle(0, signed(order))
    assert buyer.mark() == before
    deliver(seller, buyer, 1)
    assert buyer.mark() != before


# --- runs of many units -------------------------------------------------------


def test_runs_of_many_units_count_with_the_most_that_they_may_have() -> None:
    seller, buyer = priced(tranche=1_000, price=100, ceiling=1_500)
    assert seller.may_start(1, units=10) and not seller.may_start(1, units=11)
    assert seller.affordable(1, units=15) and not seller.affordable(1, units=16)
    deliver(seller, buyer, 2)
    assert seller.may_start(1, units=8) and not seller.may_start(1, units=9)
    assert seller.affordable(1, units=13) and not seller.affordable(1, units=14)


def test_a_run_that_may_be_dearer_than_a_tranche_goes_alone_and_never_on_credit() -> None:
    seller, buyer = priced(tranche=1_000, price=100)
    assert seller.may_start(0, units=50) and not seller.may_start(1, units=51)
    seller.proven = False
    assert not seller.may_start(0, units=50) and seller.may_start(0, units=10)
    seller.handle(0, LaneProven())
    assert seller.may_start(0, units=50)
    deliver(seller, buyer, 1)
    assert not seller.may_start(0, units=50)
