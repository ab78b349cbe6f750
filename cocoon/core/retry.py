"""Back-off of whatever is tried for ever: doubles from ``RETRY_FIRST_NS`` to ``RETRY_LAST_NS``.

Purity: pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.limits import RETRY_FIRST_NS, RETRY_LAST_NS


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next attempt."""

    failures: int = 0

    def succeeded(self) -> None:
        """An attempt achieved something."""
        self.failures = 0

    def failed(self) -> None:
        """An attempt achieved nothing."""
        self.failures += 1

    def delay_ns(self) -> int:
        """Nanoseconds until the next attempt, in [RETRY_FIRST_NS, RETRY_LAST_NS]."""
        doublings = min(max(self.failures - 1, 0), 30)      # beyond 30 the cap holds anyway
        return min(RETRY_FIRST_NS << doublings, RETRY_LAST_NS)
