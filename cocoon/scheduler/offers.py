"""Offers: what a provider stands by, and how a requester gathers them.

A provider answers from its standing offer. A requester asks every seller
found, at most ``PROVIDERS_ASKED``, once each.

Invariants
    An offer is at most ``OFFER_REFRESH_NS`` old when it is given.
    A gathering ends once, by the last answer or by its deadline.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-4 to SCH-7.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import OFFER_NS, OFFER_REFRESH_NS, PROVIDERS_ASKED
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.scheduler.selection import Missed, Quote, unheard

# --- the provider's side ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class OfferAsked(Event):
    """Somebody wants the standing offer; ``queue`` is the number of open leases now."""

    queue: int


@dataclass(frozen=True, slots=True)
class SignOffer(Effect):
    """Sign a new standing offer with this sequence number, and answer with it."""

    seq: int
    queue: int


@dataclass(frozen=True, slots=True)
class GiveOffer(Effect):
    """Answer with the offer of this sequence number; it is still good."""

    seq: int


@dataclass(slots=True)
class StandingOffer:
    """When the provider's newest offer was signed, and what for."""

    seq: int = 0
    queue: int = -1
    signed_at_ns: int = 0

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; see the module for the invariants."""
        match event:
            case OfferAsked(queue):
                fresh = self.seq and now_ns < self.signed_at_ns + OFFER_REFRESH_NS
                if fresh and queue == self.queue:
                    return [GiveOffer(self.seq)]
                self.seq, self.queue, self.signed_at_ns = self.seq + 1, queue, now_ns
                return [SignOffer(self.seq, queue)]
        return []

    def deadline_ns(self) -> int | None:
        """None: an offer is signed when somebody asks for it."""
        return None


# --- the requester's side --------------------------------------------------


@dataclass(frozen=True, slots=True)
class SellersFound(Event):
    """The DHT named these peers, own peer excluded; may be empty."""

    peers: tuple[PeerKey, ...]


@dataclass(frozen=True, slots=True)
class OfferReceived(Event):
    """A verified offer arrived."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class OfferMissed(Event):
    """A seller could not be reached, or its answer was refused with ``code``."""

    missed: Missed


@dataclass(frozen=True, slots=True)
class AskOffer(Effect):
    """Ask this seller for its standing offer."""

    peer: PeerKey


@dataclass(frozen=True, slots=True)
class GatheringEnded(Effect):
    """All that could be had; ``missed`` maps each silent seller to a code."""

    quotes: tuple[Quote, ...]
    missed: tuple[Missed, ...]


@dataclass(slots=True)
class Gathering:
    """One round of asking: every seller once, at most ``PROVIDERS_ASKED``."""

    closes_at_ns: int | None = None
    waiting: set[PeerKey] = field(default_factory=set)
    quotes: list[Quote] = field(default_factory=list)
    missed: dict[PeerKey, Missed] = field(default_factory=dict)
    ended: bool = False

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; answers after the end change nothing."""
        if self.ended:
            return []
        match event:
            case SellersFound(peers) if self.closes_at_ns is None:
                self.closes_at_ns = now_ns + OFFER_NS
                asked = list(dict.fromkeys(peers))[:PROVIDERS_ASKED]
                self.waiting = set(asked)
                return [AskOffer(peer) for peer in asked] or self._end()
            case OfferReceived(quote) if quote.provider in self.waiting:
                self.waiting.discard(quote.provider)
                self.quotes.append(quote)
            case OfferMissed(missed) if missed.peer in self.waiting:
                self.waiting.discard(missed.peer)
                self.missed[missed.peer] = missed
            case DeadlinePassed() if self.closes_at_ns is not None and now_ns >= self.closes_at_ns:
                self.missed.update((peer, unheard(peer)) for peer in self.waiting)
                self.waiting.clear()
        return self._end() if self.closes_at_ns is not None and not self.waiting else []

    def deadline_ns(self) -> int | None:
        """When silence counts as an answer."""
        return None if self.ended else self.closes_at_ns

    def _end(self) -> list[Effect]:
        self.ended = True
        return [GatheringEnded(tuple(self.quotes), tuple(self.missed[peer] for peer in sorted(self.missed)))]
