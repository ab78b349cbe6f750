"""The standing offer: what a provider answers with when it is asked.

Invariants
    An offer is at most ``OFFER_REFRESH_NS`` old when it is given.
    A queue that changes makes a new one every ``OFFER_SPACING_NS`` at most.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-4 and SCH-5.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.limits import OFFER_REFRESH_NS, OFFER_SPACING_NS
from cocoon.core.machine import Effect, Event


class OfferAsked(Event):
    """Somebody wants the standing offer; ``queue`` is the number of open leases now."""

    queue: int


class SignOffer(Effect):
    """Sign a new standing offer with this sequence number, and answer with it."""

    seq: int
    queue: int


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
                stays_ns = OFFER_REFRESH_NS if queue == self.queue else OFFER_SPACING_NS
                if self.seq and now_ns < self.signed_at_ns + stays_ns:
                    return [GiveOffer(self.seq)]
                self.seq, self.queue, self.signed_at_ns = self.seq + 1, queue, now_ns
                return [SignOffer(self.seq, queue)]
        return []

    def deadline_ns(self) -> int | None:
        """None: an offer is signed when somebody asks for it."""
        return None
