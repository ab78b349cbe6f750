"""Tasks: the shell around each task machine, between the user, the market and a lease.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-18.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import trio

from cocoon.core.errors import CeilingExceeded, CocoonError, from_code
from cocoon.core.groups import single_error
from cocoon.core.ids import LeaseId, TaskId, peer_id
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.core.machine import Effect, Event
from cocoon.core.units import MILLISECOND_NS
from cocoon.node import records
from cocoon.node.asking import gather_offers
from cocoon.node.buying import Buyer
from cocoon.node.driver import Driver
from cocoon.node.means import Order, Purse
from cocoon.node.purchase import Answer, Purchase, Say
from cocoon.scheduler import task
from cocoon.scheduler.selection import Demand, Quote, Ranked, expected_cost_nanoton, rank, usual_ceiling_nanoton
from cocoon.store.service import Row
from cocoon.wire.messages import Receipt
from cocoon.wire.signing import Signed

#: Slot of every unit until redundancy and hedging come.
_SLOT = 0

@dataclass(frozen=True, slots=True)
class Submission:
    """What a user asked for."""

    order: Order
    units: int
    deadline_ms: int


@dataclass(slots=True)
class _Outcome:
    """What is told at the end."""

    price_nanoton: int = 0
    receipts: list[str] = field(default_factory=list)
    provider: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one lease does of a task; a ``purchase.Customer`` that says which lease speaks."""

    run: TaskRun
    lease: Purchase
    attempt: int

    async def delivered(self, unit: int, answer: Answer) -> None:
        """A verified result."""
        await self.run.delivered(self.lease, unit, answer)

    async def denied(self, unit: int, code: str, text: str) -> None:
        """No result for this unit on this lease."""
        await self.run.post(task.UnitDenied(self.attempt, unit, code, text))

    async def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A countersigned receipt of the lease, perhaps over runs of other tasks too."""
        self.run.settled(receipt, numbers)

    async def ended(self, code: str, text: str) -> None:
        """The lease is over."""
        await self.run.over(self)
        await self.run.post(task.LeaseFailed(self.attempt, code, text))


class TaskRun:
    """One task, from submission to its end, on one lease after the other."""

    def __init__(self, purse: Purse, buyer: Buyer, submission: Submission, say: Say) -> None:
        now_ns = purse.clock.now_ns()
        self.id = TaskId(os.urandom(16))
        self._purse = purse
        self._buyer = buyer
        self._order = submission.order
        self._units = submission.units
        self._say = say
        self._machine = task.Task(submission.units, now_ns + submission.deadline_ms * MILLISECOND_NS)
        self._driver = Driver(self._machine, purse.clock, self._perform, self._record)
        #: The lease of each attempt.
        self._parts: dict[int, _Part] = {}
        #: What the whole task may cost, once that is known.
        self._ceiling_nanoton = submission.order.ceiling_nanoton
        self._inputs: dict[int, bytes] = {}
        self._answers: dict[int, tuple[Purchase, Answer]] = {}
        self._uncovered: set[tuple[bytes, int]] = set()
        self._covered: set[tuple[bytes, int]] = set()
        self._over: set[LeaseId] = set()
        #: Accepted results under no receipt when their lease ended; owed for until its lane expires.
        self._owed: set[tuple[bytes, int]] = set()
        self._outcome = _Outcome()
        self._error: CocoonError | None = None
        self._nursery: trio.Nursery

    async def run(self) -> dict[str, object]:
        """Drive the task to its end.

        Returns:
            The closing summary for the user.

        Raises:
            CocoonError: the task failed; the code says why.
        """
        try:
            with single_error():
                await self._drive()
        finally:
            for part in self._parts.values():
                part.lease.forget(self.id)
        if self._error is not None:
            raise self._error
        return {
            "task": self.id, "units": self._units, "failed": self._machine.failed,
            "receipts": self._outcome.receipts, "price_nanoton": self._outcome.price_nanoton,
            "provider": self._outcome.provider or "", "unreceipted": len(self._owed - self._covered),
        }

    def _bounded(self) -> Order:
        """The order as a warm lease may take it: the price is agreed on already, not just any bill (SCH-19)."""
        order = self._order
        return order if order.ceiling_nanoton is not None else replace(order, ceiling_nanoton=USUAL_CEILING_NANOTON)

    async def _drive(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            warm = self._buyer.warm(self._bounded())
            if warm is not None:
                self._parts[0] = _Part(self, warm, 0)
                await self._tell_lease(warm, warm=True)
            await self.post(task.TaskSubmitted(None if warm is None else warm.provider))
            await self._driver.run()
            nursery.cancel_scope.cancel()

    async def arrived(self, unit: int, inputs: bytes) -> None:
        """The user handed in the next unit."""
        self._inputs[unit] = inputs
        await self.post(task.UnitArrived())

    async def fault(self, code: str, text: str) -> None:
        """The user went away, or broke the conversation."""
        await self.post(task.TaskFaulted(code, text))

    async def post(self, event: Event) -> None:
        """Tell the machine a fact."""
        await self._driver.post(event)

    # --- what a lease tells ------------------------------------------------

    async def delivered(self, lease: Purchase, unit: int, answer: Answer) -> None:
        """A verified result of this task's unit."""
        self._answers[unit] = (lease, answer)
        await self.post(task.UnitAnswered(unit))

    def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A countersigned receipt."""
        # Not said from here: the caller reads the link, and a slow user must not hold it up.
        self._nursery.start_soon(self._tell_receipt, receipt, numbers)

    async def _tell_receipt(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        lease = receipt.message.lease
        for first, count in stretches(sorted(numbers)):
            await self._say({
                "event": "receipt", "hash": receipt.digest, "seq": receipt.message.seq, "lease": lease,
                "first_number": first, "runs": count, "verified": True,
            })
        self._covered |= {(lease, number) for number in numbers}
        self._outcome.receipts.append(receipt.digest.hex())
        await self._check_settled()

    async def over(self, part: _Part) -> None:
        """Nothing comes on this lease any more: what it gave no receipt for is settled as a debt (LEA-16)."""
        lease = part.lease.id
        self._over.add(lease)
        self._owed |= {entry for entry in self._uncovered if entry[0] == lease}
        if part.attempt != self._machine.attempt:       # else the machine says what that means
            await self._check_settled()

    async def _check_settled(self) -> None:
        if self._machine.phase is task.Phase.SETTLING and not self._uncovered - self._covered - self._owed:
            await self.post(task.ReceiptsSettled())

    # --- what the task machine orders --------------------------------------

    async def _record(self, effects: Sequence[Effect]) -> None:
        await self._purse.journal.append_many([
            self._accepted(effect.unit) for effect in effects if isinstance(effect, task.AcceptUnit)
        ])

    def _accepted(self, unit: int) -> Row:
        lease, answer = self._answers[unit]
        entry = records.UnitAccepted(
            task=self.id, unit=unit, slot=_SLOT, provider=lease.provider, lease=lease.id,
            number=answer.statement.number, price_nanoton=answer.statement.price_nanoton, salt=answer.salt,
            statement=answer.statement.pack(),
        )
        return Row(records.UNIT_ACCEPTED, entry.pack(), records.unit_key(self.id, unit, _SLOT))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case task.FindSellers():
                await self._say({"event": "discovering"})
                self._nursery.start_soon(self._find)
            case task.OpenLease(attempt, quote):
                self._nursery.start_soon(self._open, attempt, quote)
            case task.GrantCredit(count):
                await self._say({"event": "credit", "count": count})
            case task.OrderRun(attempt, unit):
                part = self._parts[attempt]             # the machine orders only on an open lease
                await part.lease.order(self.id, unit, self._inputs[unit], part)
            case task.AcceptUnit(unit):
                await self._deliver(unit)
            case task.ReportFailure(unit, code, text):
                self._inputs.pop(unit, None)
                await self._say({"event": "failed", "unit": unit, "code": code, "text": text})
            case task.CloseTranche():
                for lease in {part.lease for part in self._parts.values() if not part.lease.over}:
                    self._nursery.start_soon(lease.close_tranche)
                await self._check_settled()
            case task.EndTask(code, text):
                self._error = None if code is None else from_code(code, text)
                self._driver.stop()

    async def _find(self) -> None:
        purse, order = self._purse, self._order
        gathered = await gather_offers(
            purse.mesh, purse.network, order.kind, purse.clock, self._machine.spurned, gossip=purse.gossip,
            demand=Demand(order.kind, order.model.size_bytes, self._units_left, 0),
            reliability_ppm=purse.regard.reliability_ppm,
        )
        if self._ceiling_nanoton is None and gathered.quotes:
            self._ceiling_nanoton = usual_ceiling_nanoton([quote.offer for quote in gathered.quotes], self._units)
        ceiling_nanoton = self._left_nanoton or 0
        demand = Demand(order.kind, order.model.size_bytes, self._units_left, ceiling_nanoton)
        verdict = rank(list(gathered.quotes), demand, purse.regard.reliability_ppm)
        chosen = verdict.quotes[0] if isinstance(verdict, Ranked) else None
        await self._say({
            "event": "offers", "count": len(gathered.quotes), "ceiling_nanoton": ceiling_nanoton,
            "chosen": {} if chosen is None else self._brief(chosen),
            "missed": [{"provider": peer_id(who), "code": code} for who, code in gathered.missed],
        })
        await self.post(task.SellersRanked(verdict, len(gathered.quotes) + len(gathered.missed)))

    @property
    def _units_left(self) -> int:
        return self._units - self._machine.accepted - self._machine.failed

    @property
    def _left_nanoton(self) -> int | None:
        """What the rest of the task may cost; None while there is no ceiling."""
        if self._ceiling_nanoton is None:
            return None
        return max(0, self._ceiling_nanoton - self._outcome.price_nanoton)

    def _brief(self, quote: Quote) -> dict[str, object]:
        return {
            "provider": peer_id(quote.provider), "offer": quote.digest,
            "expected_nanoton": expected_cost_nanoton(quote.offer, self._units),
            "setup_nanoton": quote.offer.setup_nanoton, "run_nanoton_per_1000": dict(quote.offer.prices).get(1, 0),
            "device": quote.profile.device, "engine": quote.profile.engine,
            "reliability_ppm": self._purse.regard.reliability_ppm(quote.provider),
        }

    async def _open(self, attempt: int, quote: Quote) -> None:
        units, left = self._units_left, self._left_nanoton
        rest = replace(
            self._order, units=units, ceiling_nanoton=left, without=frozenset(self._machine.spurned)
        )
        cost = expected_cost_nanoton(quote.offer, units)
        try:
            if left is not None and cost > left:        # it was ranked before something was paid elsewhere
                raise CeilingExceeded(f"{units} units cost {cost} nanoton there, {left} are left")
            lease = await self._buyer.open(quote, rest, self._say)
        except CocoonError as error:
            self._purse.log.info("lease_failed", provider=quote.provider, code=error.code)
            await self.post(task.LeaseFailed(attempt, error.code, error.text))
        else:
            self._parts[attempt] = _Part(self, lease, attempt)
            await self._tell_lease(lease, warm=False)
            await self.post(task.LeaseOpened(attempt))

    async def _tell_lease(self, lease: Purchase, *, warm: bool) -> None:
        self._outcome.provider = peer_id(lease.provider)
        await self._say({"event": "lease", "provider": peer_id(lease.provider), "lease": lease.id, "warm": warm})

    async def _deliver(self, unit: int) -> None:
        lease, answer = self._answers.pop(unit)
        self._inputs.pop(unit, None)
        statement = answer.statement
        (self._owed if lease.id in self._over else self._uncovered).add((lease.id, statement.number))
        self._outcome.price_nanoton += statement.price_nanoton
        await self._say({
            "event": "result", "unit": unit, "outputs": answer.outputs, "salt": answer.salt,
            "provider": peer_id(lease.provider), "lease": lease.id, "number": statement.number,
            "price_nanoton": statement.price_nanoton, "ran_us": statement.ran_us,
            "input_hash": statement.input, "output_hash": statement.output,
        })


def stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut ascending numbers into runs without gaps: (first, count)."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            yield numbers[start], index - start
            start = index
