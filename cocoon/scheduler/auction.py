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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    AUCTION_MOST_NS,
    AUCTION_SOONEST_NS,
    EXPLORATION_PPM,
    EXPLORATION_PREMIUM_PPM,
    PROVIDERS_ASKED,
    ROUND_TRIP_UNKNOWN_NS,
)
from cocoon.core.machine import Effect, Event
from cocoon.core.units import PPM
from cocoon.scheduler.selection import (
    Missed,
    Quote,
    expected_completion_ns,
    expected_cost_nanoton,
    slowest_run_us,
    unheard,
)

#: Upper ends of the bands in which a loser learns how much dearer it was, in per cent.
BANDS_PERCENT = (5, 10, 25, 50)
#: And what stands for more than the last of them.
DEARER_STILL_PERCENT = 100


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


# --- who is taken, and what the others hear ----------------------------------


@dataclass(frozen=True, slots=True)
class Draw:
    """Two draws of a counter-based stream, below ``PPM`` and uniform: whether to explore, and whom."""

    whether_ppm: int
    whom_ppm: int


def explored(
    ranked: Sequence[Quote], runs: int, is_newcomer: Callable[[PeerKey], bool],
    block_of: Mapping[PeerKey, str], draw: Draw,
) -> tuple[Quote, ...]:
    """Now and then a newcomer first, if it costs little more than the best: nobody else would ever know it (AUC-6).

    The share is dealt out among blocks of addresses, then within one: a thousand
    identities behind one address together get what one honest newcomer gets.
    """
    order = tuple(ranked)
    if draw.whether_ppm >= EXPLORATION_PPM or not order or is_newcomer(order[0].provider):
        return order
    most = expected_cost_nanoton(order[0].terms, runs) * EXPLORATION_PREMIUM_PPM // PPM
    blocks: dict[str, list[Quote]] = {}
    for quote in order:
        if is_newcomer(quote.provider) and expected_cost_nanoton(quote.terms, runs) <= most:
            blocks.setdefault(block_of.get(quote.provider, ""), []).append(quote)
    if not blocks:
        return order
    place = draw.whom_ppm * len(blocks)
    block = blocks[sorted(blocks)[place // PPM]]
    chosen = block[place % PPM * len(block) // PPM]
    return chosen, *(quote for quote in order if quote is not chosen)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a bid did not win, as its bidder hears it (``wire.market.CallResult``)."""

    dearer_percent: int
    cold: bool
    slower: bool
    less_reliable: bool

    def reason(self) -> str:
        """In words, for people."""
        said = []
        if self.dearer_percent:
            over = self.dearer_percent > BANDS_PERCENT[-1]
            said.append(f"more than {BANDS_PERCENT[-1]} % dearer" if over else f"up to {self.dearer_percent} % dearer")
        said += ["cold model"] * self.cold + ["slower"] * self.slower + ["less reliable"] * self.less_reliable
        return ", ".join(said) or "a newcomer was tried"


def verdict(loser: Quote, winner: Quote, runs: int, reliability_ppm: Callable[[PeerKey], int]) -> Verdict:
    """What speaks against ``loser`` beside ``winner``, in bands."""
    cost, best = expected_cost_nanoton(loser.terms, runs), expected_cost_nanoton(winner.terms, runs)
    slowest_us = slowest_run_us((loser, winner))
    slower = expected_completion_ns(loser, runs, slowest_us) > expected_completion_ns(winner, runs, slowest_us)
    less_reliable = reliability_ppm(loser.provider) < reliability_ppm(winner.provider)
    return Verdict(_band(cost, best), winner.warm and not loser.warm, slower, less_reliable)


def _band(cost: int, best: int) -> int:
    if cost <= best:
        return 0
    return next((band for band in BANDS_PERCENT if cost * 100 <= best * (100 + band)), DEARER_STILL_PERCENT)
