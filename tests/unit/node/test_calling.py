"""Calls over open streams, and bids that contradict themselves (AUC-2 to AUC-4, AUC-8)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import CocoonError, Draining
from cocoon.core.limits import AUCTION_MOST_NS, BID_BINDS_NS, CALL_STREAMS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.node.bids import CALL_PROTOCOL, BidDesk
from cocoon.node.calling import Caller, _Line
from cocoon.node.counter import OfferCounter
from cocoon.node.regard import Regard
from cocoon.node.stock import Terms
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.bidding import CallSeen
from cocoon.scheduler.selection import RUNS, Measure, Missed, Quote
from cocoon.scheduler.strategy import Prices, Strategy
from cocoon.scheduler.verification import Called, verify_bid, verify_offer
from cocoon.wire.market import Bid, BidReply, Call, CallResult, Decline
from cocoon.wire.messages import OfferReply, Refusal
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import open_signed, sign
from tests.unit.node.scripted import Clock, Heard, Memory, Raw, Streets, connected, identity
from tests.unit.scheduler.builders import NETWORK, PROFILE, call

BUYER, SELLER, OTHER = identity(1), identity(2), identity(3)
ASKS = ((1, 1_000),)


def desk(
    keys: Any = SELLER, closed: CocoonError | None = None, asks: Prices = ASKS, kinds: tuple[str, ...] = ("infer",)
) -> BidDesk:
    """The bid desk of a provider that asks 100 and 1,000."""
    terms = Terms(setup_nanoton=100, prices=asks, kinds=kinds)
    counter = OfferCounter(lambda: keys, NETWORK, bytes(8), terms, PROFILE, Clock())
    strategy = Strategy(ask_setup_nanoton=100, asks=asks, kinds=kinds, max_model_bytes=terms.max_model_bytes)
    made = BidDesk(keys, counter, None, strategy, Clock(), 8)  # type: ignore[arg-type]
    made._closed = lambda: closed
    return made


def fresh() -> Called:
    return Called.of(call(nonce=os.urandom(16)))


@asynccontextmanager
async def caller(*desks: BidDesk) -> AsyncIterator[tuple[Caller, Streets, Regard]]:
    """A requester among these providers."""
    async with trio.open_nursery() as nursery:
        streets = Streets(BUYER.key, nursery)
        for one in desks:
            streets.handlers[one._identity.key, CALL_PROTOCOL] = one._answer_all
        regard = Regard(Memory(), Clock(), Heard(), lambda: 0)  # type: ignore[arg-type]
        yield Caller(streets, NETWORK, Clock(), Heard(), regard, nursery), streets, regard  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def test_calls_share_one_stream_and_each_gets_its_own_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with caller(desk(), desk(OTHER)) as (calls, streets, _):
        for _ in range(3):
            wanted = fresh()
            ended = await calls.call([SELLER.key, OTHER.key], wanted)
            assert {quote.provider for quote in ended.quotes} == {SELLER.key, OTHER.key}
            assert {quote.bid.call for quote in ended.quotes if quote.bid} == {wanted.id}
            assert all(quote.binds_until_ns <= trio.current_time() * SECOND_NS + BID_BINDS_NS for quote in ended.quotes)
            streets.handlers.clear()                    # no second stream is opened
        assert calls._bidder(SELLER.key, RUNS).round_trip_ns is not None


async def test_many_calls_at_once_are_told_apart(autojump_clock: trio.testing.MockClock) -> None:
    async with caller(desk()) as (calls, _, _):
        wanted, answered = [fresh() for _ in range(20)], []

        async def one(asked: Called) -> None:
            (quote,) = (await calls.call([SELLER.key], asked)).quotes
            assert quote.bid is not None and quote.bid.call == asked.id
            answered.append(asked)

        async with trio.open_nursery() as nursery:
            for asked in wanted:
                nursery.start_soon(one, asked)
        assert len(answered) == 20


async def test_a_bidder_that_is_silent_or_gone_costs_no_more_than_the_auction(
    autojump_clock: trio.testing.MockClock
) -> None:
    async def mute(stream: PeerStream) -> None:
        await trio.sleep_forever()

    async def gone(stream: PeerStream) -> None:
        await stream.reset()

    async with caller(desk()) as (calls, streets, regard):
        streets.handlers[OTHER.key, CALL_PROTOCOL] = mute
        third = identity(4)
        streets.handlers[third.key, CALL_PROTOCOL] = gone
        began_s = trio.current_time()
        ended = await calls.call([SELLER.key, OTHER.key, third.key], fresh())
        assert trio.current_time() - began_s <= AUCTION_MOST_NS / SECOND_NS
        assert [quote.provider for quote in ended.quotes] == [SELLER.key]
        assert {one.peer: one.code for one in ended.missed} == {OTHER.key: "unreachable", third.key: "stream_closed"}
        assert regard.is_newcomer(OTHER.key) and regard.is_newcomer(third.key), "silence is nobody's lie"


async def test_a_stream_that_ended_is_opened_again(autojump_clock: trio.testing.MockClock) -> None:
    once: list[PeerStream] = []
    honest = desk()

    async def hangs_up_once(stream: PeerStream) -> None:
        if not once:
            once.append(stream)
            await stream.receive()
            await stream.reset()
        else:
            await honest._answer_all(stream)

    async with caller() as (calls, streets, _):
        streets.handlers[SELLER.key, CALL_PROTOCOL] = hangs_up_once
        assert (await calls.call([SELLER.key], fresh())).missed == (Missed(SELLER.key, "stream_closed"),)
        assert len((await calls.call([SELLER.key], fresh())).quotes) == 1


class Slow(Raw):
    """Takes nothing more until ``go``: the other side gives no credit."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner._end)
        self.go = trio.Event()

    async def write(self, data: bytes) -> None:
        await self.go.wait()
        await super().write(data)


