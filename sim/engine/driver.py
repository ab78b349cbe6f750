"""The shell around one machine, as ``cocoon.node.driver`` has it: journal first, then the effects, in order.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-1 and SIM-6; machines.md, rule MAC-4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
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


class _Shell(ABC):
    """Sees to it that a machine hears of its deadlines until ``stop``, or until its scope is closed."""

    __slots__ = ("machine", "_scope", "_clock", "_stopped", "_armed_ns", "_told_ns")

    def __init__(self, machine: AnyMachine, scope: Scope, clock: Clockwork) -> None:
        self.machine = machine
        self._scope = scope
        self._clock = clock
        self._stopped = False
        self._armed_ns: int | None = None
        #: The deadline that the machine heard of last.
        self._told_ns: int | None = None

    @abstractmethod
    def post(self, event: Event) -> bool:
        """Hand in a fact; False if the machine has ended and nobody looks at it."""

    def arm(self) -> None:
        """See to it that the machine hears of its deadline; one that moved back is noticed when the old one comes."""
        due_ns = None if self._stopped else self.machine.deadline_ns()
        if due_ns is None or (self._armed_ns is not None and self._armed_ns <= due_ns):
            return
        heap = self._scope.heap
        self._armed_ns = due_ns
        wait_ns = self._clock.world_ns(due_ns) - heap.now_ns
        self._scope.later(max(wait_ns, _AGAIN_NS if due_ns == self._told_ns else 0), self._due, due_ns)

    def stop(self) -> None:
        """Arm no more; what was handed in before still gets its answer."""
        self._stopped = True

    def _due(self, armed_ns: int) -> None:
        if self._stopped or self._armed_ns != armed_ns:
            return
        self._armed_ns = None
        due_ns = self.machine.deadline_ns()
        if due_ns is not None and due_ns <= self._clock.now_ns():
            self._told_ns = due_ns
            self.post(DeadlinePassed())
        else:
            self.arm()

    def _handle(self, event: Event) -> Sequence[Effect]:
        effects = self.machine.handle(self._clock.now_ns(), event)
        self._clock.note(self.machine, event, effects)
        return effects


class Driver(_Shell):
    """Feeds one machine; each fact to its end before the next, however long its orders take."""

    __slots__ = ("_perform", "_record", "_inbox")

    def __init__(
        self, machine: AnyMachine, scope: Scope, clock: Clockwork, perform: Callable[[Effect], Awaitable[None]],
        record: Callable[[Sequence[Effect]], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(machine, scope, clock)
        self._perform, self._record = perform, record
        self._inbox: Work[Event] = Work(scope, self._take)

    def post(self, event: Event) -> bool:
        """As ``_Shell`` has it."""
        if self._stopped:
            return False
        self._inbox.put(event)
        return True

    def _take(self, event: Event) -> Awaitable[None] | None:
        if effects := self._handle(event):
            return self._carry_out(effects)
        self.arm()
        return None

    async def _carry_out(self, effects: Sequence[Effect]) -> None:
        ahead = list(takewhile(lambda effect: not effect.durable, effects))
        for effect in ahead:
            await self._perform(effect)
        if durable := [effect for effect in effects if effect.durable]:
            if self._record is None:
                raise UsageError(f"{type(self.machine).__name__} has durable effects but no journal")
            await self._record(durable)
        for effect in effects[len(ahead) :]:
            await self._perform(effect)
        self.arm()


class Reflex(_Shell):
    """Feeds one machine whose orders wait for nothing: a fact is over when ``post`` returns."""

    __slots__ = ("_perform", "_facts")

    def __init__(
        self, machine: AnyMachine, scope: Scope, clock: Clockwork, perform: Callable[[Effect], None]
    ) -> None:
        super().__init__(machine, scope, clock)
        self._perform = perform
        #: The fact whose orders are carried out, and those that this brought about.
        self._facts: deque[Event] = deque()

    def post(self, event: Event) -> bool:
        """As ``_Shell`` has it."""
        if self._stopped or self._scope.closed:
            return False
        self._facts.append(event)
        if len(self._facts) > 1:
            return True
        while self._facts:
            for effect in self._handle(self._facts[0]):
                self._perform(effect)
            self._facts.popleft()
        self.arm()
        return True
