"""The end of patience for what nearly always ends in time: one sleeper for all who set an alarm.

A cancel scope with a deadline of its own costs fifty calls of Python, half of the way to a worker
and back that it guards. An alarm that is off again before it rings costs a comparison.

Invariants
    An alarm that is set rings once, at its time or soon after, unless it is turned off or set anew.
    The sleeper holds an entry for an alarm, and another one for each time that it was set to ring earlier than before.

Purity: shell.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf

import trio


class Alarm:
    """One that is set again and again by the same owner, inside one trio run."""

    __slots__ = ("ring", "at_s", "seen_s", "_sleeper")

    def __init__(self, ring: Callable[[], None]) -> None:
        """``ring`` is called from nobody's task: it waits for nothing and raises nothing."""
        self.ring = ring
        #: By trio's clock.
        self.at_s = inf
        #: When the sleeper looks at it next.
        self.seen_s = inf
        self._sleeper: _Sleeper | None = None

    def set(self, at_s: float) -> None:
        """Ring then, and not when it was to ring before."""
        self.at_s = at_s
        if at_s < self.seen_s:
            self._sleeper = self._sleeper or _sleeper()
            self._sleeper.look(self, at_s)

    def off(self) -> None:
        """Do not ring."""
        self.at_s = inf

    def end(self) -> None:
        """Never ring again, and hold nothing of the owner's."""
        self.off()
        self.ring = _nothing


def _nothing() -> None:
    """What an alarm does that has ended."""


class _Sleeper:
    """Looks at alarms when their time has come."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._asleep = trio.CancelScope()

    def look(self, alarm: Alarm, at_s: float) -> None:
        """See to this one then."""
        alarm.seen_s = at_s
        heappush(self._looks, (at_s, next(self._order), alarm))
        if self._looks[0][0] == at_s:
            self._asleep.deadline = at_s

    async def run(self) -> None:
        """Until the trio run ends."""
        while True:
            with self._asleep:
                await trio.sleep_forever()
            self._asleep = trio.CancelScope()
            self._ring(trio.current_time())
            if self._looks:
                self._asleep.deadline = self._looks[0][0]

    def _ring(self, now_s: float) -> None:
        while self._looks and self._looks[0][0] <= now_s:
            at_s, _, alarm = heappop(self._looks)
            if alarm.seen_s != at_s:                    # it was set to ring earlier, and seen to then
                continue
            alarm.seen_s = inf
            if alarm.at_s <= now_s:
                alarm.off()
                alarm.ring()
            elif alarm.at_s != inf:
                self.look(alarm, alarm.at_s)


_SLEEPER: trio.lowlevel.RunVar[_Sleeper] = trio.lowlevel.RunVar("sleeper")


def _sleeper() -> _Sleeper:
    """Of this trio run."""
    try:
        return _SLEEPER.get()
    except LookupError:
        _SLEEPER.set(sleeper := _Sleeper())
        trio.lowlevel.spawn_system_task(sleeper.run)
        return sleeper
