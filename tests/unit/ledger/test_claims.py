"""When a provider claims, and how it watches its lane (LAN-15 to LAN-21)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.limits import LANE_LOOKS
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import SECOND_NS
from cocoon.ledger.claims import (
    ClaimAsked,
    ClaimEnded,
    ClaimKeeper,
    ClosePending,
    LaneSeen,
    LaneUnseen,
    LookAtLane,
    ReportClaimed,
    ReportLaneGone,
    SendClaim,
    VoucherSettled,
)
from tests.unit.ledger.chainside import DAY_S, TON, head_at, lane_state, voucher_at
from tests.unit.ledger.parties import BIRTH

FEE = 4_000_000
ESCROW = BIRTH.address()


def keeper(total: int, seq: int = 1) -> ClaimKeeper:
    """Watches lane 9, whose newest voucher promises ``total``."""
    made = ClaimKeeper(ESCROW, 9, close_delay_s=60)
    made.handle(0, settled(total, seq))
    return made


def settled(total: int, seq: int = 1) -> VoucherSettled:
    return VoucherSettled(voucher_at(head_at(seq, total)), b"s" * 64)


def seen(at_s: int = 0, fee: int = FEE, **changes: Any) -> LaneSeen:
    return LaneSeen(lane_state(**changes), at_s, fee)


def test_a_lane_is_looked_at_eight_times_per_close_delay_once_it_has_a_voucher() -> None:
    made = ClaimKeeper(ESCROW, 9, close_delay_s=60)
    assert made.deadline_ns() is None
    assert made.handle(0, settled(1)) == [LookAtLane(ESCROW, 9)]
    assert made.deadline_ns() == 60 * SECOND_NS // LANE_LOOKS
    now_ns, looks = 0, 0
    while now_ns < 60 * SECOND_NS:
        now_ns = made.deadline_ns() or 0
        looks += len(made.handle(now_ns, DeadlinePassed()))
        made.handle(now_ns, seen())
    assert looks == LANE_LOOKS
    assert made.handle(now_ns, DeadlinePassed()) == []


@pytest.mark.parametrize(
    ("due", "cap", "claims"),
    [
        (20 * FEE - 1, TON, False), (20 * FEE, TON, True), (10 * FEE - 1, 20 * FEE, False), (10 * FEE, 20 * FEE, True),
        (0, TON, False),
    ],
)
def test_it_claims_at_twenty_fees_or_half_the_cap(due: int, cap: int, claims: bool) -> None:
    made = keeper(due)
    orders = made.handle(1, seen(cap_nanoton=cap))
    assert [type(order) for order in orders] == [SendClaim] * claims


def test_what_was_paid_already_is_not_due() -> None:
    assert keeper(20 * FEE).handle(1, seen(paid_nanoton=1)) == []


def test_at_half_the_time_to_expiry_it_claims_whatever_pays_its_fee() -> None:
    made = keeper(FEE + 1)
    assert made.handle(1, seen(at_s=0)) == []
    assert made.handle(2, seen(at_s=5 * DAY_S - 1)) == []
    (order,) = made.handle(3, seen(at_s=5 * DAY_S))
    assert order == SendClaim(voucher_at(head_at(1, FEE + 1)), b"s" * 64) and order.durable
    poor = keeper(FEE)
    poor.handle(1, seen(at_s=0))
    assert poor.handle(2, seen(at_s=9 * DAY_S)) == []


def test_an_expiry_that_was_brought_forward_is_claimed_against() -> None:
    made = keeper(FEE + 1)
    assert made.handle(1, seen(at_s=0)) == []
    orders = made.handle(2, seen(at_s=10, expires_s=70))
    assert [type(order) for order in orders] == [SendClaim]


def test_a_lane_that_was_prolonged_gets_a_new_half_time() -> None:
    made = keeper(FEE + 1)
    made.handle(1, seen(at_s=0))
    assert made.handle(2, seen(at_s=6 * DAY_S, expires_s=20 * DAY_S)) == []
    assert made.handle(3, seen(at_s=13 * DAY_S, expires_s=20 * DAY_S)) != []


def test_whoever_asks_gets_a_claim_that_pays_its_fee() -> None:
    made = keeper(FEE + 1)
    made.handle(1, seen())
    assert made.handle(2, ClaimAsked()) == [LookAtLane(ESCROW, 9)]
    assert len(made.handle(3, seen(at_s=1))) == 1
    assert made.handle(4, ClaimEnded(1, True)) == [ReportClaimed(), LookAtLane(ESCROW, 9)]
    poor = keeper(FEE)
    poor.handle(2, ClaimAsked())
    assert poor.handle(3, seen()) == [ReportClaimed()]
    poor.handle(4, settled(FEE + 1, seq=2))
    assert poor.handle(5, seen()) == [], "what was asked is answered: the next voucher waits until it is worth more"


@pytest.mark.parametrize("fact", [LaneUnseen(), LaneSeen(None, 0, FEE, expected=False)])
def test_whoever_asks_is_answered_also_if_the_lane_cannot_be_seen(fact: Any) -> None:
    made = keeper(TON)
    made.handle(1, ClaimAsked())
    assert made.handle(2, fact) == [ReportClaimed()]
    assert made.handle(3, fact) == []


def test_whoever_asks_during_a_claim_waits_for_it_and_gets_what_came_since() -> None:
    made = keeper(20 * FEE)
    made.handle(1, seen())
    made.handle(2, ClaimAsked())
    assert made.handle(3, seen()) == []
    made.handle(4, settled(22 * FEE, seq=2))
    assert made.handle(5, ClaimEnded(1, True)) == [LookAtLane(ESCROW, 9)]
    assert [type(order) for order in made.handle(6, seen(paid_nanoton=20 * FEE))] == [SendClaim]
    assert made.handle(7, ClaimEnded(2, False)) == [ReportClaimed()]


def test_one_claim_is_on_its_way_at_a_time() -> None:
    made = keeper(20 * FEE)
    assert len(made.handle(1, seen())) == 1
    made.handle(2, settled(60 * FEE, seq=2))
    assert made.handle(3, seen()) == []
    assert made.handle(4, ClaimEnded(1, True)) == [LookAtLane(ESCROW, 9)]
    assert len(made.handle(5, seen(paid_nanoton=20 * FEE))) == 1


def test_a_claim_that_failed_is_sent_again_after_the_next_look() -> None:
    made = keeper(20 * FEE)
    made.handle(1, seen())
    assert made.handle(2, ClaimEnded(1, False)) == [], "at once it would only fail again"
    now_ns = made.deadline_ns() or 0
    assert made.handle(now_ns, DeadlinePassed()) == [LookAtLane(ESCROW, 9)]
    assert len(made.handle(now_ns + 1, seen())) == 1


def test_an_older_voucher_never_replaces_a_newer_one() -> None:
    made = keeper(50, seq=2)
    made.handle(1, settled(40, seq=1))
    assert made.voucher is not None and made.voucher.total_nanoton == 50


def test_nothing_is_claimed_at_the_second_of_expiry() -> None:
    made = keeper(TON)
    assert made.handle(1, seen(at_s=10 * DAY_S)) == []


def test_a_lane_that_is_not_on_chain_yet_is_waited_for() -> None:
    made = keeper(TON)
    assert made.handle(1, LaneSeen(None, 0, FEE, expected=False)) == []
    assert made.deadline_ns() is not None
    assert len(made.handle(2, seen())) == 1


def test_a_lane_that_vanished_unpaid_is_reported_once() -> None:
    made = keeper(100)
    made.handle(1, seen(paid_nanoton=30))
    (report,) = made.handle(2, LaneSeen(None, 5, FEE))
    assert report == ReportLaneGone(70) and report.durable
    assert made.deadline_ns() is None and made.handle(3, LaneSeen(None, 6, FEE)) == []


def test_a_lane_closed_at_the_total_that_we_signed_lost_nothing() -> None:
    made = keeper(100)
    made.handle(1, seen(paid_nanoton=30))
    assert made.handle(2, ClosePending(100)) == [LookAtLane(ESCROW, 9)]
    assert made.handle(3, LaneSeen(None, 5, FEE)) == [ReportLaneGone(0)] and made.gone


def test_a_lane_that_was_gone_before_anybody_looked_is_not_called_lost() -> None:
    """After a restart nothing says what it was paid; the audit reads that off the chain."""
    made = keeper(100)
    made.handle(1, ClaimAsked())
    assert made.handle(2, LaneSeen(None, 5, FEE)) == [ReportClaimed(), ReportLaneGone(0)]
