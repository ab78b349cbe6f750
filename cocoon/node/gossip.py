"""The shell of the gossip: a stream with each neighbour, signatures, and the table that requesters choose from.

Of two connected peers the one with the lower key opens the stream; both speak
on it. Frames to a slow neighbour are dropped, because a digest makes up for
them, and one that sends too much is read no faster than ``GOSSIP_LINES``.

Purity: shell. Protocol ``/cocoon/gossip/1``. Spec: docs/spec/gossip.md, rules GOS-1 to GOS-16.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, PeerFault, StreamClosed
from cocoon.core.groups import single_error
from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.limits import (
    GOSSIP_FRAME_LINES,
    GOSSIP_INTERVAL_NS,
    GOSSIP_LINES,
    GOSSIP_OFFER_LINES,
    GOSSIP_OUTBOX,
    GOSSIP_RETRY_NS,
    OFFERS_EXPLORED,
    PROVIDERS_ASKED,
)
from cocoon.core.machine import DeadlinePassed, Event
from cocoon.core.rng import stream
from cocoon.core.units import PPM, SECOND_NS
from cocoon.core.values import Value
from cocoon.node.counter import OfferCounter
from cocoon.p2p.addresses import address_block
from cocoon.p2p.service import Mesh
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.gossip import (
    CheckOffers,
    DigestHeard,
    DropNeighbour,
    Gossip,
    InterestHeard,
    NeighbourFaulted,
    NeighbourJoined,
    NeighbourLeft,
    OfferPublished,
    OffersHeard,
    OffersVerified,
    ReportProvider,
    SendGossip,
    SummaryHeard,
    WantHeard,
)
from cocoon.scheduler.selection import Demand, shortlist
from cocoon.scheduler.table import Claim
from cocoon.telemetry.log import Log, counters
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from cocoon.wire.messages import Offer
from cocoon.wire.schema import Message, pack, unpack
from cocoon.wire.signing import claimed, open_signed

GOSSIP_PROTOCOL = "/cocoon/gossip/1"
#: Signatures checked before others get a turn: less than a millisecond.
_CHECKS_AT_A_TIME = 2


class _Talk(Value):
    """An open stream and what waits to be sent on it."""

    stream: PeerStream
    outbox: trio.MemorySendChannel[bytes]


class OfferGossip:
    """Exchanges offers with every neighbour for as long as ``run`` runs."""

    def __init__(
        self, mesh: Mesh, network: NetworkId, kinds: Collection[str], clock: Clock, log: Log,
        counter: OfferCounter | None = None,
    ) -> None:
        """``counter`` is that of a provider, whose standing offer is published."""
        self._mesh, self._clock, self._log, self._counter = mesh, clock, log, counter
        seed = int.from_bytes(os.urandom(8), "big")
        self._machine = Gossip(mesh.peer, network, frozenset(kinds), seed)
        self._explore = stream(seed, mesh.peer, "explore")
        self._talks: dict[PeerKey, _Talk] = {}
        self._opening: set[PeerKey] = set()
        self._closed_ns: dict[PeerKey, int] = {}
        self._published = b""
        self._armed_ns: int | None = None
        self._sooner = trio.Event()
        mesh.serve(GOSSIP_PROTOCOL, self._serve)

    async def run(self) -> None:
        """Meet neighbours, publish the own offer, and keep the machine's time."""
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._meet, nursery)
                nursery.start_soon(self._publish)
                await self._keep_time()

    # --- what a requester asks ---------------------------------------------

    def shortlist(
        self, demand: Demand, without: Collection[PeerKey] = (),
        reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM,
    ) -> list[PeerKey]:
        """At most ``PROVIDERS_ASKED`` known providers that fit, best first but for those drawn by lot (SCH-29)."""
        offers = {
            claim.provider: claim.offer for claim in self._machine.table.live(self._clock.now_ns())
            if claim.provider != self._mesh.peer and claim.provider not in without
        }
        return shortlist(offers, demand, PROVIDERS_ASKED, OFFERS_EXPLORED, self._explore.below, reliability_ppm)

    def summary(self) -> dict[str, int]:
        """What ``cocoon status`` tells."""
        live = sum(1 for _ in self._machine.table.live(self._clock.now_ns()))
        return {"neighbours": len(self._talks), "offers": live}

    # --- loops -------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._sooner = trio.Event()
            self._armed_ns = due_ns = self._machine.deadline_ns()
            wait_ns = GOSSIP_INTERVAL_NS if due_ns is None else max(0, due_ns - self._clock.now_ns())
            with trio.move_on_after(wait_ns / SECOND_NS):
                await self._sooner.wait()
            await self._tell(DeadlinePassed())

    async def _publish(self) -> None:
        """The counter signs anew when the offer changed or is old; whatever it signs is published."""
        while self._counter is not None:
            signed = self._counter.standing()
            if signed is not None and signed.digest != self._published:
                self._published = signed.digest
                claim = Claim(signed.signer, signed.message, 0, signed.pack())
                await self._tell(OfferPublished(claim))
            await trio.sleep(GOSSIP_INTERVAL_NS / SECOND_NS)

    async def _meet(self, nursery: trio.Nursery) -> None:
        """Open a stream to each connected peer with a higher key, and again to one that ended it."""
        while True:
            now_ns = self._clock.now_ns()
            self._closed_ns = {p: t for p, t in self._closed_ns.items() if now_ns - t < GOSSIP_RETRY_NS}
            for peer in self._mesh.connections():
                idle = peer not in self._talks and peer not in self._opening and peer not in self._closed_ns
                if self._mesh.peer < peer and idle and not self._machine.shuns(now_ns, peer):
                    self._opening.add(peer)
                    nursery.start_soon(self._open, peer)
            with trio.move_on_after(GOSSIP_INTERVAL_NS / SECOND_NS):
                await self._mesh.changed()

    async def _open(self, peer: PeerKey) -> None:
        try:
            stream = await self._mesh.open_stream(peer, GOSSIP_PROTOCOL)
            try:
                await self._converse(stream)
            finally:
                await stream.close()
        except StreamClosed:
            pass                        # it left; if it is still connected it is asked again later
        except CocoonError as error:
            self._log.info("gossip_ended", peer=peer, code=error.code, text=error.text)
        finally:
            self._opening.discard(peer)
            self._closed_ns[peer] = self._clock.now_ns()

    async def _serve(self, stream: PeerStream) -> None:
        if stream.peer < self._mesh.peer and stream.peer not in self._talks:
            await self._converse(stream)

    # --- one neighbour -----------------------------------------------------

    async def _converse(self, stream: PeerStream) -> None:
        """Speak with one neighbour until its stream ends.

        Raises:
            StreamClosed: it ended. PeerFault, Unavailable: the neighbour is at fault, or said nothing.
        """
        peer = stream.peer
        link, hello = self._mesh.link(peer), self._mesh.hello_of(peer)
        if link is None or hello is None or peer in self._talks:
            return
        outbox, waiting = trio.open_memory_channel[bytes](GOSSIP_OUTBOX)
        self._talks[peer] = _Talk(stream, outbox)
        try:
            with outbox, waiting, single_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send_all, stream, waiting)
                    block = address_block(link.connection.remote_ip)
                    await self._tell(NeighbourJoined(peer, block, hello.boot_id))
                    await self._listen(stream)
        finally:
            del self._talks[peer]
            self._machine.handle(self._clock.now_ns(), NeighbourLeft(peer))

    async def _listen(self, stream: PeerStream) -> None:
        """Take frames, at most ``GOSSIP_LINES`` of lines per interval: who sends more fills his own window."""
        since_ns, lines = self._clock.now_ns(), 0
        while True:
            frame = await stream.receive()
            event, count = self._understood(stream.peer, frame)
            await self._tell(event)
            lines += count + GOSSIP_FRAME_LINES
            left_ns = since_ns + GOSSIP_INTERVAL_NS - self._clock.now_ns()
            if left_ns <= 0 or lines >= GOSSIP_LINES:
                await trio.sleep(max(0, left_ns) / SECOND_NS)
                since_ns, lines = self._clock.now_ns(), 0

    def _understood(self, peer: PeerKey, frame: bytes) -> tuple[Event, int]:
        """The fact that a frame is, and its number of lines; nonsense is a fact too."""
        try:
            message = unpack(frame, Interest, OfferSummary, OfferDigest, OfferWant, OfferDelta)
            match message:
                case Interest():
                    return InterestHeard(peer, message), 0
                case OfferSummary():
                    return SummaryHeard(peer, message), 0
                case OfferDigest(held=held):
                    return DigestHeard(peer, message), len(held)
                case OfferWant(providers=providers):
                    return WantHeard(peer, message), len(providers)
                case OfferDelta(offers=offers):
                    counters.add("gossip_offers_heard", len(offers))
                    claims = tuple(_claim(age_ms, packed) for age_ms, packed in offers)
                    return OffersHeard(peer, claims), len(offers) * GOSSIP_OFFER_LINES
        except PeerFault as error:
            return NeighbourFaulted(peer, error.code), 0
        raise AssertionError("unpack returns what it was asked for")

    # --- the machine -------------------------------------------------------

    async def _tell(self, event: Event) -> None:
        for effect in self._machine.handle(self._clock.now_ns(), event):
            match effect:
                case SendGossip(peer, message):
                    self._send(peer, message)
                case CheckOffers(peer, claims):
                    await self._check(peer, claims)
                case DropNeighbour(peer, code):
                    self._log.warning("gossip_refused", peer=peer, code=code)
                    counters.add("gossip_neighbours_dropped")
                    if (talk := self._talks.get(peer)) is not None:
                        await talk.stream.reset()
                case ReportProvider(provider, peer):
                    self._log.info("offer_learned", provider=provider, peer=peer)
        due_ns = self._machine.deadline_ns()
        if due_ns is not None and (self._armed_ns is None or due_ns < self._armed_ns):
            self._sooner.set()

    def _send(self, peer: PeerKey, message: Message) -> None:
        if (talk := self._talks.get(peer)) is None:
            return
        try:
            talk.outbox.send_nowait(pack(message))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            counters.add("gossip_frames_dropped")

    async def _check(self, peer: PeerKey, claims: tuple[Claim, ...]) -> None:
        good: list[Claim] = []
        code: str | None = None
        try:
            for index, claim in enumerate(claims):
                open_signed(claim.packed, Offer, signer=claim.provider)
                good.append(claim)
                if index % _CHECKS_AT_A_TIME == 0:
                    await trio.lowlevel.checkpoint()
        except PeerFault as error:
            code = error.code
        except trio.Cancelled:
            self._machine.handle(self._clock.now_ns(), OffersVerified(peer, claims, (), None))
            raise
        counters.add("gossip_offers_checked", len(claims))
        await self._tell(OffersVerified(peer, claims, tuple(good), code))


async def _send_all(stream: PeerStream, waiting: trio.MemoryReceiveChannel[bytes]) -> None:
    async for frame in waiting:
        await stream.send(frame)


def _claim(age_ms: int, packed: bytes) -> Claim:
    provider, offer = claimed(packed, Offer)
    return Claim(provider, offer, age_ms, packed)
