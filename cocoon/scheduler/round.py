"""A round: several peers are asked at once, and it ends with what came in time.

Offers are gathered in rounds, and an auction is one.

Invariants
    Nobody is asked twice, and at most ``PROVIDERS_ASKED`` are.
    A round ends once: by the last answer, when its patience is over, or by the first quote after that.
    Nothing that comes later changes it.
    Only who was asked and has not answered yet can answer.

Purity: pure. Spec: docs/spec/scheduling.md, rule SCH-6; docs/spec/auction.md, rule AUC-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import PROVIDERS_ASKED
from cocoon.core.machine import Effect, Event
from cocoon.scheduler.selection import Missed, Quote, expected_cost_nanoton, unheard


class RoundBegan(Event):
    """Whom to ask; may be empty.

    Attributes:
        patience_ns: How long it waits for all of them, once one has given a quote.
        most_ns: How long it waits at most, for the first quote.
        soon_ns: How long it waits for those who ask no less than the best quote; None waits for them like for others.
        asks: What ``runs`` runs cost with a peer by its last offer, in nanoton; who is not named may ask anything.
    """

    peers: tuple[PeerKey, ...]
    patience_ns: int
    most_ns: int
    soon_ns: int | None = None
    runs: int = 0
    asks: Mapping[PeerKey, int] = {}


class QuoteReceived(Event):
    """A verified offer or bid arrived."""

    quote: Quote


class QuoteMissed(Event):
    """A peer declined, could not be reached, or its answer was refused with a code."""

    missed: Missed


class AskPeer(Effect):
    """Ask this peer."""

    peer: PeerKey


class RoundEnded(Effect):
    """All quotes that came in time, and a code for whoever gave none."""

    quotes: tuple[Quote, ...]
    missed: tuple[Missed, ...]


@dataclass(slots=True)
class Round:
    """One round, from its shortlist to its end."""

    began: RoundBegan | None = None
    began_ns: int = 0
    waiting: set[PeerKey] = field(default_factory=set)
    quotes: list[Quote] = field(default_factory=list)
    #: Expected cost of the cheapest of them.
    best_nanoton: int | None = None
    missed: dict[PeerKey, Missed] = field(default_factory=dict)
    ended: bool = False

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; answers after the end change nothing."""
        if self.ended:
            return []
        match event:
            case RoundBegan(peers=peers) if self.began is None:
                self.began, self.began_ns = event, now_ns
                asked = list(dict.fromkeys(peers))[:PROVIDERS_ASKED]
                self.waiting = set(asked)
                return [AskPeer(peer) for peer in asked] or self._end()
            case QuoteReceived(quote) if quote.provider in self.waiting:
                self.waiting.discard(quote.provider)
                self.quotes.append(quote)
                self._compare(quote)
            case QuoteMissed(missed) if missed.peer in self.waiting:
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
        began = self.began
        if began is None:
            return None
        if not self.quotes:
            return self.began_ns + began.most_ns
        if began.soon_ns is None or began.soon_ns >= began.patience_ns or not self._is_best_here(began.asks):
            return self.began_ns + began.patience_ns
        return self.began_ns + began.soon_ns

    def _compare(self, quote: Quote) -> None:
        assert self.began is not None                   # before that nobody is waited for
        cost_nanoton = expected_cost_nanoton(quote.terms, self.began.runs)
        self.best_nanoton = cost_nanoton if self.best_nanoton is None else min(self.best_nanoton, cost_nanoton)

    def _is_best_here(self, asks: Mapping[PeerKey, int]) -> bool:
        """Whether everybody who is still waited for asks no less, by its last offer, than was quoted already."""
        best_nanoton = self.best_nanoton or 0
        return min([asks.get(peer, -1) for peer in self.waiting], default=best_nanoton) >= best_nanoton

    def _end(self) -> list[Effect]:
        self.ended = True
        return [RoundEnded(tuple(self.quotes), tuple(self.missed[peer] for peer in sorted(self.missed)))]
