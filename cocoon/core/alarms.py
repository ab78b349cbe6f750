"""The end of patience for what nearly always ends in time: one sleeper for all who set an alarm.

A cancel scope with a deadline of its own costs fifty calls of Python, half of the way to a worker
and back that it guards. An alarm that is off again before it rings costs a comparison.

Invariants
    An alarm that is set rings once, at its time or soon after, unless it is turned off or set anew.
    The sleeper holds an entry for an alarm, and another one for each time that it was set to ring earlier than before.

Purity: shell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import trio

from cocoon.core.units import SECOND_NS

_NEVER_NS = 1 << 63


class Alarm:
    """One that is set again and again by the same owner, inside one trio run."""

    __slots__ = ("ring", "at_ns", "seen_ns", "_sleeper")

    def __init__(self, ring: Callable[[], None]) -> None:
        """``ring`` is called from nobody's task: it waits for nothing and raises nothing."""
        self.ring = ring
        #: On the monotonic clock.
        self.at_ns = _NEVER_NS
        #: When the sleeper looks at it next.
        self.seen_ns = _NEVER_NS
        self._sleeper: _Sleeper | None = None

    def set(self, at_ns: int) -> None:
        """Ring then, and not when it was to ring before."""
        self.at_ns = at_ns
        if at_ns < self.seen_ns:
            self._sleeper = self._sleeper or _sleeper()
            self._sleeper.look(self, at_ns)

    def off(self) -> None:
        """Do not ring."""
        self.at_ns = _NEVER_NS

    def end(self) -> None:
        """Never ring again, and hold nothing of the owner's."""
        self.off()
        self.ring = _nothing


def _nothing() -> None:
    """What an alarm does that has ended."""


class _Sleeper:
    """Looks at alarms when their time has come."""

    def __init__(self) -> None:
        self._looks: list[tuple[int, int, Alarm]] = []
        self._order = count()
        self._asleep = trio.CancelScope()

    def look(self, alarm: Alarm, at_ns: int) -> None:
        """See to this one then."""
        alarm.seen_ns = at_ns
        heappush(self._looks, (at_ns, next(self._order), alarm))
        if self._looks[0][0] == at_ns:
            self._wake_at(at_ns)

    async def run(self) -> None:
        """Until the trio run ends."""
        while True:
            with self._asleep:
                await trio.sleep_forever()
            self._asleep = trio.CancelScope()
            self._ring(time.monotonic_ns())
            if self._looks:
                self._wake_at(self._looks[0][0])

    def _ring(self, now_ns: int) -> None:
        while self._looks and self._looks[0][0] <= now_ns:
            at_ns, _, alarm = heappop(self._looks)
            if alarm.seen_ns != at_ns:                  # it was set to ring earlier, and seen to then
                continue
            alarm.seen_ns = _NEVER_NS
            if alarm.at_ns <= now_ns:
                alarm.off()
                alarm.ring()
            elif alarm.at_ns != _NEVER_NS:
                self.look(alarm, alarm.at_ns)

    def _wake_at(self, at_ns: int) -> None:
        self._asleep.deadline = trio.current_time() + (at_ns - time.monotonic_ns()) / SECOND_NS


_SLEEPER: trio.lowlevel.RunVar[_Sleeper] = trio.lowlevel.RunVar("sleeper")


def _sleeper() -> _Sleeper:
    """Of this trio run."""
    try:
        return _SLEEPER.get()
    except LookupError:
        _SLEEPER.set(sleeper := _Sleeper())
        trio.lowlevel.spawn_system_task(sleeper.run)
        return sleeper
