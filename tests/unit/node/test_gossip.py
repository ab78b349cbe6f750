"""The shell of the gossip between peers in memory, with real signatures (GOS-1, GOS-14 to GOS-16, SCH-6, SCH-29)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from cocoon.core.errors import StreamClosed
from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    GOSSIP_DELTA_OFFERS,
    GOSSIP_FRAME_LINES,
    GOSSIP_INTERVAL_NS,
    GOSSIP_LINES,
    GOSSIP_OFFER_LINES,
    GOSSIP_SHUN_NS,
    OFFER_SPACING_NS,
    OFFERS_ENOUGH,
)
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.node.asking import Directory, gather_offers
from cocoon.node.gossip import GOSSIP_PROTOCOL, OfferGossip
from cocoon.node.stock import Terms
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.selection import Demand
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest
from cocoon.wire.messages import Beat
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import sign
from tests.unit.node.scripted import Clock
from tests.unit.node.square import BOOT, Corner, Square
from tests.unit.scheduler.builders import NETWORK, offer

INTEREST = pack(Interest(kinds=("infer",)))


@asynccontextmanager
async def square() -> AsyncIterator[Square]:
    async with trio.open_nursery() as nursery:
        yield Square(nursery)
        nursery.cancel_scope.cancel()


async def seconds(count: float) -> None:
    await trio.sleep(count)         # on the test's own clock


def known(gossip: OfferGossip) -> set[PeerKey]:
    return {claim.provider for claim in gossip._machine.table.live(Clock().now_ns())}


def signed(by: Corner, **changes: Any) -> bytes:
    return sign(offer(boot_id=BOOT, **changes), by.keys).pack()


class Liar:
    """A peer whose frames a test writes; it has the lower key's part, or the higher one's, as it falls."""

    def __init__(self, place: Square) -> None:
        self.corner = place.corner()
        self.corner.serve(GOSSIP_PROTOCOL, self._hold)
        self._held = trio.Event()
        self.stream: PeerStream

    async def _hold(self, stream: PeerStream) -> None:
        self.stream = stream
        self._held.set()
        await trio.sleep_forever()

    async def meet(self, place: Square, victim: Corner) -> None:
        """Be connected, with an open stream."""
        place.connect(self.corner, victim)
        if self.corner.peer < victim.peer:
            self.stream = await self.corner.open_stream(victim.peer, GOSSIP_PROTOCOL)
        else:
            await self._held.wait()
        await self.stream.send(INTEREST)

    async def ended(self) -> bool:
        """Whether the victim ends the stream; what it still says is passed over."""
        with trio.move_on_after(5):
            try:
                while True:
                    await self.stream.receive()
            except StreamClosed:
                return True
        return False


async def test_an_offer_reaches_who_is_no_neighbour_of_its_provider_and_keeps_up(autojump_clock: Any) -> None:
    async with square() as place:
        seller, selling = place.peer(Terms())
        middle, _ = place.peer()
        buyer, buying = place.peer()
        place.connect(seller, middle)
        place.connect(middle, buyer)
        await seconds(3)
        assert known(buying) == {seller.peer}
        assert buyer.log.named("offer_learned") == [{"provider": seller.peer, "peer": middle.peer}]
        assert buying.summary() == {"neighbours": 1, "offers": 1}
        cast(Any, selling)._counter.capacity.leases_open = 3
        await seconds(OFFER_SPACING_NS / SECOND_NS + 2)
        assert [one.offer.queue for one in buying._machine.table.live(Clock().now_ns())] == [3]
        await seconds(600)
        assert known(buying) == {seller.peer}, "it is signed anew for as long as it sells"
        cast(Any, selling)._counter.capacity.draining = True
        await seconds(200)
        assert known(buying) == set()


@pytest.mark.parametrize("what", ["forged", "torn", "foreign", "eternal", "nonsense", "another message"])
async def test_a_neighbour_that_sends_what_no_honest_peer_does_is_dropped_and_shunned(
    what: str, autojump_clock: Any
) -> None:
    async with square() as place:
        victim, gossip = place.peer()
        liar, honest = Liar(place), place.corner()
        await liar.meet(place, victim)
        good = signed(honest)
        packed = {
            "forged": good[:-1] + bytes([good[-1] ^ 1]), "torn": good[:-9], "eternal": signed(honest, ttl_s=1_000),
            "foreign": sign(replace(offer(), network=bytes(32)), honest.keys).pack(),
        }.get(what)
        frame = {"nonsense": b"\xc1", "another message": pack(Beat(seq=1))}.get(what)
        await liar.stream.send(frame or pack(OfferDelta(offers=((0, packed or b""),))))
        assert await liar.ended()
        await seconds(1)
        assert known(gossip) == set() and gossip.summary()["neighbours"] == 0
        assert [line["peer"] for line in victim.log.named("gossip_refused")] == [liar.corner.peer]
        assert gossip._machine.shuns(Clock().now_ns(), liar.corner.peer)
        await seconds(GOSSIP_SHUN_NS / SECOND_NS)
        assert not gossip._machine.shuns(Clock().now_ns(), liar.corner.peer)


async def test_a_neighbour_that_reads_nothing_keeps_nobody_else_waiting(autojump_clock: Any) -> None:
    async with square() as place:
        victim, gossip = place.peer()
        deaf = Liar(place)
        await deaf.meet(place, victim)
        seller, _ = place.peer(Terms())
        place.connect(seller, victim)
        await seconds(300)
        assert known(gossip) == {seller.peer} and gossip.summary()["neighbours"] == 2


async def test_who_sends_more_than_its_lines_is_read_no_faster(autojump_clock: Any) -> None:
    async with square() as place:
        victim, gossip = place.peer()
        loud, sellers = Liar(place), [place.corner() for _ in range(GOSSIP_DELTA_OFFERS)]
        await loud.meet(place, victim)
        began = trio.current_time()
        frames = 20
        for seq in range(1, frames + 1):
            rows = tuple((0, signed(seller, seq=seq)) for seller in sellers)
            await loud.stream.send(pack(OfferDelta(offers=rows)))
        last = {one.provider: one.offer.seq for one in gossip._machine.table.live(Clock().now_ns())}
        while last != {seller.peer: frames for seller in sellers}:
            await seconds(1)
            last = {one.provider: one.offer.seq for one in gossip._machine.table.live(Clock().now_ns())}
        at_a_time = math.ceil(GOSSIP_LINES / (GOSSIP_DELTA_OFFERS * GOSSIP_OFFER_LINES + GOSSIP_FRAME_LINES))
        assert trio.current_time() - began >= (frames // at_a_time - 1) * GOSSIP_INTERVAL_NS / SECOND_NS


async def test_a_provider_says_first_what_it_sells_to_whoever_joins(autojump_clock: Any) -> None:
    async with square() as place:
        seller, _ = place.peer(Terms())
        await seconds(5)
        guest = Liar(place)
        await guest.meet(place, seller)
        assert isinstance(unpack(await guest.stream.receive(), Interest), Interest)
        digest = unpack(await guest.stream.receive(), OfferDigest)
        assert [line[0] for line in digest.held] == [seller.peer]


async def gathered(buyer: Corner, gossip: OfferGossip | None) -> set[PeerKey]:
    directory = Directory(cast(Any, buyer), NETWORK, gossip)
    quotes = (await gather_offers(directory, cast(Any, Clock()), Demand("infer", 0, 1, 0))).quotes
    return {quote.provider for quote in quotes}


@pytest.mark.parametrize("sellers", [1, OFFERS_ENOUGH - 1, OFFERS_ENOUGH])
async def test_the_dht_is_asked_only_while_few_offers_are_known(sellers: int, autojump_clock: Any) -> None:
    async with square() as place:
        buyer, gossip = place.peer()
        others = [place.peer(Terms())[0] for _ in range(sellers)]
        hidden, _ = place.peer(Terms())
        buyer.in_dht = [hidden.peer]
        for other in others:
            place.connect(buyer, other)
        await seconds(3)
        named = {other.peer for other in others}
        few = sellers < OFFERS_ENOUGH
        assert await gathered(buyer, gossip) == (named | {hidden.peer} if few else named)
        assert buyer.looked_up == few
        assert await gathered(buyer, None) == {hidden.peer}


async def test_a_table_full_of_providers_that_do_not_answer_hides_nobody(autojump_clock: Any) -> None:
    async with square() as place:
        buyer, gossip = place.peer()
        liar, honest = Liar(place), place.peer(Terms())[0]
        ghosts = [place.corner() for _ in range(20)]
        await liar.meet(place, buyer)
        await liar.stream.send(pack(OfferDelta(offers=tuple((0, signed(ghost)) for ghost in ghosts))))
        await seconds(1)
        assert known(gossip) == {ghost.peer for ghost in ghosts}
        buyer.in_dht = [honest.peer]
        assert await gathered(buyer, gossip) == {honest.peer}
