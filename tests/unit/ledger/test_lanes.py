"""Lanes of the requester, rule by rule (LAN-1 to LAN-7)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import (
    Corrupt,
    LaneBusy,
    LaneClosing,
    LimitExceeded,
    UsageError,
)
from cocoon.core.ids import LeaseId
from cocoon.core.limits import ESCROW_LANES, LANE_FEES, LANE_GAP, LANE_SLACK_S
from cocoon.core.values import replace
from cocoon.ledger.escrow import LANE_FLOOR_NANOTON
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    LaneBook,
    LaneEnding,
    LaneStage,
    LeaseReleased,
    LeaseReserved,
    NewLaneNeeded,
    NoLane,
    TopUpLane,
    UseLane,
)
from cocoon.ledger.tab import Head
from cocoon.ledger.till import (
    CloseSigned,
    LaneTill,
)
from tests.unit.ledger.chainside import (
    DAY_S,
    PAYOUT,
    PROVIDER_KEY,
    RULES,
    TON,
    book_with,
    escrow_state,
    head_at,
    lane_state,
    promised,
)
from tests.unit.ledger.parties import PROVIDER, STRANGER

ONE, TWO = LeaseId(b"\x01" * 32), LeaseId(b"\x02" * 32)


def choose(
    book: LaneBook, ceiling: int = TON, now_s: int = 0, provider: Any = PROVIDER.key, worth: int = 0, **changes: Any
) -> Any:
    names = {"payout": PAYOUT, "provider_key": PROVIDER_KEY} | changes
    return book.choose(
        provider, names["payout"], names["provider_key"], ceiling_nanoton=ceiling, duration_s=3_600, now_s=now_s,
        rules=RULES, worth_nanoton=worth,
    )


# --- the requester's choice ------------------------------------------------


def test_the_first_lease_needs_a_new_lane_of_at_least_what_its_fees_make_worth_while() -> None:
    worth = LANE_FEES * (5_000_000 + 4_000_000)
    assert choose(LaneBook(), ceiling=1) == NewLaneNeeded(1, worth, RULES.life_s)
    assert choose(LaneBook(), ceiling=worth + 1) == NewLaneNeeded(1, worth + 1, RULES.life_s)


def test_an_owner_s_worth_is_for_lanes_that_are_opened_or_topped_up_and_not_for_every_lease() -> None:
    assert choose(LaneBook(), ceiling=1, worth=TON) == NewLaneNeeded(1, TON, RULES.life_s)
    book = book_with(1)
    book.record(LeaseReserved(1, ONE, TON))
    book.record(LeaseReleased.at(1, ONE, head_at(1, 900_000_000)))
    assert isinstance(choose(book, ceiling=TON // 10, worth=TON), UseLane)
    assert choose(book, ceiling=TON // 5, worth=TON) == TopUpLane(1, 900_000_000 + TON, RULES.life_s)
    assert replace(RULES, open_fee_nanoton=0, claim_fee_nanoton=0).least_nanoton == LANE_FLOOR_NANOTON


def test_a_proven_lane_is_used_before_a_promised_one_and_only_for_its_provider() -> None:
    book = book_with(1, proven=False)
    assert choose(book) == UseLane(1, Head(), proven=False)
    book.record(promised(2))
    book.see(escrow_state({2: lane_state()}))
    assert choose(book) == UseLane(2, Head(), proven=True)
    assert isinstance(choose(book, provider=STRANGER.key), NewLaneNeeded)
    assert isinstance(choose(book, payout=b"\x01" * 32), NewLaneNeeded)
    assert isinstance(choose(book, provider_key=b"\x01" * 32), NewLaneNeeded)


def test_free_is_cap_less_voucher_total_less_the_ceilings_of_open_leases() -> None:
    book = book_with(1)
    book.record(LeaseReserved(1, ONE, 400_000_000))
    assert book.lanes[1].free_nanoton == 600_000_000
    book.record(LeaseReleased.at(1, ONE, head_at(3, 250_000_000)))
    assert book.lanes[1].free_nanoton == 750_000_000
    head = replace(head_at(3, 250_000_000), skipped=1)
    assert choose(book, ceiling=750_000_000) == UseLane(1, head, proven=True)


def test_a_lane_that_is_too_small_or_too_short_is_topped_up() -> None:
    book = book_with(1)
    book.record(LeaseReserved(1, ONE, TON))
    book.record(LeaseReleased.at(1, ONE, head_at(1, 900_000_000)))
    assert choose(book, ceiling=TON // 2) == TopUpLane(1, 900_000_000 + TON // 2, RULES.life_s)
    # The provider reads chain time later than we do, and must still find the lane long enough.
    late = 10 * DAY_S - 3_600 - RULES.margin_s - LANE_SLACK_S
    assert choose(book_with(1), now_s=late) == UseLane(1, Head(), proven=True)
    assert choose(book_with(1), now_s=late + 1) == TopUpLane(1, TON, late + 1 + RULES.life_s)


def test_a_top_up_counts_when_it_is_proven() -> None:
    book = book_with(1)
    assert isinstance(choose(book, ceiling=2 * TON), TopUpLane)
    assert isinstance(choose(book, ceiling=2 * TON), TopUpLane)
    book.see(escrow_state({1: lane_state(cap_nanoton=2 * TON)}))
    assert choose(book, ceiling=2 * TON) == UseLane(1, Head(), proven=True)


def test_a_second_lease_with_one_provider_takes_another_lane() -> None:
    book = book_with(1)
    book.record(LeaseReserved(1, ONE, 1))
    assert choose(book) == NewLaneNeeded(2, TON, RULES.life_s)
    with pytest.raises(LaneBusy):
        book.record(LeaseReserved(1, TWO, 1))


def test_an_id_once_promised_is_never_given_again() -> None:
    book = book_with(1, proven=False)
    book.see(escrow_state(next_lane=5))
    assert book.lanes[1].stage is LaneStage.GONE
    assert choose(book) == NewLaneNeeded(5, TON, RULES.life_s)
    for lane in (0, 1):
        with pytest.raises(UsageError):
            book.record(promised(lane))


def test_every_promised_lane_that_is_used_is_opened_by_rising_id() -> None:
    book = LaneBook()
    book.record(promised(1, expires_s=5))
    book.record(LeaseReserved(1, ONE, TON))
    book.record(promised(3, cap_nanoton=7))
    assert book.unopened({3}, 100, RULES) == (
        NewLaneNeeded(1, TON, 100 + RULES.life_s), NewLaneNeeded(3, 7, 100 + RULES.life_s),
    )
    book.record(LeaseReleased.at(1, ONE, head_at(1, 5)))
    assert [lane.lane for lane in book.unopened({3}, 100, RULES)] == [1, 3], "its work is not paid yet"
    book.see(escrow_state({1: lane_state()}))
    assert [lane.lane for lane in book.unopened({3}, 100, RULES)] == [3]


def test_a_promise_that_nobody_used_holds_up_no_other_lane() -> None:
    """Else one lane that is too dear for the wallet would keep every later one from being opened."""
    book = LaneBook()
    book.record(promised(1, cap_nanoton=1_000_000 * TON))
    book.record(promised(2))
    assert [lane.lane for lane in book.unopened({2}, 0, RULES)] == [2]
    assert [lane.lane for lane in book.unopened({1, 2}, 0, RULES)] == [1, 2]
    book.see(escrow_state({2: lane_state()}, next_lane=3))
    assert book.lanes[1].stage is LaneStage.GONE


def test_a_promised_lane_that_is_not_on_chain_yet_is_not_gone() -> None:
    book = book_with(3, proven=False)
    book.see(escrow_state(next_lane=2))
    assert book.lanes[3].stage is LaneStage.PROMISED


def test_an_escrow_that_is_full_or_too_far_ahead_takes_no_lane() -> None:
    full = book_with(*range(1, ESCROW_LANES + 1))
    assert isinstance(choose(full, provider=STRANGER.key), NoLane)
    ahead = LaneBook()
    ahead.record(promised(LANE_GAP))
    assert choose(ahead, provider=STRANGER.key) == NoLane(f"{LANE_GAP} promised lanes are not on chain yet")


def test_a_lease_is_signed_only_if_free_covers_its_ceiling() -> None:
    book = book_with(1)
    with pytest.raises(LimitExceeded):
        book.record(LeaseReserved(1, ONE, TON + 1))
    book.record(LeaseReserved(1, ONE, TON))
    book.record(LeaseReserved(1, ONE, TON))


def test_a_lane_that_ends_takes_no_further_lease() -> None:
    book = book_with(1)
    book.record(LaneEnding(1))
    with pytest.raises(LaneClosing):
        book.record(LeaseReserved(1, ONE, 1))
    assert isinstance(choose(book), NewLaneNeeded)
    book.see(escrow_state(next_lane=2))
    assert book.lanes[1].stage is LaneStage.GONE


def test_a_lease_on_a_lane_that_was_topped_up_is_taken_up_again_after_a_restart() -> None:
    """The journal has the cap that was promised; what the chain made of it is seen at the next look."""
    book, again = book_with(1), book_with(1)
    book.see(escrow_state({1: lane_state(cap_nanoton=2 * TON)}))
    reserved = LeaseReserved(1, ONE, 2 * TON)
    book.record(reserved)
    with pytest.raises(LimitExceeded):
        again.record(reserved)
    again.restore(reserved)
    again.see(escrow_state({1: lane_state(cap_nanoton=2 * TON)}))
    assert again == book


def test_a_replay_of_the_facts_gives_the_same_book() -> None:
    bought: list[Any] = [
        promised(1), LeaseReserved(1, ONE, 5), LeaseReleased.at(1, ONE, head_at(1, 5)), LaneEnding(1),
    ]
    book, other = LaneBook(), LaneBook()
    for fact in bought:
        book.record(fact)
        other.record(BOOK_FACTS.unpack(BOOK_FACTS.pack(fact)))
    assert book == other


@pytest.mark.parametrize("body", [b"", b"\x90", b"\x91\xa4made", b"\x92\xaaLaneEnding\xc4\x01x", b"\x91\xaaLaneEnding"])
def test_a_journal_body_that_is_no_fact_is_our_own_corruption(body: bytes) -> None:
    with pytest.raises(Corrupt):
        BOOK_FACTS.unpack(body)


def test_a_fact_of_another_machine_is_not_packed() -> None:
    with pytest.raises(UsageError):
        BOOK_FACTS.pack(CloseSigned(bytes(32), 1, 1, 1))


def test_a_lane_that_nobody__entered_is_our_own_fault() -> None:
    with pytest.raises(UsageError):
        LaneBook().record(LaneEnding(1))
    with pytest.raises(UsageError):
        LaneTill().lane(bytes(32), 1)
