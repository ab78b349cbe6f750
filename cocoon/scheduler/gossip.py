"""Gossip: how offers get from a provider to everybody who wants their kind, without anybody being asked.

What is new is pushed to a few neighbours drawn by lot. What a push missed is
found by comparing: again and again, and more rarely while that finds nothing, one
neighbour is told sums of what is held; where its own differ it answers with a digest
of a stretch of keys, and that is answered with what is missing there and what is wanted.

Invariants
    Nothing is pushed or answered that its receiver did not ask for by kind.
    An offer is checked at most once at a time, and only if the table would take it.
    A neighbour that sent what no honest peer passes on is dropped, and shunned for a while.

Purity: pure. Draws come from the stream of (seed, peer, "gossip"). Spec: docs/spec/gossip.md, rules GOS-1 to GOS-17.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.limits import (
    GOSSIP_CALM_NS,
    GOSSIP_DELTA_OFFERS,
    GOSSIP_DIGEST_OFFERS,
    GOSSIP_FANOUT,
    GOSSIP_INTERVAL_NS,
    GOSSIP_PARTS,
    GOSSIP_PUSH_NS,
    GOSSIP_SHUN_NS,
    GOSSIP_SHUNNED,
    OFFER_TTL_S,
)
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.rng import Stream, stream
from cocoon.scheduler.table import FIRST_KEY, LAST_KEY, Claim, OfferTable, Worth, part_keys, worth_passing
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from cocoon.wire.messages import Offer
from cocoon.wire.schema import Message

# --- events ----------------------------------------------------------------


class NeighbourJoined(Event):
    """A gossip stream with this peer is open. ``block``: its addresses; ``boot_id``: of its Hello."""

    peer: PeerKey
    block: str
    boot_id: bytes


class NeighbourLeft(Event):
    """Its stream ended."""

    peer: PeerKey


class NeighbourFaulted(Event):
    """It sent what is no frame of ours."""

    peer: PeerKey
    code: str


class InterestHeard(Event):
    """A neighbour said which kinds it wants."""

    peer: PeerKey
    interest: Interest


class DigestHeard(Event):
    """A neighbour said what it holds."""

    peer: PeerKey
    digest: OfferDigest


class SummaryHeard(Event):
    """A neighbour said sums of what it holds."""

    peer: PeerKey
    summary: OfferSummary


class WantHeard(Event):
    """A neighbour answered our digest."""

    peer: PeerKey
    want: OfferWant


class OffersHeard(Event):
    """A neighbour sent offers; no signature is checked yet."""

    peer: PeerKey
    claims: tuple[Claim, ...]


class OffersVerified(Event):
    """The answer to ``CheckOffers``. ``code`` is that of the first bad one, None if all are good."""

    peer: PeerKey
    checked: tuple[Claim, ...]
    good: tuple[Claim, ...]
    code: str | None


class OfferPublished(Event):
    """This peer's own standing offer is a new one."""

    claim: Claim


# --- effects ---------------------------------------------------------------


class SendGossip(Effect):
    """Send this frame to a neighbour, or drop it if too much waits for it."""

    peer: PeerKey
    message: Message


class CheckOffers(Effect):
    """Check these signatures, then tell ``OffersVerified``."""

    peer: PeerKey
    claims: tuple[Claim, ...]


class DropNeighbour(Effect):
    """End the stream with this peer and open no other one: it is at fault."""

    peer: PeerKey
    code: str


class ReportProvider(Effect):
    """A provider that the table did not know, and the neighbour who brought it."""

    provider: PeerKey
    peer: PeerKey


@dataclass(slots=True)
class _Neighbour:
    block: str
    #: None until it has said what it wants.
    kinds: frozenset[str] | None = None
    answered_ns: int | None = None
    compared_ns: int | None = None
    #: Our last digest was not answered with a want yet.
    asked: bool = False

    def wants(self, offer: Offer) -> bool:
        return self.kinds is not None and not self.kinds.isdisjoint(offer.kinds)


