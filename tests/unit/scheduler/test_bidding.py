"""A provider's bids: what is bid, what is declined, what a lease may name (AUC-8 to AUC-15)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    BID_HONOURED_NS,
    BIDS_HONOURED,
    CALL_BURST,
    CALL_NS,
    CALLERS,
    CALLS_REMEMBERED,
    MODELS_PACED,
)
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import HOUR_NS, MILLISECOND_NS, PPM
from cocoon.core.values import replace
from cocoon.scheduler.bidding import Bidding, BidSigned, BidTaken, CallHeard, DeclineCall, MakeBid, ResultHeard
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.strategy import Strategy
from cocoon.wire.manifest import implicit
from cocoon.wire.market import NO_MODEL, CallResult
from tests.unit.scheduler.builders import REQUESTER, call

STRATEGY = Strategy(ask_setup_nanoton=100, asks=((1, 1_000),), max_model_bytes=1_000)
STRANGER = PeerKey(b"\x33" * 32)
MODEL = b"\x44" * 32


def heard(number: int, requester: PeerKey = REQUESTER, **changes: Any) -> CallHeard:
    usual: dict[str, Any] = {
        "leases_open": 0, "leases_max": 4, "start_ms": 3, "run_us": 7, "warm": False, "call": call(),
    }
    return CallHeard(number.to_bytes(32, "big"), requester, **{**usual, **changes})


def answer(bidding: Bidding, now_ns: int, event: CallHeard) -> MakeBid | str:
    (effect,) = bidding.handle(now_ns, event)
    assert isinstance(effect, MakeBid | DeclineCall) and effect.id == event.id
    return effect if isinstance(effect, MakeBid) else effect.code


def with_bid(now_ns: int = 0, **changes: Any) -> Bidding:
    """A provider that has just bid, under the digest ``bid``, for call 1."""
    bidding = Bidding(STRATEGY)
    assert isinstance(answer(bidding, now_ns, heard(1, **changes)), MakeBid)
    bidding.handle(now_ns, BidSigned(heard(1).id, b"bid"))
    return bidding


# --- answers -----------------------------------------------------------------


def test_a_call_gets_the_asks_and_what_was_measured() -> None:
    assert answer(Bidding(STRATEGY), 0, heard(1)) == MakeBid(heard(1).id, 100, ((1, 1_000),), 3, 7, False)


@pytest.mark.parametrize(("changes", "code"), [
    ({"leases_open": 4}, "busy"),
    ({"closed": ("draining", "ends")}, "draining"),
    ({"call": call(kind="map")}, "kind_refused"),
    ({"call": call(tier=1)}, "kind_refused"),
    ({"call": call(model_bytes=1_126)}, "limit_exceeded"),
])
def test_what_is_declined_has_a_code(changes: dict[str, Any], code: str) -> None:
    bidding = Bidding(STRATEGY)
    assert answer(bidding, 0, heard(1, **changes)) == code
    assert [seen.answer for seen in bidding.seen()] == [code]


def test_sizes_are_told_rounded_up_by_an_eighth() -> None:
    assert isinstance(answer(Bidding(STRATEGY), 0, heard(1, call=call(model_bytes=1_125))), MakeBid)


def test_models_may_be_denied_or_allowed_by_name() -> None:
    named = heard(1, call=call(model=MODEL))
    assert answer(Bidding(replace(STRATEGY, denied=frozenset({MODEL}))), 0, named) == "model_denied"
    only = replace(STRATEGY, allowed=frozenset({MODEL}))
    assert isinstance(answer(Bidding(only), 0, named), MakeBid)
    assert answer(Bidding(only), 0, heard(1, call=call(model=b"\x45" * 32))) == "model_denied"
    assert answer(Bidding(only), 0, heard(1)) == "model_denied", "a private model is none of them"


def test_a_licence_is_refused_by_name_and_none_is_one() -> None:
    plain = implicit(1, [bytes(32)])
    policy = replace(STRATEGY, denied_licences=("GPL-3.0-only", "none"))
    assert STRATEGY.licence_refusal(plain) is None
    assert policy.licence_refusal(plain) == "models under the licence 'none' are not run here"
    assert "'GPL-3.0-only'" in str(policy.licence_refusal(replace(plain, licence="GPL-3.0-only")))
    assert policy.licence_refusal(replace(plain, licence="GPL-3.0-only OR MIT")) is None
    assert replace(STRATEGY, allowed_licences=("MIT",)).licence_refusal(plain) is not None


def test_a_call_is_answered_once() -> None:
    bidding = with_bid()
    assert answer(bidding, 1, heard(1)) == "replayed"
    assert [seen.answer for seen in bidding.seen()] == ["bid"], "a replay rewrites no history"


def test_a_caller_keeps_to_its_rate_and_slows_nobody_else() -> None:
    bidding = Bidding(STRATEGY)
    said = [answer(bidding, 0, heard(number)) for number in range(CALL_BURST + 1)]
    assert said[-1] == "busy" and all(isinstance(one, MakeBid) for one in said[:-1])
    assert isinstance(answer(bidding, 0, heard(1_000, STRANGER)), MakeBid)
    assert answer(bidding, CALL_NS - 1, heard(1_001)) == "busy"
    assert len(bidding.seen()) == CALL_BURST + 1, "what came too fast is not remembered"
    assert isinstance(answer(bidding, CALL_NS, heard(1_002)), MakeBid)


# --- what a lease may name ---------------------------------------------------


def test_a_bid_is_good_for_its_caller_for_a_while_and_once() -> None:
    bidding = with_bid()
    bid = bidding.bid(BID_HONOURED_NS - 1, b"bid", REQUESTER)
    assert bid is not None and (bid.setup_nanoton, bid.prices, bid.model) == (100, ((1, 1_000),), NO_MODEL)
    assert bidding.bid(0, b"bid", STRANGER) is None and bidding.bid(0, b"other", REQUESTER) is None
    assert bidding.bid(BID_HONOURED_NS, b"bid", REQUESTER) is None
    bidding.handle(1, BidTaken(b"bid"))
    assert bidding.bid(1, b"bid", REQUESTER) is None


def test_bids_that_bind_no_more_are_forgotten() -> None:
    bidding = with_bid()
    assert bidding.deadline_ns() == BID_HONOURED_NS
    bidding.handle(BID_HONOURED_NS, DeadlinePassed())
    assert bidding.deadline_ns() is None and not bidding._bids


def test_what_is_remembered_is_bounded() -> None:
    bidding = Bidding(STRATEGY)
    for number in range(CALLS_REMEMBERED + 10):
        event = heard(number, PeerKey(number.to_bytes(32, "big")))
        bidding.handle(0, event)
        bidding.handle(0, BidSigned(event.id, event.id))
    assert len(bidding.seen()) == CALLS_REMEMBERED
    assert len(bidding._bids) == BIDS_HONOURED and len(bidding._due_ns) == CALLERS


def test_a_flood_of_calls_pushes_out_its_own_bids_only() -> None:
    bidding = with_bid()
    for number in range(2, BIDS_HONOURED + 50):
        flood = heard(number, STRANGER)
        bidding.handle(number * CALL_NS, flood)
        bidding.handle(1, BidSigned(flood.id, flood.id))
    assert len(bidding._bids) == BIDS_HONOURED
    assert bidding.bid(1, b"bid", REQUESTER) is not None
    assert bidding.bid(1, heard(2).id, STRANGER) is None, "its oldest made room"


# --- what became of it -------------------------------------------------------

BANDS = CallResult(call=heard(1).id, dearer_percent=25, cold=True, slower=False, less_reliable=False)


def test_a_provider_can_read_why_it_lost_from_the_caller_alone() -> None:
    bidding = with_bid()
    bidding.handle(1, ResultHeard(STRANGER, BANDS))
    bidding.handle(1, ResultHeard(REQUESTER, replace(BANDS, call=bytes(32))))
    assert bidding.seen()[0].outcome == ""
    bidding.handle(1, ResultHeard(REQUESTER, BANDS))
    assert (bidding.seen()[0].outcome, bidding.seen()[0].bands) == ("lost", BANDS)


def test_a_runner_up_that_is_taken_after_all_has_won() -> None:
    bidding = with_bid()
    bidding.handle(1, ResultHeard(REQUESTER, BANDS))
    bidding.handle(2, BidTaken(b"bid"))
    assert (bidding.seen()[0].outcome, bidding.seen()[0].bands) == ("won", None)
    bidding.handle(3, ResultHeard(REQUESTER, BANDS))
    assert bidding.seen()[0].outcome == "won", "whoever signed a lease cannot take it back"


# --- prices ------------------------------------------------------------------

amounts = st.integers(0, 10**16)


@given(amounts, amounts, st.integers(0, PPM), st.integers(0, 2 * PPM))
def test_a_bid_lies_between_floor_and_ask_and_rises_as_the_house_fills(
    ask: int, floor: int, discount_ppm: int, open_ppm: int
) -> None:
    strategy = Strategy(
        ask_setup_nanoton=ask, asks=((1, ask),), floor_setup_nanoton=floor, floors=((1, floor),),
        idle_discount_ppm=discount_ppm,
    )
    setup, ((_, run),) = strategy.price("infer", open_ppm)
    assert setup == run and min(floor, ask) <= run <= ask
    assert run <= strategy.price("infer", open_ppm + 1)[0]
    assert strategy.price("infer", PPM)[0] == ask


def test_an_idle_house_takes_its_discount_off_the_room_above_the_floor() -> None:
    strategy = Strategy(asks=((1, 1_000),), floors=((1, 600),), idle_discount_ppm=PPM // 2)
    assert [strategy.price("infer", open_ppm)[1][0][1] for open_ppm in (0, PPM // 2, PPM)] == [800, 900, 1_000]


def test_a_bid_has_the_price_of_what_was_called_for_and_no_other() -> None:
    strategy = Strategy(asks=((1, 1_000), (5, 40)), floors=((1, 600), (5, 20)), idle_discount_ppm=PPM // 2)
    assert strategy.price("generate", 0) == (0, ((5, 30),))
    assert strategy.price("infer", 0) == (0, ((1, 800),))
    assert replace(strategy, asks=((1, 1_000),)).price("generate", 0) == (0, ())


@pytest.mark.parametrize(("unit_ms", "bid"), [(0, 600), (1, 600), (2, 720), (3, 1_000)])
def test_a_model_that_takes_long_is_bid_for_by_its_time(unit_ms: int, bid: int) -> None:
    strategy = Strategy(asks=((1, 1_000),), floors=((1, 600),), floor_hour_nanoton=1_296_000, idle_discount_ppm=PPM)
    # 1,000 units of 2 ms are an 1,800th of an hour.
    assert strategy.price("infer", 0, unit_ms * MILLISECOND_NS) == (0, ((1, bid),))


def test_what_would_not_pay_for_its_time_at_the_ask_gets_no_bid() -> None:
    bidding = Bidding(replace(STRATEGY, floor_hour_nanoton=3_600_000))
    bid = answer(bidding, 0, heard(1, unit_ns=MILLISECOND_NS))
    assert isinstance(bid, MakeBid) and bid.prices == ((1, 1_000),), "a second for 1,000 units, and that is the ask"
    assert answer(bidding, 0, heard(2, unit_ns=MILLISECOND_NS + 1)) == "below_cost"
    assert answer(Bidding(STRATEGY), 0, heard(3, unit_ns=HOUR_NS)) != "below_cost", "time costs nothing here"


@given(
    unit_ns=st.integers(0, 10**12), hour=st.integers(0, 10**12), ask=st.integers(0, 10**9), open_ppm=st.integers(0, PPM)
)
def test_a_bid_earns_what_its_time_costs_or_there_is_none(unit_ns: int, hour: int, ask: int, open_ppm: int) -> None:
    strategy = replace(STRATEGY, asks=((1, ask),), floor_hour_nanoton=hour, idle_discount_ppm=PPM)
    ((_, price),) = strategy.price("infer", open_ppm, unit_ns)[1]
    assert price <= ask
    if strategy.refusal(call(), unit_ns) is None:
        assert price * HOUR_NS >= hour * unit_ns * 1_000


# --- pace --------------------------------------------------------------------


def test_the_time_of_a_unit_is_that_of_its_run_over_what_it_was_billed_for() -> None:
    pace = Pace()
    assert pace.unit_ns(MODEL) == 0
    pace.ran(MODEL, 100, 20)
    assert (pace.run_us(MODEL), pace.unit_ns(MODEL)) == (100, 5_000)
    pace.ran(MODEL, 180, 20)
    assert (pace.run_us(MODEL), pace.unit_ns(MODEL)) == (120, 6_000)


def test_pace_is_measured_per_model_and_moves_by_a_quarter() -> None:
    pace = Pace()
    assert (pace.run_us(MODEL), pace.load_us(MODEL)) == (0, 0)
    pace.ran(MODEL, 100)
    pace.ran(MODEL, 200)
    pace.loaded(MODEL, 5_000)
    assert (pace.run_us(MODEL), pace.load_us(MODEL)) == (125, 5_000)
    assert (pace.run_us(NO_MODEL), pace.load_us(NO_MODEL)) == (0, 5_000), "the longest load stands for an unknown one"


def test_the_models_that_pace_remembers_are_bounded() -> None:
    pace = Pace()
    for number in range(MODELS_PACED + 5):
        pace.ran(number.to_bytes(32, "big"), 10)
    assert len(pace._models) == MODELS_PACED and pace.run_us((4).to_bytes(32, "big")) == 0
