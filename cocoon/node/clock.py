"""The real clock of a peer.

Purity: shell.
"""

from __future__ import annotations

import time

import trio

from cocoon.core.units import SECOND_NS


class MonotonicClock:
    """``core.clock.Clock`` over the operating system's monotonic clock."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds; never falls."""
        return time.monotonic_ns()


def wall_clock_s() -> int:
    """Seconds since 1970, as this machine has it."""
    return int(time.time())


def local_minute() -> int:
    """Minute of the day where this machine stands; for its owner's hours, and nothing else."""
    now = time.localtime()
    return 60 * now.tm_hour + now.tm_min


def wall_ns() -> int:
    """Unix time in nanoseconds, for people (journal rows, logs); never for a decision."""
    return time.time_ns()


def trio_deadline(clock: MonotonicClock, at_ns: int) -> float:
    """The trio time that corresponds to ``at_ns`` of ``clock``."""
    return trio.current_time() + (at_ns - clock.now_ns()) / SECOND_NS