@dataclass(slots=True)
class Gossip:
    """One peer's part in the gossip."""

    own: PeerKey
    network: NetworkId
    #: Kinds whose offers are wanted here; what this peer sells itself is among them.
    kinds: frozenset[str]
    seed: int
    table: OfferTable = field(default_factory=OfferTable)
    _draws: Stream = field(init=False)
    _neighbours: dict[PeerKey, _Neighbour] = field(default_factory=dict)
    _shunned: dict[PeerKey, int] = field(default_factory=dict)
    #: Providers whose offer is to be pushed, and who brought it.
    _fresh: dict[PeerKey, PeerKey] = field(default_factory=dict)
    _checking: set[tuple[PeerKey, bytes, int]] = field(default_factory=set)
    _round_ns: int | None = None
    #: From the next summary to the one after it.
    _wait_ns: int = GOSSIP_INTERVAL_NS
    _push_ns: int = 0

    def __post_init__(self) -> None:
        self._draws = stream(self.seed, self.own, "gossip")

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact. What comes from nobody's stream changes nothing."""
        match event:                                    # the most frequent first
            case OffersHeard(peer, claims) if peer in self._neighbours:
                return self._heard(now_ns, peer, claims)
            case OffersVerified():
                return self._verified(now_ns, event)
            case DeadlinePassed():
                return [*self._push(now_ns), *self._round(now_ns)]
            case NeighbourJoined(peer, block, boot_id):
                return self._joined(now_ns, peer, block, boot_id)
            case OfferPublished(claim):
                self.table.take(now_ns, claim, None)
                self._fresh[self.own] = self.own
                return self._push(now_ns)
            case NeighbourLeft(peer):
                self._leave(peer)
            case NeighbourFaulted(peer, code) if peer in self._neighbours:
                return self._fault(now_ns, peer, code)
            case InterestHeard(peer, interest) if peer in self._neighbours:
                return self._interested(now_ns, peer, interest)
            case DigestHeard(peer, digest) if peer in self._neighbours:
                return self._answer(now_ns, peer, digest)
            case SummaryHeard(peer, summary) if peer in self._neighbours:
                return self._compare(now_ns, peer, summary)
            case WantHeard(peer, want) if peer in self._neighbours:
                return self._satisfy(now_ns, peer, want)
        return []

    def deadline_ns(self) -> int | None:
        """When the next summary or the next push is due."""
        if self._fresh and self._round_ns is not None:
            return min(self._push_ns, self._round_ns)
        return self._round_ns

    def shuns(self, now_ns: int, peer: PeerKey) -> bool:
        """Whether no stream with ``peer`` is wanted now."""
        return now_ns < self._shunned.get(peer, now_ns)

    # --- neighbours --------------------------------------------------------

    def _joined(self, now_ns: int, peer: PeerKey, block: str, boot_id: bytes) -> list[Effect]:
        if self.shuns(now_ns, peer):
            return [DropNeighbour(peer, "shunned")]
        self._neighbours[peer] = _Neighbour(block)
        self.table.introduce(peer, boot_id)
        if self._round_ns is None:
            # Peers that were started together do not speak all at the same moments.
            self._round_ns = now_ns + self._draws.below(GOSSIP_INTERVAL_NS)
        return [SendGossip(peer, Interest(kinds=tuple(sorted(self.kinds))))]

    def _leave(self, peer: PeerKey) -> None:
        self._neighbours.pop(peer, None)
        self.table.part(peer)
        if not self._neighbours:
            self._round_ns = None

    def _fault(self, now_ns: int, peer: PeerKey, code: str) -> list[Effect]:
        self._leave(peer)
        self._shunned = {who: until for who, until in self._shunned.items() if now_ns < until}
        self._shunned[peer] = now_ns + GOSSIP_SHUN_NS
        if len(self._shunned) > GOSSIP_SHUNNED:
            del self._shunned[next(iter(self._shunned))]
        return [DropNeighbour(peer, code)]

    def _interested(self, now_ns: int, peer: PeerKey, interest: Interest) -> list[Effect]:
        neighbour = self._neighbours[peer]
        first, neighbour.kinds = neighbour.kinds is None, frozenset(interest.kinds)
        if not first:
            return []
        self._stir(now_ns)
        return [self._digest(now_ns, peer, FIRST_KEY, LAST_KEY)]

    # --- summaries and digests -----------------------------------------------------------

    def _round(self, now_ns: int) -> list[Effect]:
        if self._round_ns is None or now_ns < self._round_ns:
            return []
        self.table.expire(now_ns)
        self._round_ns = now_ns + self._wait_ns
        self._wait_ns = min(2 * self._wait_ns, GOSSIP_CALM_NS)
        there = sorted([peer for peer, one in self._neighbours.items() if one.kinds is not None])
        if not there:
            return []
        peer = there[self._draws.below(len(there))]
        return [SendGossip(peer, OfferSummary(sums=self._sums(peer)))]

    def _stir(self, now_ns: int) -> None:
        """Comparing found something: perhaps there is more, here or at others."""
        self._wait_ns = GOSSIP_INTERVAL_NS
        if self._round_ns is not None:
            self._round_ns = min(self._round_ns, now_ns + GOSSIP_INTERVAL_NS)

    def _sums(self, peer: PeerKey) -> tuple[int, ...]:
        """Of what ``peer`` wants; whoever wants all that is wanted here is told the sums that are kept at hand."""
        neighbour = self._neighbours[peer]
        return self.table.sums(None if self.kinds <= (neighbour.kinds or frozenset()) else neighbour.wants)

    def _compare(self, now_ns: int, peer: PeerKey, summary: OfferSummary) -> list[Effect]:
        """Answer sums that differ from ours with a digest of one run of parts, drawn by lot among those that differ."""
        neighbour = self._neighbours[peer]
        if not _rested(now_ns, neighbour.compared_ns):
            return []
        self.table.expire(now_ns)
        ours, theirs = self._sums(peer), summary.sums
        if ours == theirs:
            return []
        self._stir(now_ns)
        unlike = [part for part in range(GOSSIP_PARTS) if ours[part] != theirs[part]]
        neighbour.compared_ns = now_ns
        first = last = unlike[self._draws.below(len(unlike))]
        while first - 1 in unlike:
            first -= 1
        while last + 1 in unlike:
            last += 1
        return [self._digest(now_ns, peer, *part_keys(first, last))]

    def _digest(self, now_ns: int, peer: PeerKey, first: bytes, last: bytes) -> Effect:
        """All that is held for ``peer`` there, or of very many a stretch by lot, each line as likely as the other."""
        neighbour = self._neighbours[peer]
        neighbour.asked = True
        providers = self.table.providers(first, last)
        if len(providers) > GOSSIP_DIGEST_OFFERS:
            end = 1 + self._draws.below(len(providers) + GOSSIP_DIGEST_OFFERS - 1)
            last = providers[end - 1] if end < len(providers) else last
            first = providers[end - GOSSIP_DIGEST_OFFERS] if end > GOSSIP_DIGEST_OFFERS else first
        lines = [(*claim.name, claim.age_ms) for claim in self._passable(now_ns, neighbour, first, last)]
        return SendGossip(peer, OfferDigest(first=first, last=last, held=tuple(lines)))

    def _answer(self, now_ns: int, peer: PeerKey, digest: OfferDigest) -> list[Effect]:
        neighbour = self._neighbours[peer]
        if not _rested(now_ns, neighbour.answered_ns):
            return []
        neighbour.answered_ns = now_ns
        theirs = {line[0]: (line[1], line[2]) for line in digest.held}
        missing = [
            claim for claim in self._passable(now_ns, neighbour, digest.first, digest.last)
            if _newer(claim, theirs.get(claim.provider))
        ]
        wanted = [
            provider for provider, boot, seq, age_ms in digest.held
            if provider != self.own
            and self.table.weigh(now_ns, (PeerKey(provider), boot, seq), age_ms, neighbour.block) is Worth.NEW
        ][:GOSSIP_DELTA_OFFERS]
        if missing or wanted:
            self._stir(now_ns)
        answer = self._delta(peer, missing)
        return [*answer, *([SendGossip(peer, OfferWant(providers=tuple(wanted)))] if wanted else [])]

    def _satisfy(self, now_ns: int, peer: PeerKey, want: OfferWant) -> list[Effect]:
        neighbour = self._neighbours[peer]
        if not neighbour.asked:
            return []                   # one answer to one digest
        neighbour.asked = False
        found = [self.table.find(now_ns, PeerKey(provider)) for provider in dict.fromkeys(want.providers)]
        return self._delta(peer, _passing([claim for claim in found if claim is not None], neighbour))

    def _passable(self, now_ns: int, neighbour: _Neighbour, first: bytes, last: bytes) -> list[Claim]:
        return _passing(self.table.live(now_ns, first, last), neighbour)

    def _delta(self, peer: PeerKey, claims: list[Claim]) -> list[Effect]:
        """One frame at most; what is left over comes with the next digests."""
        offers = [(claim.age_ms, claim.packed) for claim in claims if claim.provider != peer][:GOSSIP_DELTA_OFFERS]
        return [SendGossip(peer, OfferDelta(offers=tuple(offers)))] if offers else []

    # --- offers ------------------------------------------------------------

    def _heard(self, now_ns: int, peer: PeerKey, claims: Iterable[Claim]) -> list[Effect]:
        block = self._neighbours[peer].block
        worth: dict[tuple[PeerKey, bytes, int], Claim] = {}
        for claim in claims:
            if (code := self._flaw(claim.offer)) is not None:
                return self._fault(now_ns, peer, code)
            name = claim.name
            if claim.provider == self.own or self.kinds.isdisjoint(claim.offer.kinds) or name in self._checking:
                continue
            if self.table.weigh(now_ns, name, claim.age_ms, block, claim.offer.ttl_s) is Worth.NEW:
                worth.setdefault(name, claim)
        self._checking.update(worth)
        return [CheckOffers(peer, tuple(worth.values()))] if worth else []

    def _flaw(self, offer: Offer) -> str | None:
        """What no honest peer passes on, whoever signed it."""
        if offer.network != self.network:
            return "wrong_network_id"
        return None if 1 <= offer.ttl_s <= OFFER_TTL_S else "wrong_ttl"

    def _verified(self, now_ns: int, event: OffersVerified) -> list[Effect]:
        effects: list[Effect] = []
        peer = event.peer
        self._checking.difference_update([claim.name for claim in event.checked])
        if (neighbour := self._neighbours.get(peer)) is not None:
            for claim in event.good:
                known = self.table.knows(claim.provider)
                if self.table.take(now_ns, claim, neighbour.block):
                    self._fresh[claim.provider] = peer
                    effects += [] if known else [ReportProvider(claim.provider, peer)]
            if event.code is not None:
                effects += self._fault(now_ns, peer, event.code)
        return [*effects, *self._push(now_ns)]

    def _push(self, now_ns: int) -> list[Effect]:
        """What is new, to a few neighbours at once; again after ``GOSSIP_PUSH_NS`` at the earliest."""
        if not self._fresh or now_ns < self._push_ns:
            return []
        self._push_ns = now_ns + GOSSIP_PUSH_NS
        fresh = list(self._fresh.items())
        batch, self._fresh = dict(fresh[:GOSSIP_DELTA_OFFERS]), dict(fresh[GOSSIP_DELTA_OFFERS:])
        found = [claim for provider in batch if (claim := self.table.find(now_ns, provider)) is not None]
        claims = [claim for claim in found if worth_passing(claim.age_ms, claim.offer.ttl_s)]
        effects: list[Effect] = []
        for peer in self._drawn(set(batch.values())):
            kinds = self._neighbours[peer].kinds or frozenset()
            effects += self._delta(peer, [
                claim for claim in claims if batch[claim.provider] != peer and not kinds.isdisjoint(claim.offer.kinds)
            ])
        return effects

    def _drawn(self, bringers: set[PeerKey]) -> list[PeerKey]:
        """``GOSSIP_FANOUT`` neighbours, each as likely as the other, but not the one who brought everything."""
        without = bringers if len(bringers) == 1 else set()
        there = sorted([
            peer for peer, one in self._neighbours.items() if one.kinds is not None and peer not in without
        ])
        for index in range(min(GOSSIP_FANOUT, len(there))):
            other = index + self._draws.below(len(there) - index)
            there[index], there[other] = there[other], there[index]
        return there[:GOSSIP_FANOUT]


def _passing(claims: Sequence[Claim], neighbour: _Neighbour) -> list[Claim]:
    """Those that the neighbour wants and that live long enough to be passed on."""
    if (kinds := neighbour.kinds) is None:
        return []
    return [
        claim for claim in claims
        if not kinds.isdisjoint(claim.offer.kinds) and worth_passing(claim.age_ms, claim.offer.ttl_s)
    ]


def _rested(now_ns: int, last_ns: int | None) -> bool:
    """Whether a question may be answered again: an answer is longer, so nobody gets many of them."""
    return last_ns is None or now_ns - last_ns >= GOSSIP_INTERVAL_NS // 2


def _newer(claim: Claim, theirs: tuple[bytes, int] | None) -> bool:
    """Whether who holds ``theirs`` of this provider may lack this; which boot is newer is for the receiver to say."""
    return theirs is None or theirs[0] != claim.offer.boot_id or theirs[1] < claim.offer.seq
