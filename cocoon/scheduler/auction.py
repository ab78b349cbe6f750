"""An auction: a requester calls for bids, once, and takes the best.

Sealed and first-price: each bidder is asked by itself, answers once, and the
winner gets what it bid. With the buyer as auctioneer a second price could be
forged by a shill; a first price cannot.

Invariants
    Nobody is called twice, and at most ``PROVIDERS_ASKED`` are.
    An auction ends once: by the last answer, at its close, or by the first bid after that. Nothing comes later.
    Only who was called and has not answered yet can answer.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-1 to AUC-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    AUCTION_MOST_NS,
    AUCTION_SOONEST_NS,
    PROVIDERS_ASKED,
    ROUND_TRIP_UNKNOWN_NS,
)
from cocoon.core.machine import Effect, Event
from cocoon.scheduler.selection import Missed, Quote, unheard


@dataclass(frozen=True, slots=True)
class Bidder:
    """Who is called; ``round_trip_ns`` is the last one that was measured, None if none was."""

    peer: PeerKey
    round_trip_ns: int | None


@dataclass(frozen=True, slots=True)
class BiddersChosen(Event):
    """The shortlist; may be empty."""

    bidders: tuple[Bidder, ...]


@dataclass(frozen=True, slots=True)
class BidReceived(Event):
    """A verified bid arrived."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class BidMissed(Event):
    """A bidder declined, could not be reached, or its answer was refused with ``code``."""

    missed: Missed


@dataclass(frozen=True, slots=True)
class SendCall(Effect):
    """Call this provider."""

    peer: PeerKey


@dataclass(frozen=True, slots=True)
class AuctionEnded(Effect):
    """All bids that came in time, and a code for whoever gave none."""

    quotes: tuple[Quote, ...]
    missed: tuple[Missed, ...]


@dataclass(slots=True)
class Auction:
    """One call, from the shortlist to its close."""

    closes_at_ns: int | None = None
    #: As long as nobody has bid it stays open until then.
    ends_at_ns: int = 0
    waiting: set[PeerKey] = field(default_factory=set)
    quotes: list[Quote] = field(default_factory=list)
    missed: dict[PeerKey, Missed] = field(default_factory=dict)
    ended: bool = False

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; answers after the end change nothing."""
        if self.ended:
            return []
        match event:
            case BiddersChosen(bidders) if self.closes_at_ns is None:
                called = {bidder.peer: bidder for bidder in bidders[:PROVIDERS_ASKED]}
                self.closes_at_ns = now_ns + _patience_ns(list(called.values()))
                self.ends_at_ns = now_ns + AUCTION_MOST_NS
                self.waiting = set(called)
                return [SendCall(peer) for peer in called] or self._end()
            case BidReceived(quote) if quote.provider in self.waiting:
                self.waiting.discard(quote.provider)
                self.quotes.append(quote)
            case BidMissed(missed) if missed.peer in self.waiting:
                self.waiting.discard(missed.peer)
                self.missed[missed.peer] = missed
        due_ns = self._due_ns()
        if due_ns is not None and now_ns >= due_ns:
            self.missed.update((peer, unheard(peer)) for peer in self.waiting)
            self.waiting.clear()
        return self._end() if due_ns is not None and not self.waiting else []

    def deadline_ns(self) -> int | None:
        """When silence counts as an answer."""
        return None if self.ended else self._due_ns()

    def _due_ns(self) -> int | None:
        return self.closes_at_ns if self.quotes or self.closes_at_ns is None else self.ends_at_ns

    def _end(self) -> list[Effect]:
        self.ended = True
        return [AuctionEnded(tuple(self.quotes), tuple(self.missed[peer] for peer in sorted(self.missed)))]


def _patience_ns(bidders: Sequence[Bidder]) -> int:
    """Twice the slowest round trip, within bounds: so one far bidder costs no more than it costs itself."""
    slowest_ns = max((
        ROUND_TRIP_UNKNOWN_NS if bidder.round_trip_ns is None else bidder.round_trip_ns for bidder in bidders
    ), default=0)
    return min(max(2 * slowest_ns, AUCTION_SOONEST_NS), AUCTION_MOST_NS)
