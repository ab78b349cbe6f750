"""The shell around one machine, as ``cocoon.node.driver`` has it: journal first, then the effects, in order.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-1 and SIM-6; machines.md, rule MAC-4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cocoon.core.errors import UsageError
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import MILLISECOND_NS
from sim.engine.flow import Scope, Work

#: A machine whose time is up and that wants no later one is asked again after this.
_AGAIN_NS = MILLISECOND_NS


class AnyMachine(Protocol):
    """A machine over any events."""

    def handle(self, now_ns: int, event: Any) -> Sequence[Effect]: ...

    def deadline_ns(self) -> int | None: ...


class Clockwork(Protocol):
    """Tells a peer's time, and takes note of what its machines do."""

    def now_ns(self) -> int:
        """Monotonic time of the peer."""

    def world_ns(self, peer_ns: int) -> int:
        """When the peer's clock shows this."""

    def note(self, machine: object, event: object, effects: Sequence[object]) -> None:
        """A machine took a fact."""


@dataclass(slots=True, eq=False)
class Driver:
    """Feeds one machine until ``stop``, or until its scope is closed."""

    machine: AnyMachine
    scope: Scope
    clock: Clockwork
    perform: Callable[[Effect], Awaitable[None]]
    record: Callable[[Sequence[Effect]], Awaitable[None]] | None = None
    stopped: bool = False
    _armed_ns: int | None = None
    #: The deadline that the machine heard of last.
    _told_ns: int | None = None
    _inbox: Work[Event] = field(init=False)

    def __post_init__(self) -> None:
        self._inbox = Work(self.scope, self._take)

    def post(self, event: Event) -> bool:
        """Hand in a fact; False if the machine has ended and nobody looks at it."""
        if self.stopped:
            return False
        self._inbox.put(event)
        return True

    def arm(self) -> None:
        """See to it that the machine hears of its deadline; one that moved back is noticed when the old one comes."""
        due_ns = None if self.stopped else self.machine.deadline_ns()
        if due_ns is None or (self._armed_ns is not None and self._armed_ns <= due_ns):
            return
        heap = self.scope.heap
        self._armed_ns = due_ns
        wait_ns = self.clock.world_ns(due_ns) - heap.now_ns
        self.scope.later(max(wait_ns, _AGAIN_NS if due_ns == self._told_ns else 0), self._due, due_ns)

    def stop(self) -> None:
        """Arm no more; what was handed in before still gets its answer."""
        self.stopped = True

    def _due(self, armed_ns: int) -> None:
        if self.stopped or self._armed_ns != armed_ns:
            return
        self._armed_ns = None
        due_ns = self.machine.deadline_ns()
        if due_ns is not None and due_ns <= self.clock.now_ns():
            self._told_ns = due_ns
            self.post(DeadlinePassed())
        else:
            self.arm()

    async def _take(self, event: Event) -> None:
        effects = self.machine.handle(self.clock.now_ns(), event)
        self.clock.note(self.machine, event, effects)
        if durable := [effect for effect in effects if effect.durable]:
            if self.record is None:
                raise UsageError(f"{type(self.machine).__name__} has durable effects but no journal")
            await self.record(durable)
        for effect in effects:
            await self.perform(effect)
        self.arm()
