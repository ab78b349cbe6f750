"""Auctions: who is called, when they close, who is taken, what the others hear (AUC-1 to AUC-7)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    AUCTION_MOST_NS,
    AUCTION_SOONEST_NS,
    EXPLORATION_PPM,
    PROVIDERS_ASKED,
    ROUND_TRIP_UNKNOWN_NS,
)
from cocoon.core.machine import DeadlinePassed
from cocoon.core.rng import stream
from cocoon.core.units import PPM, SECOND_NS
from cocoon.scheduler.auction import Bidder, call_for_bids
from cocoon.scheduler.award import Draw, Verdict, explored, verdict
from cocoon.scheduler.round import QuoteMissed, QuoteReceived, Round, RoundEnded
from cocoon.scheduler.selection import Demand, Missed, Quote, Ranked, expected_cost_nanoton, rank
from tests.unit.scheduler.builders import quote, tender

PEERS = tuple(PeerKey(bytes([n]) * 32) for n in range(1, 20))
ONE, TWO, THREE, *_ = PEERS
MS = SECOND_NS // 1_000


def called(*peers: PeerKey, round_trip_ns: int | None = MS) -> Round:
    auction = Round()
    auction.handle(0, call_for_bids([Bidder(peer, round_trip_ns) for peer in peers], 1))
    return auction


# --- when it ends ------------------------------------------------------------


def test_who_is_not_called_costs_no_patience() -> None:
    bidders = [Bidder(peer, MS) for peer in PEERS[:PROVIDERS_ASKED]]
    assert call_for_bids([*bidders, Bidder(PEERS[-1], SECOND_NS)], 1) == call_for_bids(bidders, 1)
    assert call_for_bids([*bidders[1:], Bidder(PEERS[-1], SECOND_NS)], 1).patience_ns == AUCTION_MOST_NS


def test_without_bidders_it_ends_at_once() -> None:
    assert Round().handle(0, call_for_bids((), 1)) == [RoundEnded((), ())]


def test_it_closes_early_when_all_have_answered() -> None:
    auction = called(ONE, TWO)
    assert auction.handle(1, QuoteReceived(tender(ONE))) == []
    assert auction.handle(2, QuoteMissed(Missed(TWO, "busy"))) == [RoundEnded((tender(ONE),), (Missed(TWO, "busy"),))]
    assert auction.deadline_ns() is None and auction.handle(3, QuoteReceived(tender(TWO))) == []


@pytest.mark.parametrize(("round_trip_ns", "closes_ns"), [
    (MS, AUCTION_SOONEST_NS), (200 * MS, 400 * MS), (5 * SECOND_NS, AUCTION_MOST_NS), (None, 2 * ROUND_TRIP_UNKNOWN_NS),
])
def test_it_waits_twice_the_slowest_round_trip_within_bounds(round_trip_ns: int | None, closes_ns: int) -> None:
    auction = called(ONE, TWO, round_trip_ns=round_trip_ns)
    auction.handle(1, QuoteReceived(tender(TWO)))
    assert auction.deadline_ns() == closes_ns
    assert auction.handle(closes_ns - 1, DeadlinePassed()) == []
    assert auction.handle(closes_ns, DeadlinePassed()) == [RoundEnded((tender(TWO),), (Missed(ONE, "unreachable"),))]


def test_while_nobody_has_bid_it_waits_for_the_first() -> None:
    auction = called(ONE, TWO)
    assert auction.handle(AUCTION_SOONEST_NS, DeadlinePassed()) == [] and auction.deadline_ns() == AUCTION_MOST_NS
    ended = RoundEnded((tender(TWO),), (Missed(ONE, "unreachable"),))
    assert auction.handle(AUCTION_SOONEST_NS + 1, QuoteReceived(tender(TWO))) == [ended]
    silent = called(ONE)
    assert silent.handle(AUCTION_MOST_NS, DeadlinePassed()) == [RoundEnded((), (Missed(ONE, "unreachable"),))]


@pytest.mark.parametrize(("far", "waits_ns"), [
    (Bidder(TWO, 400 * MS, quote(TWO, setup_nanoton=50).terms), AUCTION_SOONEST_NS),
    (Bidder(TWO, 400 * MS, quote(TWO, setup_nanoton=49).terms), 800 * MS),
    (Bidder(TWO, 400 * MS), 800 * MS),
    (Bidder(TWO, None, quote(TWO, setup_nanoton=90).terms), 2 * ROUND_TRIP_UNKNOWN_NS),
], ids=["no cheaper", "cheaper", "asks nobody knows what", "never measured"])
def test_nobody_is_waited_for_long_who_is_far_and_no_cheaper(far: Bidder, waits_ns: int) -> None:
    auction = Round()
    auction.handle(0, call_for_bids([Bidder(ONE, MS), far], 1))
    auction.handle(1, QuoteReceived(tender(ONE, setup_nanoton=50)))
    assert auction.deadline_ns() == waits_ns
    ended = RoundEnded((tender(ONE, setup_nanoton=50),), (Missed(TWO, "unreachable"),))
    assert auction.handle(waits_ns - 1, DeadlinePassed()) == []
    assert auction.handle(waits_ns, DeadlinePassed()) == [ended]


def test_the_best_bid_may_come_when_it_is_late_already() -> None:
    auction = Round()
    far = [Bidder(peer, 400 * MS, quote(peer, setup_nanoton=50).terms) for peer in (TWO, THREE)]
    auction.handle(0, call_for_bids([Bidder(ONE, MS), *far], 1))
    auction.handle(1, QuoteReceived(tender(ONE, setup_nanoton=60)))
    assert auction.handle(AUCTION_SOONEST_NS, DeadlinePassed()) == []
    (ended,) = auction.handle(AUCTION_SOONEST_NS + 1, QuoteReceived(tender(TWO, setup_nanoton=50)))
    assert isinstance(ended, RoundEnded) and len(ended.quotes) == 2


facts = st.one_of(
    st.sampled_from(PEERS[:4]).map(lambda peer: QuoteReceived(tender(peer))),
    st.sampled_from(PEERS[:4]).map(lambda peer: QuoteMissed(Missed(peer, "busy"))),
    st.just(DeadlinePassed()),
)


@given(st.lists(facts, max_size=12), st.integers(0, 2))
def test_it_ends_once_and_only_those_called_answer_each_once(events: list[object], count: int) -> None:
    auction, ended = called(*PEERS[:count]), 0
    for number, event in enumerate(events):
        for effect in auction.handle(number * 200 * MS, event):  # type: ignore[arg-type]
            assert isinstance(effect, RoundEnded) and count
            ended += 1
            answered = [quote.provider for quote in effect.quotes] + [one.peer for one in effect.missed]
            assert sorted(answered) == sorted(PEERS[:count])
    assert ended <= 1


# --- who is taken ------------------------------------------------------------


def first(*quotes: Quote, runs: int = 10) -> PeerKey:
    ranked = rank(list(quotes), Demand("infer", 10, runs, 1 << 60))
    assert isinstance(ranked, Ranked)
    return ranked.quotes[0].provider


def test_the_bid_counts_and_not_the_offer() -> None:
    low = tender(TWO, setup_nanoton=90)
    assert expected_cost_nanoton(quote(ONE, setup_nanoton=100).terms, 1) == 100
    assert first(tender(ONE, setup_nanoton=100), low) == TWO


def test_a_second_weighs_a_hundredth_of_the_price() -> None:
    def ends_after(seconds: int, peer: PeerKey, price: int) -> Quote:
        return tender(peer, setup_nanoton=price, start_ms=1_000 * seconds, run_us=1)

    assert first(ends_after(10, ONE, 1_000), ends_after(0, TWO, 1_099), runs=1) == TWO
    assert first(ends_after(10, ONE, 1_000), ends_after(0, TWO, 1_101), runs=1) == ONE
    assert first(ends_after(1, ONE, 0), ends_after(0, TWO, 0), runs=1) == TWO, "also where nothing costs anything"


def test_whoever_never_measured_is_taken_for_the_slowest_who_did() -> None:
    unknown, slow, fast = tender(ONE, run_us=0), tender(TWO, run_us=900_000), tender(THREE, run_us=100_000)
    assert first(unknown, slow, fast) == THREE
    assert first(unknown, slow) == ONE, "equal, and the first by its id"


# --- newcomers ---------------------------------------------------------------


def explore(draw: Draw, newcomers: dict[PeerKey, str], *ranked: Quote) -> PeerKey:
    return explored(ranked, 10, lambda peer: peer in newcomers, newcomers, draw)[0].provider


def test_a_newcomer_that_costs_little_more_is_tried_now_and_then() -> None:
    known, fair, dear = tender(ONE, setup_nanoton=100), tender(TWO, setup_nanoton=125), tender(THREE, setup_nanoton=126)
    assert explore(Draw(EXPLORATION_PPM - 1, 0), {TWO: "x"}, known, fair) == TWO
    assert explore(Draw(EXPLORATION_PPM, 0), {TWO: "x"}, known, fair) == ONE
    assert explore(Draw(0, 0), {THREE: "x"}, known, dear) == ONE
    assert explore(Draw(0, 0), {ONE: "x", TWO: "y"}, known, fair) == ONE, "the best is one already"


def test_a_thousand_identities_behind_one_address_get_what_one_newcomer_gets() -> None:
    honest, sybils = PeerKey(bytes(31) + b"\x01"), [PeerKey(n.to_bytes(32, "big")) for n in range(2, 1_002)]
    newcomers = dict.fromkeys(sybils, "192.0.2.0/24") | {honest: "198.51.100.0/24"}
    ranked = [tender(PeerKey(bytes([255]) * 32)), *(tender(peer) for peer in newcomers)]
    draws = stream(1, b"", "test")
    taken = Counter(
        explore(Draw(0, draws.below(PPM)), newcomers, *ranked) == honest for _ in range(400)
    )
    assert 160 < taken[True] < 240, "half of 400, and not a thousandth"


# --- what the others hear ----------------------------------------------------


@pytest.mark.parametrize(("cost", "band"), [
    (100, 0), (99, 0), (101, 5), (105, 5), (106, 10), (110, 10), (125, 25), (150, 50), (151, 100), (10**18, 100),
])
def test_a_loser_hears_a_band_and_no_price(cost: int, band: int) -> None:
    told = verdict(tender(TWO, setup_nanoton=cost), tender(ONE, setup_nanoton=100), 1, lambda _: PPM)
    assert told == Verdict(band, cold=False, slower=False, less_reliable=False)


def test_a_loser_hears_what_else_spoke_against_it() -> None:
    won, lost = tender(ONE, warm=True, run_us=1), tender(TWO, run_us=2)
    told = verdict(lost, won, 10, lambda peer: PPM if peer == ONE else PPM - 1)
    assert told == Verdict(0, cold=True, slower=True, less_reliable=True)
    assert told.reason() == "cold model, slower, less reliable"
    assert Verdict(100, cold=False, slower=False, less_reliable=False).reason() == "more than 50 % dearer"
    assert verdict(won, lost, 10, lambda _: PPM).reason() == "a newcomer was tried"
