"""Tasks: what ``cocoon.node.tasks`` does around the task machine, with a user who hands in units as they are asked for.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-20 and SCH-24 to SCH-28; simulation.md, SIM-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cocoon.core.errors import BidExpired, CocoonError
from cocoon.core.ids import LeaseId, TaskId
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.core.machine import Effect, Event
from cocoon.core.units import MILLISECOND_NS
from cocoon.core.values import Value, replace
from cocoon.node import records
from cocoon.scheduler import task
from cocoon.scheduler.attempts import Attempts
from cocoon.scheduler.selection import Quote
from cocoon.wire.judged import Statement
from sim.engine.driver import Driver
from sim.engine.journal import Row
from sim.peers.buying import Buying, Order
from sim.peers.market import Wanted
from sim.peers.models import Model
from sim.peers.purchase import Purchase

_SLOT = 0


class Submission(Value):
    """What a simulated user asks for."""

    model: Model
    units: int
    deadline_ms: int
    spread: int = 1
    ceiling_nanoton: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one lease does of a task; a ``purchase.Customer`` that says which lease speaks."""

    run: TaskRun
    lease: Purchase
    attempt: int

    def delivered(self, unit: int, statement: Statement, salt: bytes) -> None:
        """A verified result."""
        self.run.answers[self.attempt, unit] = statement, salt
        self.run.post(task.UnitsAnswered(self.attempt, (unit,), (statement.price_nanoton,)))

    def denied(self, unit: int, code: str, text: str) -> None:
        """No result for this unit on this lease."""
        self.run.post(task.UnitDenied(self.attempt, unit, code, text))

    def settled(self, numbers: tuple[int, ...]) -> None:
        """A countersigned receipt of the lease, perhaps over runs of other tasks too."""
        self.run.covered |= {(self.lease.id, number) for number in numbers}
        self.run.check_settled()

    def ended(self, code: str, text: str) -> None:
        """The lease is over: what it gave no receipt for is settled as a debt (LEA-16)."""
        run = self.run
        run.over.add(self.lease.id)
        run.owed |= {entry for entry in run.uncovered if entry[0] == self.lease.id}
        run.post(task.LeaseFailed(self.attempt, code, text))
        run.check_settled()


