"""What a shell must offer as its clock; machines get plain integers instead.

Purity: pure (the real clock lives in ``node``).
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Monotonic time of one process."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds since an arbitrary start; never falls."""
