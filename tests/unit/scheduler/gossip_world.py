"""A world of gossips: many machines, links with delays and losses, one heap of events, and no clock but its own."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.rng import Stream, stream
from cocoon.core.units import MILLISECOND_NS
from cocoon.scheduler.gossip import (
    CheckOffers,
    DigestHeard,
    DropNeighbour,
    Gossip,
    InterestHeard,
    NeighbourJoined,
    OfferPublished,
    OffersHeard,
    OffersVerified,
    SendGossip,
    SummaryHeard,
    WantHeard,
)
from cocoon.scheduler.table import Claim
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from cocoon.wire.messages import Offer
from tests.unit.scheduler.builders import NETWORK, offer

KINDS = frozenset({"infer"})
BOOT = bytes([1]) * 8
_PPM = 1_000_000


def key(number: int) -> PeerKey:
    return PeerKey(number.to_bytes(32, "big"))


def claim(provider: int, seq: int = 1, age_ms: int = 0, boot: bytes = BOOT, **changes: object) -> Claim:
    """An offer as it travels; its packed form is a name for it, which is all that a machine does with it."""
    made = offer(boot_id=boot, seq=seq, **changes)
    return Claim(key(provider), made, age_ms, f"{provider}/{boot.hex()}/{seq}".encode())


def gossip(number: int = 0, kinds: Iterable[str] = KINDS, network: NetworkId = NETWORK, seed: int = 1) -> Gossip:
    return Gossip(key(number), network, frozenset(kinds), seed)


def event_of(sender: PeerKey, message: object, offers: dict[bytes, tuple[PeerKey, Offer]]) -> Event:
    """What a shell makes of a frame."""
    match message:
        case Interest():
            return InterestHeard(sender, message)
        case OfferSummary():
            return SummaryHeard(sender, message)
        case OfferDigest():
            return DigestHeard(sender, message)
        case OfferWant():
            return WantHeard(sender, message)
        case OfferDelta(offers=rows):
            return OffersHeard(sender, tuple(Claim(*offers[packed], age_ms, packed) for age_ms, packed in rows))
    raise AssertionError(message)


@dataclass
class World:
    """Peers by number; ``loss_ppm`` of all frames never arrive."""

    seed: int
    loss_ppm: int = 0
    longest_ms: int = 165
    now_ns: int = 0
    frames: int = 0
    checks: int = 0
    peers: dict[PeerKey, Gossip] = field(default_factory=dict)
    offers: dict[bytes, tuple[PeerKey, Offer]] = field(default_factory=dict)
    dropped: list[tuple[PeerKey, PeerKey, str]] = field(default_factory=list)
    #: Called after each event with the peer that took it.
    watch: Callable[[PeerKey], None] = lambda _: None
    _heap: list[tuple[int, int, PeerKey, Event | None]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.draws: Stream = stream(self.seed, b"", "world")

    def add(self, number: int) -> Gossip:
        made = self.peers[key(number)] = gossip(number, seed=self.seed)
        return made

    def connect(self, one: int, other: int) -> None:
        for here, there in ((one, other), (other, one)):
            self.tell(key(here), NeighbourJoined(key(there), f"block {there}", BOOT))

    def publish(self, made: Claim) -> None:
        self.offers[made.packed] = (made.provider, made.offer)
        self.tell(made.provider, OfferPublished(made))

    def tell(self, peer: PeerKey, event: Event) -> None:
        before = self.peers[peer].deadline_ns()
        for effect in self.peers[peer].handle(self.now_ns, event):
            self._perform(peer, effect)
        due_ns = self.peers[peer].deadline_ns()
        if due_ns is not None and due_ns != before:
            self._later(due_ns, peer, None)
        self.watch(peer)

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until_ns:
            at_ns, _, peer, event = heapq.heappop(self._heap)
            self.now_ns = max(self.now_ns, at_ns)
            if event is not None:
                self.tell(peer, event)
            elif self.peers[peer].deadline_ns() == at_ns:
                self.tell(peer, DeadlinePassed())
        self.now_ns = until_ns

    def holds(self, peer: PeerKey, provider: int) -> int | None:
        """The number of the offer that a peer has of a provider."""
        found = self.peers[peer].table.find(self.now_ns, key(provider))
        return None if found is None else found.offer.seq

    def _perform(self, peer: PeerKey, effect: Effect) -> None:
        match effect:
            case SendGossip(to, message):
                self.frames += 1
                if self.draws.below(_PPM) >= self.loss_ppm or isinstance(message, Interest):
                    delay_ns = (10 + self.draws.below(self.longest_ms - 9)) * MILLISECOND_NS
                    self._later(self.now_ns + delay_ns, to, event_of(peer, message, self.offers))
            case CheckOffers(by, claims):
                self.checks += len(claims)
                self.tell(peer, OffersVerified(by, claims, claims, None))
            case DropNeighbour(who, code):
                self.dropped.append((peer, who, code))

    def _later(self, at_ns: int, peer: PeerKey, event: Event | None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ns, self._count, peer, event))