class TaskRun:
    """One task, from submission to its end, over all its leases."""

    def __init__(self, buying: Buying, submission: Submission, id_: TaskId) -> None:
        self.id = id_
        self.peer = peer = buying.peer
        self._buying, self._asked = buying, submission
        self.scope = peer.scope.child()
        self.machine = task.Task(
            submission.units, peer.now_ns() + submission.deadline_ms * MILLISECOND_NS,
            Attempts(submission.spread, submission.ceiling_nanoton),
        )
        self._driver = Driver(self.machine, self.scope, peer, self._perform, self._record)
        self._parts: dict[int, _Part] = {}
        self._ceiling_nanoton = submission.ceiling_nanoton
        self.answers: dict[tuple[int, int], tuple[Statement, bytes]] = {}
        self._delivered = 0
        self.uncovered: set[tuple[bytes, int]] = set()
        self.covered: set[tuple[bytes, int]] = set()
        self.over: set[LeaseId] = set()
        self.owed: set[tuple[bytes, int]] = set()

    def start(self) -> None:
        """Submit it."""
        order = Order(self._asked.model, self._asked.units, self._ceiling_nanoton)
        if order.ceiling_nanoton is None:
            order = replace(order, ceiling_nanoton=USUAL_CEILING_NANOTON)
        warm = self._buying.warm(order)[: self._asked.spread]
        for attempt, lease in enumerate(warm):
            self._parts[attempt] = _Part(self, lease, attempt)
        measure = self._asked.model.measure
        leases = tuple(task.WarmLease(lease.provider, lease.price(measure)) for lease in warm)
        self.post(task.TaskSubmitted(leases))

    def post(self, event: Event) -> None:
        """Tell the machine a fact."""
        if isinstance(event, task.SellersRanked):
            event = replace(event, ceiling_nanoton=self._ceiling_nanoton)
        self._driver.post(event)

    def check_settled(self) -> None:
        """Tell the machine if no receipt is missing that may still come."""
        # What it accepted last may still be on its way to the journal, and counts as missing.
        is_told = self._delivered == self.machine.accepted
        is_settling = self.machine.phase is task.Phase.SETTLING
        if is_settling and is_told and not self.uncovered - self.covered - self.owed:
            self.post(task.ReceiptsSettled())

    async def _record(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, task.AcceptUnits):
                self._parts[effect.attempt].lease.tally.record([
                    self._accepted(effect.attempt, unit) for unit in effect.units
                ])

    def _accepted(self, attempt: int, unit: int) -> Row:
        lease, (statement, salt) = self._parts[attempt].lease, self.answers[attempt, unit]
        entry = records.UnitAccepted(
            task=self.id, unit=unit, slot=_SLOT, provider=lease.provider, lease=lease.id, number=statement.number,
            price_nanoton=statement.price_nanoton, salt=salt, statement=statement.pack(),
        )
        return Row(records.UNIT_ACCEPTED, entry.pack(), records.unit_key(self.id, unit, _SLOT))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case task.FindSellers():
                self.peer.spawn(self._find())
            case task.OpenLease(attempt, quote):
                self.peer.ground.checks.task_matched(self.id)
                self.peer.spawn(self._open(attempt, quote))
            case task.GrantCredit(count):
                self.post(task.UnitsArrived(count))
            case task.OrderRuns(attempt, units):
                part = self._parts[attempt]
                part.lease.order(self.id, {unit: self.id + unit.to_bytes(4, "big") for unit in units}, part)
            case task.AcceptUnits(attempt, units):
                for unit in units:
                    self._deliver(attempt, unit)
            case task.CloseTranche():
                for part in self._parts.values():
                    if not part.lease.gone.came:
                        part.lease.close_tranche()
                self.check_settled()
            case task.EndTask(code, text):
                self._end(code, text)

    def _deliver(self, attempt: int, unit: int) -> None:
        lease, (statement, _) = self._parts[attempt].lease, self.answers.pop((attempt, unit))
        self._delivered += 1
        (self.owed if lease.id in self.over else self.uncovered).add((lease.id, statement.number))
        self.peer.ground.checks.unit_accepted(self.id, unit, _SLOT, lease.provider, statement.price_nanoton)

    def _end(self, code: str | None, text: str) -> None:
        self._driver.stop()
        for part in self._parts.values():
            part.lease.forget(self.id)
        self.peer.ground.checks.task_ended(self.id, code, text)
        self.scope.close()

    # --- the market ----------------------------------------------------------------

    async def _find(self) -> None:
        sold, is_cold = await self._buying.market.buy(Wanted(
            self._asked.model, self._units_left, self._ms_left, self._left_nanoton, self.machine.spurned
        ))
        self.peer.ground.checks.tasks[self.id].is_cold |= is_cold
        if self._ceiling_nanoton is None and sold.quotes:
            self._ceiling_nanoton = sold.ceiling_nanoton
        self.post(task.SellersRanked(sold.verdict, missed=sold.missed))

    async def _open(self, attempt: int, quote: Quote) -> None:
        rest = Order(self._asked.model, self._units_left, self._left_nanoton, frozenset(self.machine.spurned))
        try:
            if self.peer.now_ns() >= quote.binds_until_ns:
                raise BidExpired("the bid was made too long ago")
            lease = await self._buying.open(quote, rest)
        except CocoonError as error:
            self.post(task.LeaseFailed(attempt, error.code, error.text))
        else:
            self._parts[attempt] = _Part(self, lease, attempt)
            self.post(task.LeaseOpened(attempt, lease.price(self._asked.model.measure)))

    @property
    def _ms_left(self) -> int:
        return max(1, (self.machine.deadline_at_ns - self.peer.now_ns()) // MILLISECOND_NS)

    @property
    def _units_left(self) -> int:
        return self._asked.units - self.machine.accepted - self.machine.failed

    @property
    def _left_nanoton(self) -> int | None:
        if self._ceiling_nanoton is None:
            return None
        return max(0, self._ceiling_nanoton - self.machine.attempts.spent_nanoton)