async def test_a_task_that_hangs_up_while_it_calls_costs_no_other_auction_its_bid(
    autojump_clock: trio.testing.MockClock
) -> None:
    """The stream is everybody's: half a call on it would end it for all of them."""
    async with caller(desk()) as (calls, _, _):
        await calls.call([SELLER.key], fresh())
        stream = calls._lines[SELLER.key].stream
        assert stream is not None
        slow = stream._raw = Slow(stream._raw)
        ended, user = [], trio.CancelScope()

        async def hangs_up() -> None:
            with user:
                await calls.call([SELLER.key], fresh())

        async def other() -> None:
            ended.append(await calls.call([SELLER.key], fresh()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangs_up)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
            user.cancel()
            await trio.testing.wait_all_tasks_blocked()
            slow.go.set()
        assert [len(one.quotes) for one in ended] == [1], ended


async def test_a_reader_that_hears_late_of_its_end_leaves_the_next_stream_alone(
    autojump_clock: trio.testing.MockClock
) -> None:
    line = _Line(SELLER.key)
    (old, _), (new, _) = connected(BUYER.key, SELLER.key), connected(BUYER.key, SELLER.key)
    told = {name: trio.open_memory_channel[Any](1) for name in (b"old", b"new")}
    line.stream = new
    line.waiting = {b"old": (old, told[b"old"][0]), b"new": (new, told[b"new"][0])}
    old.wake("its peer was lost")
    await line.read(old)
    assert line.stream is new and list(line.waiting) == [b"new"]
    assert told[b"old"][1].receive_nowait().code == "stream_closed"


async def test_the_warm_set_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    keys = [identity(number) for number in range(2, CALL_STREAMS + 7)]
    async with caller(*map(desk, keys)) as (calls, _, _):
        for one in keys:
            assert (await calls.call([one.key], fresh())).quotes
        assert len(calls._lines) == CALL_STREAMS
        assert list(calls._lines) == [one.key for one in keys[-CALL_STREAMS:]], "who was called longest ago made room"


async def test_a_loser_hears_why_on_the_same_stream(autojump_clock: trio.testing.MockClock) -> None:
    seller = desk()
    async with caller(seller) as (calls, _, _):
        wanted = fresh()
        await calls.call([SELLER.key], wanted)
        bands = CallResult(call=wanted.id, dearer_percent=10, cold=False, slower=True, less_reliable=False)
        calls.tell(SELLER.key, bands)
        await trio.testing.wait_all_tasks_blocked()
        (seen,) = seller.seen()
        assert isinstance(seen, CallSeen) and (seen.outcome, seen.bands) == ("lost", bands)


async def test_who_takes_no_lease_declines(autojump_clock: trio.testing.MockClock) -> None:
    async with caller(desk(closed=Draining("ends"))) as (calls, _, _):
        assert (await calls.call([SELLER.key], fresh())).missed == (Missed(SELLER.key, "draining"),)


# --- lies --------------------------------------------------------------------


def bid_of(reply: BidReply, **changes: Any) -> BidReply:
    """``reply`` with another bid, signed by the same provider."""
    honest = open_signed(reply.bid, Bid).message
    return replace(reply, bid=sign(replace(honest, **changes), SELLER).pack())


def flipped(reply: BidReply) -> BidReply:
    return replace(reply, bid=reply.bid[:-1] + bytes([reply.bid[-1] ^ 1]))


def of_another(reply: BidReply) -> BidReply:
    return replace(reply, bid=sign(open_signed(reply.bid, Bid).message, OTHER).pack())


LIES: list[tuple[Callable[[BidReply], BidReply], str]] = [
    (flipped, "bad_signature"),
    (of_another, "wrong_provider"),
    (lambda reply: bid_of(reply, network=bytes(32)), "wrong_network_id"),
    (lambda reply: bid_of(reply, call=bytes(32)), "wrong_call"),
    (lambda reply: bid_of(reply, offer=bytes(32)), "wrong_offer"),
    (lambda reply: bid_of(reply, setup_nanoton=101), "wrong_price"),
    (lambda reply: bid_of(reply, prices=((1, 1_001),)), "wrong_price"),
    (lambda reply: bid_of(reply, prices=()), "wrong_price"),
    (lambda reply: bid_of(reply, prices=((1, 1_000), (2, 1))), "wrong_price"),
    (lambda reply: bid_of(reply, prices=((5, 0),)), "wrong_price"),
]


@pytest.mark.parametrize(("lie", "code"), LIES)
async def test_each_lie_in_a_bid_has_its_code_and_is_remembered(
    lie: Callable[[BidReply], BidReply], code: str, autojump_clock: trio.testing.MockClock
) -> None:
    honest = desk()

    async def lying(stream: PeerStream) -> None:
        asked = unpack(await stream.receive(), Call)
        reply = honest._answer(BUYER.key, asked)
        assert isinstance(reply, BidReply)
        await stream.send(pack(lie(reply)))
        await stream.receive()

    async with caller() as (calls, streets, regard):
        streets.handlers[SELLER.key, CALL_PROTOCOL] = lying
        assert (await calls.call([SELLER.key], fresh())).missed == (Missed(SELLER.key, code),)
        await trio.testing.wait_all_tasks_blocked()
        assert regard.standing(SELLER.key).lied == 1


def test_a_bid_for_an_earlier_call_is_refused() -> None:
    seller = desk_now()
    reply = seller._answer(BUYER.key, call())
    assert isinstance(reply, BidReply)
    with pytest.raises(CocoonError) as refused:
        verify_bid(reply, fresh(), offered(reply), 0)
    assert refused.value.code == "wrong_call"


def offered(reply: BidReply) -> Quote:
    """The verified offer of a bid."""
    bodies = OfferReply(offer=reply.offer, keys=reply.keys, profile=reply.profile, warm=b"")
    return verify_offer(bodies, NETWORK, SELLER.key)


def desk_now() -> BidDesk:
    """A desk whose clock stands still, outside of a loop."""

    class Still:
        def now_ns(self) -> int:
            return 0

    made = desk()
    made._clock = made._counter._clock = Still()
    return made


async def test_a_call_for_another_network_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = connected(SELLER.key, BUYER.key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk()._answer_all, ours)
        await theirs.send(pack(call(network=bytes(32))))
        assert unpack(await theirs.receive(), Refusal).code == "wrong_network_id"


async def test_a_call_that_comes_again_is_declined(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = connected(SELLER.key, BUYER.key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk()._answer_all, ours)
        asked = fresh().packed
        await theirs.send(asked)
        assert isinstance(unpack(await theirs.receive(), BidReply, Decline), BidReply)
        await theirs.send(asked)
        again = unpack(await theirs.receive(), BidReply, Decline)
        assert isinstance(again, Decline) and again.code == "replayed"
        nursery.cancel_scope.cancel()


async def test_a_call_for_tokens_gets_a_price_of_tokens_and_believes_no_other(
    autojump_clock: trio.testing.MockClock
) -> None:
    measure = Measure(unit=5, most=50)
    asks, kinds = ((1, 1_000), (5, 40)), ("generate", "infer")
    seller = desk(asks=asks, kinds=kinds)
    called = Called.of(call(nonce=os.urandom(16), kind="generate"), measure)
    async with caller(seller) as (calls, _, _):
        (quote,) = (await calls.call([SELLER.key], called)).quotes
        assert quote.asked.prices == ((5, 40),) and quote.measure == measure
        assert dict(quote.terms.prices) == {1: 40 * 50}
        assert dict(calls._bidder(SELLER.key, measure).offer.prices) == {1: 40 * 50}  # type: ignore[union-attr]
        assert dict(calls._bidder(SELLER.key, RUNS).offer.prices)[1] == 1_000   # type: ignore[union-attr]
    other = Called.of(call(nonce=os.urandom(16), kind="generate"), measure)
    reply = seller._answer(BUYER.key, other.call)
    assert isinstance(reply, BidReply)
    offered = verify_offer(
        OfferReply(offer=reply.offer, keys=reply.keys, profile=reply.profile, warm=b""), NETWORK, SELLER.key
    )
    with pytest.raises(CocoonError) as refused:
        verify_bid(bid_of(reply, prices=((1, 0),)), other, offered, 0)
    assert refused.value.code == "wrong_price"
