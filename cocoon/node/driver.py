"""The shell around one machine: an inbox, a clock, and hands.

    events = all facts that wait, or ``DeadlinePassed`` when the machine's own time is up
    effects = machine.handle(now, event), for one after the other
    each effect is performed, in order; what they posted on a link is sent
    before the first that is durable: what all durable ones are about goes into the journal, together

Purity: shell. Spec: docs/spec/machines.md, rule MAC-4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Protocol

import trio

from cocoon.core.alarms import Alarm
from cocoon.core.clock import Clock
from cocoon.core.errors import UsageError
from cocoon.core.limits import PROVIDERS_ASKED, RUNS_IN_FLIGHT
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS

#: Facts waiting for one machine. Producers block when it is full, so this bounds memory. Twice the runs that a task
#: can have on all its leases: a client that does not read holds up its own task, and no lease that others use too.
INBOX_EVENTS = 2 * PROVIDERS_ASKED * RUNS_IN_FLIGHT
#: As no machine's time.
_NEVER = -1


class AnyMachine(Protocol):
    """A machine over any events; each ignores those of others."""

    def handle(self, now_ns: int, event: Event) -> Sequence[Effect]: ...

    def deadline_ns(self) -> int | None: ...


class Driver:
    """Feeds one machine until ``stop`` is called from an effect, or the task is cancelled."""

    def __init__(
        self,
        machine: AnyMachine,
        clock: Clock,
        perform: Callable[[Effect], Awaitable[None]],
        record: Callable[[Sequence[Effect]], Awaitable[None]] | None = None,
        flush: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._perform = perform
        self._record = record
        self._flush = flush
        self._inbox: deque[Event] = deque()
        #: A fact is there; and, for who waits for it, that there is room for another.
        self._came, self._taken = trio.Event(), trio.Event()
        self._stopped = self._ended = False
        #: Rings when the machine's own time is up.
        self._alarm, self._is_late = Alarm(self._ring), False
        #: The time that it was set for.
        self._armed_ns: int | None = _NEVER

    async def post(self, event: Event) -> bool:
        """Hand in a fact; waits while the inbox is full. False if the machine has ended and nobody looks at it."""
        while len(self._inbox) >= INBOX_EVENTS and not self._ended:
            await self._taken.wait()
        return self._put(event)

    def hint(self, event: Event) -> None:
        """Hand in a fact that may be lost, and is while half of the inbox is taken: nobody waits for it."""
        if len(self._inbox) < INBOX_EVENTS // 2:
            self._put(event)

    def stop(self) -> None:
        """End ``run`` after the effects of the facts that were taken."""
        self._stopped = True

    async def run(self) -> None:
        """Feed the machine. The only place where a machine's durable effects are let out."""
        try:
            while not self._stopped:
                self._arm()
                await self._came.wait()
                await self._take(self._waiting())
            # Whoever was told that his fact was taken gets the machine's answer to it.
            while waiting := self._waiting():
                await self._take(waiting)
        finally:
            self._ended = True
            self._taken.set()
            self._alarm.end()

    def _put(self, event: Event) -> bool:
        if not self._ended:
            self._inbox.append(event)
            self._came.set()
        return not self._ended

    def _arm(self) -> None:
        """See to it that the machine hears when its time is up."""
        due_ns = self._machine.deadline_ns()
        if due_ns == self._armed_ns:
            return
        self._armed_ns = due_ns
        if due_ns is None:
            self._alarm.off()
        else:
            self._alarm.set(trio.current_time() + max(0, due_ns - self._clock.now_ns()) / SECOND_NS)

    def _ring(self) -> None:
        self._armed_ns, self._is_late = _NEVER, True
        self._came.set()

    async def _take(self, events: Sequence[Event]) -> None:
        effects: list[Effect] = []
        for event in events:
            effects += self._machine.handle(self._clock.now_ns(), event)
        ahead = list(takewhile(lambda effect: not effect.durable, effects))
        for effect in ahead:                            # the disk has nothing to do with it
            await self._perform(effect)
        if durable := [effect for effect in effects if effect.durable]:
            if self._record is None:
                raise UsageError(f"{type(self._machine).__name__} has durable effects but no journal")
            await self._record(durable)
        for effect in effects[len(ahead) :]:
            await self._perform(effect)
        if effects and self._flush is not None:
            await self._flush()

    def _waiting(self) -> list[Event]:
        """All facts that wait; taken."""
        waiting, self._came = list(self._inbox), trio.Event()
        self._inbox.clear()
        if len(waiting) >= INBOX_EVENTS:
            self._taken.set()
            self._taken = trio.Event()
        if self._is_late:                               # unless its time has moved since
            self._is_late, due_ns = False, self._machine.deadline_ns()
            if due_ns is not None and due_ns <= self._clock.now_ns():
                waiting.insert(0, DeadlinePassed())
        return waiting
