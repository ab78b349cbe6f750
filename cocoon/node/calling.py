"""Calling for bids: the warm set of open streams, and one auction over them.

Purity: shell. Protocol ``/cocoon/call/1``. Spec: docs/spec/auction.md, rules AUC-1 to AUC-7.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, StreamClosed, from_peer
from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.limits import AUCTION_MOST_NS, CALL_STREAMS
from cocoon.core.units import SECOND_NS
from cocoon.node.asking import hold_round
from cocoon.node.bids import CALL_PROTOCOL
from cocoon.node.regard import Regard
from cocoon.p2p.service import Mesh
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.auction import Bidder, call_for_bids
from cocoon.scheduler.round import RoundEnded
from cocoon.scheduler.selection import Measure, Quote, per_run
from cocoon.scheduler.verification import Called, verify_bid, verify_offer
from cocoon.telemetry.log import Log
from cocoon.wire.market import BidReply, CallResult, Decline
from cocoon.wire.messages import OfferReply, Refusal
from cocoon.wire.schema import pack, unpack

#: What a provider says to a call; one that nobody waits for is of an auction that is over.
_Answer = BidReply | Decline


class _Line:
    """The stream to one provider, with the calls that wait on it."""

    def __init__(self, peer: PeerKey) -> None:
        self.peer = peer
        self.opening = trio.Lock()
        self.stream: PeerStream | None = None
        self.round_trip_ns: int | None = None
        #: The last offer that was verified here; the next bid most often comes with the same.
        self.offered: tuple[OfferReply, Quote] | None = None
        #: Calls that are being made; a line with one keeps its place in the warm set.
        self.calls = 0
        self.waiting: dict[bytes, tuple[PeerStream, trio.MemorySendChannel[_Answer | CocoonError]]] = {}

    async def read(self, stream: PeerStream) -> None:
        """Hand every answer to the call that it names, until the stream ends; then the end to all that wait on it."""
        try:
            while True:
                answer = unpack(await stream.receive(), BidReply, Decline, Refusal)
                if isinstance(answer, Refusal):
                    raise from_peer(answer.code, answer.text)
                self._tell(answer.call, answer)
        except CocoonError as error:
            if self.stream is stream:                   # else another one took its place already
                self.stream = None
            for call, (on, _) in tuple(self.waiting.items()):
                if on is stream:
                    self._tell(call, error)
        finally:
            with trio.CancelScope(shield=True):
                await stream.close()

    def _tell(self, call: bytes, answer: _Answer | CocoonError) -> None:
        if (waits := self.waiting.pop(call, None)) is not None:
            waits[1].send_nowait(answer)


class Caller:
    """Calls providers for bids over streams that stay open."""

    def __init__(
        self, mesh: Mesh, network: NetworkId, clock: Clock, log: Log, regard: Regard, nursery: trio.Nursery
    ) -> None:
        self._mesh = mesh
        self._network = network
        self._clock = clock
        self._log = log
        self._regard = regard
        self._nursery = nursery
        #: The warm set, who was called last at the end.
        self._lines: OrderedDict[PeerKey, _Line] = OrderedDict()

    async def call(self, peers: Collection[PeerKey], called: Called) -> RoundEnded:
        """One auction among ``peers``."""

        async def ask(peer: PeerKey) -> Quote:
            try:
                return await self._ask(peer, called)
            except CocoonError as error:
                # Not from here: the auction may end with this very answer, and what was seen must be kept.
                self._nursery.start_soon(self._regard.failed, peer, error)
                raise

        bidders = [self._bidder(peer, called.measure) for peer in peers]
        return await hold_round(call_for_bids(bidders, called.call.units), self._clock, ask)

    def tell(self, peer: PeerKey, result: CallResult) -> None:
        """Say to a bidder how its auction ended; it is lost with the stream."""
        line = self._lines.get(peer)
        if line is not None and line.stream is not None:
            self._nursery.start_soon(self._send, line.stream, pack(result))

    async def _send(self, stream: PeerStream, message: bytes) -> None:
        """Never from a task's own nursery: half a message, left by one that hung up, would end the stream for all."""
        try:
            with trio.move_on_after(AUCTION_MOST_NS / SECOND_NS):
                await stream.send(message)
        except StreamClosed as error:                   # the reader hears of it, too, and tells who waits
            self._log.info("bidder_not_told", peer=stream.peer, code=error.code)

    def _bidder(self, peer: PeerKey, measure: Measure) -> Bidder:
        line = self._lines.get(peer)
        if line is None or line.stream is None:
            return Bidder(peer, None)
        offer = None if line.offered is None else per_run(line.offered[1].offer, measure)
        return Bidder(peer, line.round_trip_ns, offer)

    async def _ask(self, peer: PeerKey, called: Called) -> Quote:
        line = self._line(peer)
        line.calls += 1
        try:
            stream = await self._open(line)
            asked_ns = self._clock.now_ns()
            said = await self._answer(line, stream, called)
        finally:
            line.calls -= 1
        line.round_trip_ns = self._clock.now_ns() - asked_ns
        if isinstance(said, Decline):
            raise from_peer(said.code, said.text)
        offer = OfferReply(offer=said.offer, keys=said.keys, profile=said.profile, warm=b"")
        if line.offered is None or line.offered[0] != offer:
            line.offered = offer, verify_offer(offer, self._network, peer)
        return verify_bid(said, called, line.offered[1], asked_ns)

    async def _answer(self, line: _Line, stream: PeerStream, called: Called) -> _Answer:
        """Ends with the auction at the latest, which cancels whoever still waits."""
        answers, answer = trio.open_memory_channel[_Answer | CocoonError](1)
        line.waiting[called.id] = stream, answers
        try:
            self._nursery.start_soon(self._send, stream, called.packed)
            said = await answer.receive()
        finally:
            line.waiting.pop(called.id, None)
        if isinstance(said, CocoonError):
            raise said
        return said

    def _line(self, peer: PeerKey) -> _Line:
        line = self._lines.setdefault(peer, _Line(peer))
        self._lines.move_to_end(peer)
        idle = [other for other in self._lines.values() if not other.calls and other is not line]
        for surplus in idle[: max(0, len(self._lines) - CALL_STREAMS)]:
            del self._lines[surplus.peer]
            if surplus.stream is not None:
                surplus.stream.wake("another provider took its place in the warm set")
        return line

    async def _open(self, line: _Line) -> PeerStream:
        async with line.opening:
            if line.stream is None or line.stream.ended:
                line.stream = await self._mesh.open_stream(line.peer, CALL_PROTOCOL)
                self._nursery.start_soon(line.read, line.stream)
            return line.stream
