"""The leases of one task: where each stands, what is out on it, and the ceiling over all of them.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-24 to SCH-26.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.ids import PeerKey
from cocoon.core.limits import RUNS_AHEAD_NS, RUNS_AT_FIRST, RUNS_IN_FLIGHT, USUAL_CEILING_NANOTON
from cocoon.scheduler.spending import LeasePrice, Stake, most_nanoton

#: Of the interval between answers: one of so many counts.
_SMOOTHING = 8


class Step(Enum):
    """Where a lease stands."""

    LEASING = "agreeing on a lease"
    RUNNING = "running"
    LEAVING = "waiting for the last answers of a provider that is given up"


@dataclass(slots=True)
class Attempt:
    """A lease, from its proposal until nothing more is out on it."""

    provider: PeerKey
    price: LeasePrice
    step: Step = Step.LEASING
    out: set[int] = field(default_factory=set)
    accepted: int = 0
    #: Code and text by which it is left.
    leaving: tuple[str, str] = ("", "")
    #: When its last unit was answered, and how long one took of late.
    answered_ns: int | None = None
    interval_ns: int = RUNS_AHEAD_NS // RUNS_AT_FIRST

    @property
    def stake(self) -> Stake:
        """Its part in what the task may come to cost."""
        return Stake(self.price, len(self.out))

    @property
    def room(self) -> int:
        """Units that it takes now, or will when it is open."""
        return 0 if self.step is Step.LEAVING else max(0, self.window - len(self.out))

    @property
    def window(self) -> int:
        """Units that are out on it at a time: as many as it answers in ``RUNS_AHEAD_NS``, within bounds."""
        return max(RUNS_AT_FIRST, min(RUNS_AHEAD_NS // max(1, self.interval_ns), RUNS_IN_FLIGHT))

    def answer(self, now_ns: int) -> None:
        """A unit was answered: several at one moment count as fast as they are."""
        if self.answered_ns is not None:
            self.interval_ns += (now_ns - self.answered_ns - self.interval_ns) // _SMOOTHING
        self.answered_ns = now_ns


@dataclass(slots=True)
class Attempts:
    """``rest`` is everywhere the number of units that have no answer and are on no lease."""

    #: Most leases at a time.
    spread: int
    #: What all leases together may cost; None until a search tells what is usual.
    ceiling_nanoton: int | None
    spent_nanoton: int = 0
    live: dict[int, Attempt] = field(default_factory=dict)

    def at(self, number: int, step: Step) -> bool:
        """Whether this lease is there and stands so."""
        return number in self.live and self.live[number].step is step

    def holds(self, number: int, unit: int) -> bool:
        """Whether this unit is out on this lease."""
        return number in self.live and unit in self.live[number].out

    def have(self, provider: PeerKey) -> bool:
        """Whether one of them is with this provider."""
        return any(one.provider == provider for one in self.live.values())

    @property
    def out(self) -> int:
        """Units that are out."""
        return sum(len(one.out) for one in self.live.values())

    @property
    def running(self) -> int:
        """Leases that take units now."""
        return sum(one.step is Step.RUNNING for one in self.live.values())

    @property
    def windows(self) -> list[int]:
        """Of these leases."""
        return [one.window for one in self.live.values() if one.step is Step.RUNNING]

    def accept(self, now_ns: int, number: int, answers: Iterable[tuple[int, int]]) -> tuple[int, ...]:
        """Take answers of units with their prices in nanoton; which of them were out on this lease."""
        one, taken, prices = self.live[number], list[int](), list[int]()
        for unit, price_nanoton in answers:
            if unit in one.out:
                one.out.remove(unit)
                one.answer(now_ns)
                taken.append(unit)
                prices.append(price_nanoton)
        if taken:
            one.price = one.price.after(prices)
            self.spent_nanoton += sum(prices)
            one.accepted += len(taken)
        return tuple(taken)

    def wants_more(self, rest: int) -> bool:
        """Whether one lease more may be open, and would have something to do."""
        return len(self.live) < self.spread and rest > sum(one.room for one in self.live.values())

    def can_take(self, price: LeasePrice, rest: int) -> bool:
        """Whether the ceiling holds with one lease more at this price."""
        takers = self._takers(rest)
        return self._fits([*takers.values(), Stake(price, 0)], self._others(takers), rest)

    def hand_out(self, waiting: Sequence[int], rest: int) -> dict[int, list[int]]:
        """Put units that wait on leases as these have room; what each got.

        Args:
            rest: With those that wait.
        """
        handed: dict[int, list[int]] = {}
        left = deque(waiting)
        while left and (number := self._roomiest(rest)) is not None:
            one = self.live[number]
            # The ceiling holds for all that a lease without others takes if it holds for one: units cost the same
            # whether they are out on it or in the rest.
            count = min(one.room, len(left)) if len(self.live) == 1 else 1
            units = [left.popleft() for _ in range(count)]
            one.out.update(units)
            handed.setdefault(number, []).extend(units)
            rest -= count
        return handed

    def _roomiest(self, rest: int) -> int | None:
        """The lease that takes the next unit: who has least to do, then who is cheapest."""
        free = [number for number, one in self.live.items() if one.step is Step.RUNNING and one.room]
        if not free:
            return None
        takers = self._takers(rest)
        others = self._others(takers)
        free = [number for number in free if number in takers]
        for number in sorted(free, key=lambda number: (takers[number].out, takers[number].price.rate, number)):
            one_more = Stake(takers[number].price, takers[number].out + 1)
            if self._fits({**takers, number: one_more}.values(), others, rest - 1):
                return number
        return None

    def drop_dear(self, rest: int) -> bool:
        """Give up what gets no further unit under the ceiling and has none, as when a cheaper lease was lost."""
        idle = [number for number, one in self.live.items() if one.step is not Step.LEAVING and not one.out]
        if not idle:
            return False
        takers = self._takers(rest)
        dear = [number for number in idle if number not in takers]
        for number in dear:
            del self.live[number]
        return bool(dear)

    def _takers(self, rest: int) -> dict[int, Stake]:
        """The leases that may get further units: all, or without the dearest ones if the ceiling asks for that."""
        takers = {number: one.stake for number, one in self.live.items() if one.step is not Step.LEAVING}
        while takers and not self._fits(takers.values(), self._others(takers), rest):
            del takers[max(takers, key=lambda number: (takers[number].price.rate, number))]
        return takers

    def _others(self, takers: dict[int, Stake]) -> list[Stake]:
        return [one.stake for number, one in self.live.items() if number not in takers]

    def _fits(self, taking: Iterable[Stake], leaving: Iterable[Stake], rest: int) -> bool:
        """Whether the ceiling holds whatever happens, if further units go to ``taking`` alone (SCH-25)."""
        taking = list(taking)
        if rest and not taking:
            return False
        # Before any search only the prices of warm leases stand, up to this (SCH-19).
        ceiling = USUAL_CEILING_NANOTON if self.ceiling_nanoton is None else self.ceiling_nanoton
        return self.spent_nanoton + most_nanoton(taking, list(leaving), rest) <= ceiling
