"""Lanes of the requester and of the provider, rule by rule (LAN-1 to LAN-14)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cocoon.core.errors import (
    BadSignature,
    CocoonError,
    Corrupt,
    LaneBusy,
    LaneClosing,
    LimitExceeded,
    Replayed,
    UsageError,
    WrongField,
)
from cocoon.core.ids import LeaseId
from cocoon.core.limits import ESCROW_LANES, LANE_FEES
from cocoon.ledger.escrow import LANE_FLOOR_NANOTON, LANE_GAP
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    TILL_FACTS,
    CloseSigned,
    LaneBook,
    LaneEnding,
    LaneEntered,
    LaneLeft,
    LaneStage,
    LaneTill,
    LeaseReleased,
    LeaseReserved,
    NewLaneNeeded,
    NoLane,
    TopUpLane,
    UseLane,
    VoucherKept,
    check_lane,
    check_network,
)
from cocoon.ledger.tab import Head
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
    vouched,
)
from tests.unit.ledger.parties import BIRTH, PROVIDER, REQUESTER, STRANGER, terms

ONE, TWO = LeaseId(b"\x01" * 32), LeaseId(b"\x02" * 32)


def choose(book: LaneBook, ceiling: int = TON, now_s: int = 0, provider: Any = PROVIDER.key, **changes: Any) -> Any:
    names = {"payout": PAYOUT, "provider_key": PROVIDER_KEY} | changes
    return book.choose(
        provider, names["payout"], names["provider_key"], ceiling_nanoton=ceiling, duration_s=3_600, now_s=now_s,
        rules=RULES,
    )


# --- the requester's choice ------------------------------------------------


def test_the_first_lease_needs_a_new_lane_of_at_least_what_its_fees_make_worth_while() -> None:
    worth = LANE_FEES * (5_000_000 + 4_000_000)
    assert choose(LaneBook(), ceiling=1) == NewLaneNeeded(1, worth, RULES.life_s)
    assert choose(LaneBook(), ceiling=worth + 1) == NewLaneNeeded(1, worth + 1, RULES.life_s)
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
    late = 10 * DAY_S - 3_600 - RULES.margin_s
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


def test_every_promised_lane_is_opened_by_rising_id() -> None:
    book = LaneBook()
    book.record(promised(1, expires_s=5))
    book.record(promised(3, cap_nanoton=7))
    assert book.unopened(100, RULES) == (
        NewLaneNeeded(1, TON, 100 + RULES.life_s), NewLaneNeeded(3, 7, 100 + RULES.life_s),
    )
    book.see(escrow_state({1: lane_state()}))
    assert [lane.lane for lane in book.unopened(100, RULES)] == [3]


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


# --- the provider's till ---------------------------------------------------


def entered(till: LaneTill, *shown: bytes, now_s: int = 0, known: bool = False, **changes: Any) -> tuple[Any, ...]:
    voucher, signature = shown or (b"", b"")
    return till.enter(terms(paid=True, **changes), voucher, signature, now_s=now_s, known=known)


def sold(head: Head | None = None, lease: LeaseId = ONE) -> LaneTill:
    """A till that has settled one lease of lane 9, up to ``head``."""
    till = LaneTill()
    for fact in entered(till, lease=lease):
        till.record(fact)
    if head is not None:
        till.record(VoucherKept(BIRTH.address(), 9, *vouched(head)))
    till.record(LaneLeft(BIRTH.address(), 9, lease, True, 0))
    return till


def test_a_new_lane_begins_at_zero() -> None:
    (fact,) = entered(LaneTill())
    assert isinstance(fact, LaneEntered) and fact.opening == Head()


def test_a_lease_begins_where_the_lanes_newest_voucher_stands() -> None:
    head = head_at(4, 400)
    till = sold(head)
    (fact,) = entered(till, *vouched(head), lease=TWO)
    assert fact.opening == head
    till.record(fact)
    till.record(VoucherKept(BIRTH.address(), 9, *vouched(head_at(5, 500))))
    lane = till.lane(BIRTH.address(), 9)
    assert (lane.opening, lane.head) == (head, head_at(5, 500))


@pytest.mark.parametrize("shown", [(), vouched(head_at(3, 300)), vouched(replace(head_at(4, 400), total_nanoton=399))])
def test_an_older_head_or_none_is_refused(shown: tuple[bytes, ...]) -> None:
    with pytest.raises(WrongField) as refused:
        entered(sold(head_at(4, 400)), *shown, lease=TWO)
    assert refused.value.code == "wrong_head"


def test_a_newer_voucher_than_we_remember_is_money_and_taken() -> None:
    head = head_at(6, 600)
    for till in (LaneTill(), sold(head_at(4, 400))):
        first, kept = entered(till, *vouched(head), lease=TWO)
        till.record(first)
        till.record(kept)
        lane = till.lane(BIRTH.address(), 9)
        assert lane.opening == lane.head == head and lane.voucher is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"network_tag": 1}, "wrong_network_id"), ({"escrow": b"\x01" * 32}, "wrong_escrow"), ({"lane": 8}, "wrong_lane")],
)
def test_a_voucher_of_another_lane_is_refused_by_the_field(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        entered(LaneTill(), *vouched(head_at(4, 400), **changes))
    assert refused.value.code == code


def test_a_voucher_that_the_lane_key_did_not_sign_is_refused() -> None:
    with pytest.raises(BadSignature):
        entered(LaneTill(), *vouched(head_at(4, 400), signer=STRANGER))


def test_one_lease_is_open_on_a_lane_and_the_same_lease_may_come_again() -> None:
    till = sold()
    for fact in entered(till, lease=TWO):
        till.record(fact)
    assert [fact.lease for fact in entered(till, lease=TWO)] == [TWO]
    with pytest.raises(LaneBusy):
        entered(till, lease=ONE)
    assert [lane.lease for lane in till.open_leases()] == [TWO]


def test_an_unsettled_lease_may_be_resumed_until_the_next_one_shows_the_last_word_on_it() -> None:
    till = sold(head_at(4, 400))
    for fact in entered(till, *vouched(head_at(4, 400)), lease=TWO):
        till.record(fact)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, False, 2))
    assert till.unsettled(BIRTH.address(), 9) == TWO and till.open_leases() == ()
    (again,) = entered(till, lease=TWO)
    assert again.opening == head_at(4, 400)
    (fact,) = entered(till, *vouched(head_at(4, 400)), lease=ONE)
    assert fact.opening == replace(head_at(4, 400), skipped=2)
    first, kept = entered(till, *vouched(head_at(5, 500)), lease=ONE)
    assert first.opening == replace(head_at(5, 500), skipped=1) and isinstance(kept, VoucherKept)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, True, 0))
    assert till.unsettled(BIRTH.address(), 9) is None


def test_a_lease_may_be_resumed_as_it_began_until_the_lane_has_another() -> None:
    till = sold(head_at(4, 400))
    (again,) = entered(till, lease=ONE, known=True)
    assert again.opening == Head()
    till.record(again)
    assert till.lane(BIRTH.address(), 9).head == head_at(4, 400) and not till.lane(BIRTH.address(), 9).settled
    till.record(LaneLeft(BIRTH.address(), 9, ONE, True, 0))
    for fact in entered(till, *vouched(head_at(4, 400)), lease=TWO):
        till.record(fact)
    till.record(LaneLeft(BIRTH.address(), 9, TWO, True, 0))
    with pytest.raises(Replayed):
        entered(till, *vouched(head_at(4, 400)), lease=ONE, known=True)


def test_a_lane_serves_one_requester() -> None:
    with pytest.raises(WrongField) as refused:
        entered(sold(), lease=TWO, requester=STRANGER.key)
    assert refused.value.code == "wrong_requester"


def test_a_lane_whose_close_we_signed_takes_no_lease_until_the_order_is_void() -> None:
    till = sold()
    till.record(CloseSigned(BIRTH.address(), 9, 0, 600))
    with pytest.raises(LaneClosing):
        entered(till, lease=TWO, now_s=599)
    assert entered(till, lease=TWO, now_s=600)


def test_a_replay_of_the_facts_gives_the_same_lanes() -> None:
    facts: list[Any] = [
        *entered(LaneTill(), lease=ONE), VoucherKept(BIRTH.address(), 9, *vouched(head_at(1, 5))),
        LaneLeft(BIRTH.address(), 9, ONE, True, 0), CloseSigned(BIRTH.address(), 9, 5, 60),
    ]
    first, again = LaneTill(), LaneTill()
    for fact in facts:
        first.record(fact)
        again.record(TILL_FACTS.unpack(TILL_FACTS.pack(fact)))
    assert first == again
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


def test_a_lane_that_nobody_promised_or_entered_is_our_own_fault() -> None:
    with pytest.raises(UsageError):
        LaneBook().record(LaneEnding(1))
    with pytest.raises(UsageError):
        LaneTill().lane(bytes(32), 1)


# --- the proven lane -------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (None, "wrong_lane"), (lane_state(payout=b"\x01" * 32), "wrong_payout"),
        (lane_state(provider_key=b"\x01" * 32), "wrong_provider_key"), (lane_state(cap_nanoton=1_099), "wrong_cap"),
        (lane_state(paid_nanoton=TON - 999), "wrong_cap"), (lane_state(expires_s=4_999), "wrong_expiry"),
    ],
)
def test_each_way_in_which_a_proven_lane_does_not_cover_the_lease_has_its_code(state: Any, code: str) -> None:
    with pytest.raises(WrongField) as refused:
        check_lane(
            state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
            least_cap_nanoton=1_000,
        )
    assert refused.value.code == code


def test_a_lane_covers_the_ceiling_to_the_nanoton_and_the_end_to_the_second() -> None:
    state = lane_state(cap_nanoton=1_100, expires_s=5_000)
    check_lane(
        state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
        least_cap_nanoton=1_100,
    )
    with pytest.raises(WrongField) as refused:
        check_lane(
            state, terms(paid=True), head_at(1, 100), payout=PAYOUT, provider_key=PROVIDER_KEY, until_s=5_000,
            least_cap_nanoton=1_101,
        )
    assert refused.value.code == "wrong_cap"


def test_the_escrow_of_another_chain_or_close_delay_is_refused() -> None:
    check_network(terms(paid=True), network_tag=BIRTH.network_tag, close_delay_s=60)
    for network_tag, delay_s, code in ((1, 60, "wrong_network_id"), (BIRTH.network_tag, 61, "wrong_escrow")):
        with pytest.raises(WrongField) as refused:
            check_network(terms(paid=True), network_tag=network_tag, close_delay_s=delay_s)
        assert refused.value.code == code


def test_every_refusal_is_typed() -> None:
    assert all(issubclass(e, CocoonError) for e in (LaneBusy, LaneClosing, LimitExceeded, WrongField))
    assert REQUESTER.key != STRANGER.key
