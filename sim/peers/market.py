"""The market as a requester meets it: ``calling``, ``market`` and ``asking`` of the node around the auction machine.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-1 to AUC-7; simulation.md, SIM-1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import CocoonError, StreamClosed, Unreachable, from_peer
from cocoon.core.ids import PeerKey
from cocoon.core.limits import CALL_STREAMS, OFFER_NS, OFFERS_ENOUGH, PROVIDERS_ASKED
from cocoon.core.machine import Effect
from cocoon.core.units import PPM
from cocoon.core.values import Value
from cocoon.privacy.padding import padded_bytes
from cocoon.scheduler.auction import Bidder, call_for_bids
from cocoon.scheduler.award import Draw, Known, Sold, judge
from cocoon.scheduler.round import AskPeer, QuoteMissed, QuoteReceived, Round, RoundEnded
from cocoon.scheduler.selection import RUNS, Demand, Measure, Missed, Quote, per_run
from cocoon.scheduler.verification import Called, verify_bid, verify_offer
from cocoon.wire.market import BidReply, Call, CallResult, Decline
from cocoon.wire.messages import OfferReply, OfferRequest
from sim.engine.driver import Driver
from sim.engine.flow import Moment
from sim.engine.network import End
from sim.peers.gossiping import Gossiping, block_of
from sim.peers.ground import Peer
from sim.peers.models import Model
from sim.peers.regard import Regard
from sim.peers.selling import CALL_PROTOCOL, OFFER_PROTOCOL

_Answer = Callable[[BidReply | Decline | CocoonError], None]


class Wanted(Value):
    """What a task wants to buy now."""

    model: Model
    units: int
    deadline_ms: int
    ceiling_nanoton: int | None
    without: Collection[PeerKey] = ()


@dataclass(slots=True)
class _Line:
    """The stream to one provider, with the calls that wait on it."""

    end: End | None = None
    round_trip_ns: int | None = None
    #: The last offer that was verified here; the next bid most often comes with the same.
    offered: tuple[OfferReply, Quote] | None = None
    waiting: dict[bytes, _Answer] = field(default_factory=dict)


class Market:
    """Buys by auction."""

    def __init__(self, peer: Peer, gossip: Gossiping, regard: Regard) -> None:
        self._peer = peer
        self._gossip = gossip
        self._regard = regard
        self._known = Known(
            regard.reliability_ppm, regard.is_newcomer, lambda who: block_of(peer.ground.by_key[who].number)
        )
        self._draws = peer.stream("exploration")
        self._lines: OrderedDict[PeerKey, _Line] = OrderedDict()

    async def buy(self, wanted: Wanted) -> tuple[Sold, bool]:
        """Call for bids and rank them; the losers hear why at once. Also whether a stream had to be opened first."""
        call = Call(
            network=self._peer.ground.network_id, nonce=self._peer.random(16), kind=wanted.model.manifest.sold_as,
            model=wanted.model.id, model_bytes=padded_bytes(wanted.model.size_bytes), units=wanted.units,
            deadline_ms=wanted.deadline_ms, tier=0,
        )
        demand = Demand(
            call.kind, wanted.model.size_bytes, wanted.units, wanted.ceiling_nanoton or 0, wanted.model.measure
        )
        named = self._gossip.shortlist(demand, wanted.without, self._regard.reliability_ppm)
        if len(named) < OFFERS_ENOUGH:                  # the DHT, which is not simulated, names sellers at large
            named += self._at_large({*wanted.without, *named})
        called = Called.of(call, demand.measure)
        is_cold = any(self._bidder(peer, RUNS).round_trip_ns is None for peer in named)
        ended = await self._auction(named, called)
        if not ended.quotes and len(named) >= OFFERS_ENOUGH:
            more = await self._auction(self._at_large({*wanted.without, *named}), called)
            ended = RoundEnded(more.quotes, (*ended.missed, *more.missed))
        draw = Draw(self._draws.below(PPM), self._draws.below(PPM))
        sold = judge(demand, ended, self._known, draw, has_ceiling=wanted.ceiling_nanoton is not None)
        for peer, why in sold.lost.items():
            self._tell(peer, CallResult(
                call=called.id, dearer_percent=why.dearer_percent, cold=why.cold, slower=why.slower,
                less_reliable=why.less_reliable,
            ))
        self._peer.ground.checks.auction(self._peer, sold)
        return sold, is_cold

    async def ask_offer(self, provider: PeerKey) -> Quote:
        """The standing offer of one provider.

        Raises:
            CocoonError: no usable offer.
        """
        end, answer = self._peer.open(provider, OFFER_PROTOCOL), Moment[Any](self._peer.ground.heap)
        if end is None:
            raise Unreachable("nobody has this key")
        end.on_frame = answer.set
        end.on_close = lambda: answer.set(None)
        end.send(OfferRequest(network=self._peer.ground.network_id, kind="infer"))
        await answer.wait(OFFER_NS)
        end.close()
        if not isinstance(answer.value, OfferReply):
            raise Unreachable("the peer gave no offer")
        return self._verified(answer.value, provider)

    def _at_large(self, without: Collection[PeerKey]) -> list[PeerKey]:
        sellers = [peer for peer in self._peer.ground.sellers if peer not in without]
        return [
            sellers.pop(self._draws.below(len(sellers))) for _ in range(min(PROVIDERS_ASKED, len(sellers)))
        ]

    async def _auction(self, peers: Sequence[PeerKey], called: Called) -> RoundEnded:
        over: Moment[RoundEnded] = Moment(self._peer.ground.heap)
        scope = self._peer.scope.child()

        async def perform(effect: Effect) -> None:
            match effect:
                case AskPeer(peer):
                    self._call(peer, called, driver)
                case RoundEnded():
                    driver.stop()
                    over.set(effect)

        driver = Driver(Round(), scope, self._peer, perform)
        driver.post(call_for_bids([self._bidder(peer, called.measure) for peer in peers], called.call.units))
        await over.wait()
        scope.close()
        for line in self._lines.values():
            line.waiting.pop(called.id, None)
        assert over.value is not None
        return over.value

    def _bidder(self, peer: PeerKey, measure: Measure) -> Bidder:
        line = self._lines.get(peer)
        if line is None or line.end is None:
            return Bidder(peer, None)
        offer = None if line.offered is None else per_run(line.offered[1].offer, measure)
        return Bidder(peer, line.round_trip_ns, offer)

    def _call(self, peer: PeerKey, called: Called, driver: Driver) -> None:
        line, asked_ns = self._line(peer), self._peer.now_ns()

        def answered(said: BidReply | Decline | CocoonError) -> None:
            try:
                quote = self._understood(line, said, called, peer, asked_ns)
            except CocoonError as error:
                driver.post(QuoteMissed(Missed(peer, error.code, error.text)))
                self._peer.spawn(self._regard.failed(peer, error))
            else:
                driver.post(QuoteReceived(quote))

        line.waiting[called.id] = answered
        if line.end is None:
            self._open(peer, line)
        assert line.end is not None
        line.end.send(called.call)

    def _understood(
        self, line: _Line, said: BidReply | Decline | CocoonError, called: Called, peer: PeerKey, asked_ns: int
    ) -> Quote:
        if isinstance(said, CocoonError):
            raise said
        line.round_trip_ns = self._peer.now_ns() - asked_ns
        if isinstance(said, Decline):
            raise from_peer(said.code, said.text)
        offer = OfferReply(offer=said.offer, keys=said.keys, profile=said.profile, warm=b"")
        if line.offered is None or line.offered[0] != offer:
            line.offered = offer, self._verified(offer, peer)
        return verify_bid(said, called, line.offered[1], asked_ns, self._peer.ground.words.open)

    def _verified(self, offer: OfferReply, peer: PeerKey) -> Quote:
        return verify_offer(offer, self._peer.ground.network_id, peer, self._peer.ground.words.open)

    def _line(self, peer: PeerKey) -> _Line:
        line = self._lines.setdefault(peer, _Line())
        self._lines.move_to_end(peer)
        idle = [who for who, other in self._lines.items() if not other.waiting and other is not line]
        for surplus in idle[: max(0, len(self._lines) - CALL_STREAMS)]:
            end = self._lines.pop(surplus).end
            if end is not None:
                end.close()
        return line

    def _open(self, peer: PeerKey, line: _Line) -> None:
        end = line.end = self._peer.open(peer, CALL_PROTOCOL)
        assert end is not None                          # offers come from peers of this world

        def hear(message: Any) -> None:
            if isinstance(message, BidReply | Decline) and (answer := line.waiting.pop(message.call, None)) is not None:
                answer(message)

        def close() -> None:
            line.end = None
            waiting, line.waiting = line.waiting, {}
            for answer in waiting.values():
                answer(StreamClosed("the stream has ended"))

        end.on_frame, end.on_close = hear, close

    def _tell(self, peer: PeerKey, result: CallResult) -> None:
        line = self._lines.get(peer)
        if line is not None and line.end is not None:
            line.end.send(result)
