"""The machine contract: facts in, orders out, time as an argument.

A machine holds one protocol's state. It never reads a clock, draws randomness
or does IO; what it needs of these arrives inside events. The live peer and the
simulator drive the same machines.

Purity: pure. Spec: docs/spec/machines.md, rules MAC-1 to MAC-5.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeVar

from cocoon.core.values import Value


class Event(Value):
    """A fact that has happened. Subclasses are named in the past tense."""


class Effect(Value):
    """An order to the shell. Subclasses are named in the imperative.

    ``durable`` marks an effect that may leave only after the event that caused
    it is in the journal (MAC-4). Effects are idempotent by the ids they carry.
    """

    durable: ClassVar[bool] = False


class DeadlinePassed(Event):
    """The machine's own deadline was reached; may come late or twice."""


E = TypeVar("E", contravariant=True)
F = TypeVar("F")


class Machine(Protocol[E, F]):
    """What the shell and the simulator ask of every protocol."""

    def handle(self, now_ns: int, event: E) -> list[F]:
        """Take one fact and return the orders that follow, in order.

        Args:
            now_ns: Monotonic nanoseconds; never falls from call to call.
        """

    def deadline_ns(self) -> int | None:
        """When ``DeadlinePassed`` is due, or None while nothing waits."""
