"""Yielding: a provider that sells nothing new while its owner's other programs need the machine.

It rests at the first look that shows them busy, and sells again when they were quiet at
several looks in a row: who plays a game does not want to be asked between two scenes.

Invariants
    While it rests the last look was busy, or fewer than ``YIELD_LOOKS`` quiet ones followed.

Purity: pure. Spec: docs/spec/leases.md, rule LEA-19.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.limits import YIELD_LOOKS
from cocoon.core.machine import Effect, Event


class OthersSeen(Event):
    """Other programs had this share of the processors since the last look."""

    ppm: int


class Rest(Effect):
    """Sell nothing new, and give back what nobody uses now."""


class SellAgain(Effect):
    """The machine is free."""


@dataclass(slots=True)
class Yielding:
    """Feed it looks; ``limit_ppm`` is what others may take before it rests."""

    limit_ppm: int
    rests: bool = False
    _quiet: int = 0

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one look."""
        match event:
            case OthersSeen(ppm) if ppm >= self.limit_ppm:
                self._quiet = 0
                if not self.rests:
                    self.rests = True
                    return [Rest()]
            case OthersSeen() if self.rests:
                self._quiet += 1
                if self._quiet == YIELD_LOOKS:
                    self.rests = False
                    return [SellAgain()]
        return []

    def deadline_ns(self) -> int | None:
        """None: whoever looks has the clock."""
        return None
