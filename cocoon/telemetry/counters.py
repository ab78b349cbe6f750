"""Plain counters for ``cocoon status`` and ``cocoon doctor``.

Purity: pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cocoon.core.errors import UsageError

#: Names are constants of the code; more than this is a defect that makes names from data.
COUNTERS = 256
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


@dataclass(slots=True)
class Counters:
    """Integers that only grow while the process lives. For one thread."""

    values: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, amount: int = 1) -> None:
        """Count ``amount`` (>= 0) more of ``name``.

        Raises:
            UsageError: a name that is no constant word, too many names, or a negative amount.
        """
        if amount < 0:
            raise UsageError(f"counter {name[:48]!r} cannot fall by {-amount}")
        if name not in self.values:
            self._admit(name)
        self.values[name] = self.values.get(name, 0) + amount

    def snapshot(self) -> dict[str, int]:
        """All counters by name, in alphabetical order."""
        return dict(sorted(self.values.items()))

    def _admit(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:48]!r} is no counter name")
        if len(self.values) >= COUNTERS:
            raise UsageError(f"more than {COUNTERS} counters")
