"""The shell around one machine: an inbox, a clock, and hands.

    events = all facts that wait, or ``DeadlinePassed`` when the machine's own time is up
    effects = machine.handle(now, event), for one after the other
    each effect is performed, in order; what they posted on a link is sent
    before the first that is durable: what all durable ones are about goes into the journal, together

Purity: shell. Spec: docs/spec/machines.md, rule MAC-4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
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
        self._inbox, self._facts = trio.open_memory_channel[Event](INBOX_EVENTS)
        self._stopped = False

    async def post(self, event: Event) -> bool:
        """Hand in a fact; waits while the inbox is full. False if the machine has ended and nobody looks at it."""
        try:
            try:
                self._inbox.send_nowait(event)          # a checkpoint for each of many facts would cost more than they
            except trio.WouldBlock:
                await self._inbox.send(event)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    def hint(self, event: Event) -> None:
        """Hand in a fact that may be lost, and is while half of the inbox is taken: nobody waits for it."""
        if self._facts.statistics().current_buffer_used < INBOX_EVENTS // 2:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                self._inbox.send_nowait(event)

    def stop(self) -> None:
        """End ``run`` after the effects of the facts that were taken."""
        self._stopped = True

    async def run(self) -> None:
        """Feed the machine. The only place where a machine's durable effects are let out."""
        with self._facts:
            while not self._stopped:
                await self._take([await self._next(), *self._waiting()])
            # Whoever was told that his fact was taken gets the machine's answer to it.
            while waiting := self._waiting():
                await self._take(waiting)

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
        return [self._facts.receive_nowait() for _ in range(self._facts.statistics().current_buffer_used)]

    async def _next(self) -> Event:
        deadline_ns = self._machine.deadline_ns()
        if deadline_ns is None:
            return await self._facts.receive()
        wait_s = max(0.0, (deadline_ns - self._clock.now_ns()) / SECOND_NS)
        with trio.move_on_after(wait_s):
            return await self._facts.receive()
        return DeadlinePassed()
