"""Sales: what a provider's receipts earned, by model or by day.

A receipt tells the total of its lane; what it earned is by how much it raised
it. So the parts add up to the newest total of every lane, whatever was voided
between two receipts.

Purity: pure. Spec: docs/spec/lanes.md, rule LAN-30.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cocoon.core.limits import SALES_GROUPS
from cocoon.core.values import Value
from cocoon.ledger.verify import ReceiptFacts

Key = TypeVar("Key", bound=Hashable)


class Sold(Value):
    """What the receipts of one group add up to."""

    units: int = 0
    earned_nanoton: int = 0
    receipts: int = 0


@dataclass(slots=True)
class Sales(Generic[Key]):
    """Takes receipts in the order in which they were settled. Key ``None`` is all that found no group of its own."""

    groups: dict[Key | None, Sold] = field(default_factory=dict)
    _totals: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def take(self, key: Key, facts: ReceiptFacts) -> None:
        """Add one receipt to the group ``key``."""
        key_or_none = key if key in self.groups or len(self.groups) < SALES_GROUPS else None
        before = self.groups.get(key_or_none, Sold())
        self.groups[key_or_none] = Sold(
            before.units + sum(statement.units for statement in facts.statements),
            before.earned_nanoton + self._earned_nanoton(facts), before.receipts + 1,
        )

    def _earned_nanoton(self, facts: ReceiptFacts) -> int:
        if not facts.lane:
            return 0                                    # the next lease without a lane begins at 0, too
        lane = facts.escrow, facts.lane
        before = self._totals.get(lane, 0)
        self._totals[lane] = max(before, facts.total_nanoton)
        return self._totals[lane] - before

    def by_earned(self) -> list[tuple[Key | None, Sold]]:
        """The groups, what earned most first; of equal ones what sold more units, then what was there first."""
        return sorted(self.groups.items(), key=lambda item: (-item[1].earned_nanoton, -item[1].units))
