"""Offers by gossip: what ``cocoon.node.gossip`` does around the machine.

Purity: pure. Spec: docs/spec/gossip.md, rules GOS-1 to GOS-16; simulation.md, rule SIM-1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from cocoon.core.errors import PeerFault
from cocoon.core.ids import PeerKey
from cocoon.core.limits import GOSSIP_INTERVAL_NS, GOSSIP_RETRY_NS, OFFERS_EXPLORED, PROVIDERS_ASKED
from cocoon.core.machine import Effect, Event
from cocoon.core.rng import stream
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
    SendGossip,
    SummaryHeard,
    WantHeard,
)
from cocoon.scheduler.selection import Demand, shortlist
from cocoon.scheduler.table import Claim
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from cocoon.wire.messages import Offer
from cocoon.wire.signing import Signed
from sim.engine.driver import Reflex
from sim.engine.network import End
from sim.peers.ground import Ground, Peer

GOSSIP_PROTOCOL = "gossip"
#: Neighbours that each peer draws; with those that draw it there are about twice as many.
NEIGHBOURS = 4
KINDS = frozenset({"infer"})


def block_of(peer: int) -> str:
    """Addresses of a simulated peer: each has a block of its own."""
    return f"10.{peer >> 8}.{peer & 255}.0"


def draw_mesh(ground: Ground) -> None:
    """Who is connected to whom: some others by lot, and a ring, so that the mesh is one piece.

    Of two neighbours the one with the lower key opens the stream, as in ``node.gossip``.
    """
    peers = ground.peers
    pairs: dict[tuple[int, int], None] = {}
    for peer in peers:
        draws = stream(ground.seed, peer.key, "neighbours")
        others = [(peer.number + 1) % len(peers)]
        others += [draws.below(len(peers)) for _ in range(NEIGHBOURS - 1)]
        pairs |= dict.fromkeys((min(peer.number, other), max(peer.number, other)) for other in others)
    ground.opens = [[] for _ in peers]
    for one, other in pairs:
        if one != other:
            low, high = sorted((peers[one], peers[other]), key=lambda peer: peer.key)
            ground.opens[low.number].append(high)


class Gossiping:
    """One life of one peer's gossip."""

    def __init__(self, peer: Peer, standing: Callable[[], Signed[Offer] | None] | None) -> None:
        """``standing`` gives a provider's own offer, signed anew when that is due."""
        self._peer = peer
        self._standing = standing
        draws = peer.stream("gossip seed")
        self.machine = Gossip(peer.key, peer.ground.network_id, KINDS, draws.bits64() >> 1)
        self._driver = Reflex(self.machine, peer.scope, peer, self._perform)
        self._explore = peer.stream("explore")
        self._ends: dict[PeerKey, End] = {}
        self._closed_ns: dict[PeerKey, int] = {}
        self._published = b""
        peer.scope.later(0, self._upkeep)

    def serves(self) -> dict[str, Callable[[End], None]]:
        """Streams that others open."""
        return {GOSSIP_PROTOCOL: self._join}

    def shortlist(
        self, demand: Demand, without: Collection[PeerKey], reliability_ppm: Callable[[PeerKey], int]
    ) -> list[PeerKey]:
        """Whom to call for bids."""
        offers = {
            claim.provider: claim.offer for claim in self.machine.table.live(self._peer.now_ns())
            if claim.provider != self._peer.key and claim.provider not in without
        }
        return shortlist(offers, demand, PROVIDERS_ASKED, OFFERS_EXPLORED, self._explore.below, reliability_ppm)

    def _upkeep(self) -> None:
        """Meet who is missing, publish what is new; again after an interval."""
        now_ns = self._peer.now_ns()
        for other in [one for one in self._peer.ground.opens[self._peer.number] if one.key not in self._ends]:
            shut_ns = self._closed_ns.get(other.key)
            rested = shut_ns is None or now_ns - shut_ns >= GOSSIP_RETRY_NS
            if rested and not self.machine.shuns(now_ns, other.key):
                self._join(self._peer.ground.network.open(self._peer, other, GOSSIP_PROTOCOL))
        self.publish()
        self._peer.scope.later(GOSSIP_INTERVAL_NS, self._upkeep)

    def publish(self) -> None:
        """Tell of the own offer if it is another one than before."""
        signed = None if self._standing is None else self._standing()
        if signed is not None and signed.digest != self._published:
            self._published, packed = signed.digest, signed.pack()
            self._peer.ground.checks.offers[packed] = self._peer.ground.heap.now_ns
            self._driver.post(OfferPublished(Claim(signed.signer, signed.message, 0, packed)))

    def _join(self, end: End) -> None:
        other = self._peer.ground.peers[end.peer.number]
        if other.key in self._ends:
            end.close()
            return
        self._ends[other.key] = end
        end.on_frame = lambda message: self._hear(other.key, message)
        end.on_close = lambda: self._leave(other.key)
        self._driver.post(NeighbourJoined(other.key, block_of(other.number), other.boot_id))

    def _leave(self, peer: PeerKey) -> None:
        if self._ends.pop(peer, None) is not None:
            self._closed_ns[peer] = self._peer.now_ns()
            self._driver.post(NeighbourLeft(peer))

    def _hear(self, peer: PeerKey, message: Any) -> None:
        self._driver.post(self._understood(peer, message))

    def _understood(self, peer: PeerKey, message: Any) -> Event:
        match message:                                  # the most frequent first
            case OfferDelta(offers=offers):
                try:
                    claimed = self._peer.ground.words.claimed
                    claims = [Claim(*claimed(packed, Offer), age_ms, packed) for age_ms, packed in offers]
                    return OffersHeard(peer, tuple(claims))
                except PeerFault as error:
                    return NeighbourFaulted(peer, error.code)
            case Interest():
                return InterestHeard(peer, message)
            case OfferSummary():
                return SummaryHeard(peer, message)
            case OfferDigest():
                return DigestHeard(peer, message)
            case OfferWant():
                return WantHeard(peer, message)
        return NeighbourFaulted(peer, "unknown_kind")

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendGossip(peer, message) if peer in self._ends:
                end = self._ends[peer]
                self._peer.ground.checks.gossip_bytes += frame_bytes(message)
                if isinstance(message, Interest):       # without it nothing else would ever be said
                    end.send(message)
                else:
                    end.send_loose(message)
            case CheckOffers(peer, claims):
                self._check(peer, claims)
            case DropNeighbour(peer) if peer in self._ends:
                self._ends.pop(peer).close()

    def _check(self, peer: PeerKey, claims: tuple[Claim, ...]) -> None:
        good: list[Claim] = []
        code: str | None = None
        for claim in claims:
            try:
                self._peer.ground.words.open(claim.packed, Offer, signer=claim.provider)
            except PeerFault as error:
                code = error.code
                break
            good.append(claim)
            self._peer.ground.checks.offer_heard(claim.packed, self._peer.began_ns)
        self._driver.post(OffersVerified(peer, claims, tuple(good), code))


def frame_bytes(message: Any) -> int:
    """Size of a frame of the gossip, to a few bytes: packing each would be half of the work of a large world."""
    match message:
        case OfferDelta(offers=offers):
            return 8 + 8 * len(offers) + sum([len(packed) for _, packed in offers])
        case OfferDigest(held=held):
            return 80 + 54 * len(held)
        case OfferWant(providers=providers):
            return 8 + 34 * len(providers)
        case OfferSummary(sums=sums):
            return 8 + 9 * len(sums)
    return 16
