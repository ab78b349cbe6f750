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

from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import PROVIDERS_ASKED
from cocoon.core.machine import Effect, Event
from cocoon.scheduler.selection import Missed, Quote, unheard


@dataclass(frozen=True, slots=True)
class RoundBegan(Event):
    """Whom to ask; may be empty.

    Attributes:
        patience_ns: How long it waits for all of them, once one has given a quote.
        most_ns: How long it waits at most, for the first quote.
    """

    peers: tuple[PeerKey, ...]
    patience_ns: int
    most_ns: int


@dataclass(frozen=True, slots=True)
class QuoteReceived(Event):
    """A verified offer or bid arrived."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class QuoteMissed(Event):
    """A peer declined, could not be reached, or its answer was refused with a code."""

    missed: Missed


@dataclass(frozen=True, slots=True)
class AskPeer(Effect):
    """Ask this peer."""

    peer: PeerKey


@dataclass(frozen=True, slots=True)
class RoundEnded(Effect):
    """All quotes that came in time, and a code for whoever gave none."""

    quotes: tuple[Quote, ...]
    missed: tuple[Missed, ...]


@dataclass(slots=True)
class Round:
    """One round, from its shortlist to its end."""

    closes_at_ns: int | None = None
    #: As long as there is no quote it stays open until then.
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
            case RoundBegan(peers, patience_ns, most_ns) if self.closes_at_ns is None:
                self.closes_at_ns, self.ends_at_ns = now_ns + patience_ns, now_ns + most_ns
                asked = list(dict.fromkeys(peers))[:PROVIDERS_ASKED]
                self.waiting = set(asked)
                return [AskPeer(peer) for peer in asked] or self._end()
            case QuoteReceived(quote) if quote.provider in self.waiting:
                self.waiting.discard(quote.provider)
                self.quotes.append(quote)
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
        return self.closes_at_ns if self.quotes or self.closes_at_ns is None else self.ends_at_ns

    def _end(self) -> list[Effect]:
        self.ended = True
        return [RoundEnded(tuple(self.quotes), tuple(self.missed[peer] for peer in sorted(self.missed)))]
