"""What a provider learns from calls that are over, and what another ask would have changed (AUC-16, AUC-17)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey
from cocoon.core.limits import CALLS_LOOKED_BACK_NS
from cocoon.core.units import PPM
from cocoon.core.values import replace
from cocoon.scheduler.award import verdict
from cocoon.scheduler.bidding import Bidding, BidSigned, BidTaken, CallSeen, ResultHeard
from cocoon.scheduler.hindsight import Tally, WhatIf, cost_nanoton, reason, tally, what_if
from cocoon.scheduler.selection import Demand, Quote, Ranked, expected_cost_nanoton, rank
from cocoon.wire.market import NO_MODEL, CallResult
from tests.unit.scheduler.builders import REQUESTER, tender
from tests.unit.scheduler.test_bidding import STRANGER, STRATEGY, answer, heard

WE, OTHER, THIRD = (PeerKey(bytes([n]) * 32) for n in (1, 2, 3))
UNITS = 1_000


def bands(dearer_percent: int = 0, cold: bool = False, slower: bool = False, less_reliable: bool = False) -> CallResult:
    return CallResult(
        call=bytes(32), dearer_percent=dearer_percent, cold=cold, slower=slower, less_reliable=less_reliable
    )


def seen(run_nanoton: int = 100, **changes: Any) -> CallSeen:
    """A bid of ``run_nanoton`` for 1,000 runs in a call for so many."""
    usual: dict[str, Any] = {"kind": "infer", "model": NO_MODEL, "units": UNITS, "prices": ((1, run_nanoton),)}
    return CallSeen(0, **{**usual, **changes})


def lost(dearer_percent: int, run_nanoton: int = 100, **flags: bool) -> CallSeen:
    return seen(run_nanoton, outcome="lost", bands=bands(dearer_percent, **flags), run_us=7)


def at(ask_nanoton: int, *calls: CallSeen) -> WhatIf:
    return what_if(calls, 0, ask_nanoton)


# --- sums --------------------------------------------------------------------


def test_each_call_is_counted_under_what_became_of_it() -> None:
    calls = [
        seen(outcome="won"), seen(), lost(5), lost(50), lost(50), lost(0, slower=True), seen(answer="busy"),
        seen(answer="model_denied"), seen(answer="busy"),
    ]
    assert tally(calls) == Tally(9, 6, 1, 4, (("busy", 2), ("model_denied", 1)), "up to 50 % dearer")


def test_a_peer_that_heard_nothing_has_zeros_and_no_reason() -> None:
    assert tally([]) == Tally(0, 0, 0, 0, (), "")


def test_reasons_that_are_as_frequent_are_ordered_by_their_text() -> None:
    assert tally([lost(0, slower=True), lost(0, cold=True)]).reason == "cold model"


def test_the_sums_are_those_of_the_desk() -> None:
    """From the events that a bid desk takes to what its owner reads."""
    bidding = Bidding(STRATEGY)
    for number in (1, 2, 3):
        answer(bidding, 0, heard(number))
        bidding.handle(0, BidSigned(heard(number).id, b"bid%d" % number))
    answer(bidding, 0, heard(4, requester=STRANGER, closed=("draining", "ends")))
    bidding.handle(0, BidTaken(b"bid1"))
    bidding.handle(0, ResultHeard(REQUESTER, replace(bands(10), call=heard(2).id)))
    assert tally(bidding.seen()) == Tally(4, 3, 1, 1, (("draining", 1),), "up to 10 % dearer")


@pytest.mark.parametrize(("said", "words"), [
    (None, ""),
    (bands(), "a newcomer was tried"),
    (bands(25, cold=True), "up to 25 % dearer, cold model"),
    (bands(100, slower=True, less_reliable=True), "more than 50 % dearer, slower, less reliable"),
    (bands(7), "up to 10 % dearer"),
    (bands(255), "more than 50 % dearer"),
])
def test_a_reason_is_told_in_words_whatever_a_stranger_said(said: CallResult | None, words: str) -> None:
    assert reason(seen(outcome="lost", bands=said)) == words


# --- another ask -------------------------------------------------------------


def test_a_bid_of_a_hundred_that_was_ten_per_cent_dearer_lost_to_one_between_91_and_95() -> None:
    assert [at(ask, lost(10)).no_dearer_at_least for ask in (90, 91, 92)] == [1, 1, 0]
    assert [at(ask, lost(10)).no_dearer_at_most for ask in (95, 96)] == [1, 0]
    assert [at(ask, lost(10)).lower_band_at_least for ask in (95, 96)] == [1, 0]     # 1.05 times 91 are 95.55
    assert [at(ask, lost(10)).lower_band_at_most for ask in (99, 100)] == [1, 0]     # and 1.05 times 95 are 99.75
    assert [at(ask, lost(10)).won_at_least for ask in (90, 91)] == [1, 0]


def test_of_a_bid_that_was_much_dearer_nothing_is_sure() -> None:
    found = at(1, lost(100))
    assert (found.no_dearer_at_least, found.no_dearer_at_most, found.won_at_least) == (0, 1, 0)


@pytest.mark.parametrize("call", [
    lost(10, slower=True), lost(10, less_reliable=True), replace(lost(10), run_us=0),
])
def test_where_more_than_the_price_may_have_counted_no_win_is_claimed(call: CallSeen) -> None:
    found = at(1, call)
    assert (found.no_dearer_at_least, found.won_at_least, found.gained_at_least_nanoton) == (1, 0, 0)


@pytest.mark.parametrize("call", [
    seen(answer="busy"), seen(), seen(outcome="won"), seen(outcome="lost"), lost(0, cold=True),
    lost(10, run_nanoton=0), lost(5, run_nanoton=1),
])
def test_what_was_not_lost_for_its_price_or_cannot_have_been_is_left_out(call: CallSeen) -> None:
    assert at(0, call).lost_dearer == 0


def test_calls_older_than_a_day_are_left_out() -> None:
    assert what_if([lost(10)], CALLS_LOOKED_BACK_NS - 1, 1).bid == 1
    assert what_if([lost(10)], CALLS_LOOKED_BACK_NS, 1).bid == 0


def test_what_was_won_is_billed_at_both_prices_with_its_set_up() -> None:
    found = at(200, seen(outcome="won", setup_nanoton=5), seen(outcome="won", units=2_000), lost(100))
    assert (found.bid, found.won, found.won_nanoton, found.won_at_ask_nanoton) == (3, 2, 105 + 200, 205 + 400)


def test_bids_that_would_have_won_are_worth_what_they_would_have_cost() -> None:
    assert at(90, lost(10), lost(100)).gained_at_least_nanoton == 90


amounts = st.integers(0, 400)
#: Set-up price, price of 1,000 runs, start (ms), run (us; 0 is not measured), reliability.
bidders = st.tuples(st.sampled_from([0, 7]), amounts, st.integers(0, 1), st.integers(0, 2), st.sampled_from([1, PPM]))


@given(
    ours=bidders, others=st.lists(bidders, min_size=1, max_size=2), units=st.sampled_from([1, 999, 1_000, 3_001]),
    ask=st.one_of(amounts, st.sampled_from(["below", "as", "above"])),
)
@example(ours=(0, 105, 0, 1, PPM), others=[(0, 100, 0, 1, PPM)], units=1_000, ask="as")
@example(ours=(0, 100, 0, 0, PPM), others=[(0, 96, 0, 1, PPM), (0, 400, 0, 1 << 30, PPM)], units=1_000, ask="below")
def test_at_least_is_never_more_and_at_most_never_less_than_what_happens(
    ours: tuple[int, ...], others: list[tuple[int, ...]], units: int, ask: int | str
) -> None:
    """Hold the auction, hear the bands, look back, and then really hold it at the other ask."""
    terms = dict(zip((WE, OTHER, THIRD), (ours, *others), strict=False))
    bids = [
        tender(peer, setup, run, start_ms=start_ms, run_us=run_us)
        for peer, (setup, run, start_ms, run_us, _) in terms.items()
    ]
    mine, taken = bids[0], best(bids, units, terms)
    assume(taken is not mine)
    why = verdict(mine, taken, units, lambda peer: terms[peer][4])
    said = bands(why.dearer_percent, why.cold, why.slower, why.less_reliable)
    call = seen(ours[1], units=units, setup_nanoton=ours[0], outcome="lost", bands=said, run_us=ours[3])
    assert cost_nanoton(call) == expected_cost_nanoton(mine.terms, units)
    if isinstance(ask, str):                            # one of the asks at which it just becomes no dearer
        nearest = (expected_cost_nanoton(taken.terms, units) - ours[0]) * 1_000 // units
        ask = max(0, nearest + {"below": -1, "as": 0, "above": 1}[ask])

    found = at(ask, call)

    again = tender(WE, ours[0], ask, start_ms=ours[2], run_us=ours[3])
    cost = expected_cost_nanoton(again.terms, units)
    is_lower = verdict(again, taken, units, lambda peer: terms[peer][4]).dearer_percent < why.dearer_percent
    is_no_dearer = cost <= expected_cost_nanoton(taken.terms, units)
    assert found.lost_dearer == (why.dearer_percent > 0)
    if found.lost_dearer:
        assert found.lower_band_at_least <= is_lower <= found.lower_band_at_most
        assert found.no_dearer_at_least <= is_no_dearer <= found.no_dearer_at_most
    wins = best([again, *bids[1:]], units, terms) is again
    assert found.won_at_least <= wins
    assert found.gained_at_least_nanoton == found.won_at_least * cost


def best(bids: list[Quote], units: int, terms: dict[PeerKey, tuple[int, ...]]) -> Quote:
    ranked = rank(bids, Demand("infer", 1_000, units, 1 << 40), lambda peer: terms[peer][4])
    assert isinstance(ranked, Ranked)
    return ranked.quotes[0]


def test_calls_by_the_token_are_left_out_because_nobody_tells_how_many_there_were() -> None:
    of_tokens = seen(kind="generate", prices=((5, 100),), setup_nanoton=7)
    assert at(50, of_tokens, replace(of_tokens, outcome="won")) == at(50)
    assert cost_nanoton(of_tokens) == 7
