"""The shell around one machine: an inbox, a clock, and hands.

    events = all facts that wait, or ``DeadlinePassed`` when the machine's own time is up
    effects = machine.handle(now, event), for one after the other
    each effect is performed, in order; what they posted on a link is sent
    before the first that is durable: what all durable ones are about goes into the journal, together

Purity: shell. Spec: docs/spec/machines.md, rule MAC-4.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Protocol

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import UsageError
from cocoon.core.limits import PROVIDERS_ASKED, RUNS_IN_FLIGHT
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS

#: Facts waiting for one machine. Producers block when it is full, so this bounds memory. Twice the runs that a task
#: can have on all its leases: a client that does not read holds up its own task, and no lease that others use too.
INBOX_EVENTS = 2 * PROVIDERS_ASKED * RUNS_IN_FLIGHT


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
                if await self._late():
                    await self._take([DeadlinePassed(), *self._waiting()])
            # Whoever was told that his fact was taken gets the machine's answer to it.
            while waiting := self._waiting():
                await self._take(waiting)
        finally:
            self._ended = True
            self._taken.set()

    def _put(self, event: Event) -> bool:
        if not self._ended:
            self._inbox.append(event)
            self._came.set()
        return not self._ended

    async def _late(self) -> bool:
        """Take facts until the machine's time is up (True), or until ``stop``."""
        with trio.CancelScope() as patience:            # one for many facts: to make it costs as much as to take one
            while not self._stopped:
                patience.deadline = self._due_s()
                await self._came.wait()
                patience.deadline = math.inf
                if patience.cancel_called:              # both at once: what is to be done now must not be cancelled
                    return False
                await self._take(self._waiting())
        return patience.cancelled_caught

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
        return waiting

    def _due_s(self) -> float:
        """When the machine's time is up, by trio's clock."""
        deadline_ns = self._machine.deadline_ns()
        if deadline_ns is None:
            return math.inf
        return trio.current_time() + max(0, deadline_ns - self._clock.now_ns()) / SECOND_NS
