"""Tasks: the shell around each task machine, between the user, the market and a lease.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-18.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import trio

from cocoon.core.errors import CocoonError, from_code
from cocoon.core.groups import single_error
from cocoon.core.ids import TaskId, peer_id
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.core.machine import Effect
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


class TaskRun:
    """One task, from submission to its end. A ``purchase.Customer``."""

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
        self._lease: Purchase | None = None
        self._inputs: dict[int, bytes] = {}
        self._answers: dict[int, tuple[Purchase, Answer]] = {}
        self._uncovered: set[tuple[bytes, int]] = set()
        self._covered: set[tuple[bytes, int]] = set()
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
        self._lease = self._buyer.warm(self._bounded())
        try:
            with single_error():
                await self._drive()
        finally:
            if self._lease is not None:
                self._lease.forget(self.id)
        if self._error is not None:
            raise self._error
        return {
            "task": self.id, "units": self._units, "failed": self._machine.failed,
            "receipts": self._outcome.receipts, "price_nanoton": self._outcome.price_nanoton,
            "provider": self._outcome.provider or "",
        }

    def _bounded(self) -> Order:
        """The order as a warm lease may take it: the price is agreed on already, not just any bill (SCH-19)."""
        order = self._order
        return order if order.ceiling_nanoton is not None else replace(order, ceiling_nanoton=USUAL_CEILING_NANOTON)

    async def _drive(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._lease is not None:
                await self._tell_lease(self._lease, warm=True)
            await self._driver.post(task.TaskSubmitted(self._lease is not None))
            await self._driver.run()
            nursery.cancel_scope.cancel()

    async def arrived(self, unit: int, inputs: bytes) -> None:
        """The user handed in the next unit."""
        self._inputs[unit] = inputs
        await self._driver.post(task.UnitArrived())

    async def fault(self, code: str, text: str) -> None:
        """The user went away, or broke the conversation."""
        await self._driver.post(task.TaskFaulted(code, text))

    # --- what the lease tells ----------------------------------------------

    async def delivered(self, unit: int, answer: Answer) -> None:
        """A verified result of this task's unit."""
        assert self._lease is not None                  # only an ordered unit is delivered
        self._answers[unit] = (self._lease, answer)
        await self._driver.post(task.UnitAnswered(unit))

    async def denied(self, unit: int, code: str, text: str) -> None:
        """No result for this unit on this lease."""
        await self._driver.post(task.UnitDenied(unit, code, text))

    async def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A countersigned receipt of the lease, perhaps over runs of other tasks too."""
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

    async def ended(self, code: str, text: str) -> None:
        """The lease is over."""
        await self._driver.post(task.LeaseFailed(code, text))

    async def _check_settled(self) -> None:
        if self._machine.phase is task.Phase.SETTLING and not self._uncovered - self._covered:
            await self._driver.post(task.ReceiptsSettled())

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
            case task.OpenLease(quote):
                self._nursery.start_soon(self._open, quote)
            case task.GrantCredit(count):
                await self._say({"event": "credit", "count": count})
            case task.OrderRun(unit):
                assert self._lease is not None          # the machine orders only on an open lease
                await self._lease.order(self.id, unit, self._inputs[unit], self)
            case task.AcceptUnit(unit):
                await self._deliver(unit)
            case task.ReportFailure(unit, code, text):
                self._inputs.pop(unit, None)
                await self._say({"event": "failed", "unit": unit, "code": code, "text": text})
            case task.CloseTranche():
                assert self._lease is not None          # something was answered, so there is a lease
                self._nursery.start_soon(self._lease.close_tranche)
                await self._check_settled()
            case task.EndTask(code, text):
                self._error = None if code is None else from_code(code, text)
                self._driver.stop()

    async def _find(self) -> None:
        order = self._order
        gathered = await gather_offers(self._purse.mesh, self._purse.network, order.kind, self._purse.clock)
        ceiling_nanoton = order.ceiling_nanoton
        if ceiling_nanoton is None:
            ceiling_nanoton = usual_ceiling_nanoton([quote.offer for quote in gathered.quotes], self._units)
        demand = Demand(order.kind, order.model.size_bytes, self._units, ceiling_nanoton)
        verdict = rank(list(gathered.quotes), demand)
        chosen = verdict.quotes[0] if isinstance(verdict, Ranked) else None
        await self._say({
            "event": "offers", "count": len(gathered.quotes), "ceiling_nanoton": ceiling_nanoton,
            "chosen": {} if chosen is None else self._brief(chosen),
            "missed": [{"provider": peer_id(who), "code": code} for who, code in gathered.missed],
        })
        await self._driver.post(task.SellersRanked(verdict, len(gathered.quotes) + len(gathered.missed)))

    def _brief(self, quote: Quote) -> dict[str, object]:
        return {
            "provider": peer_id(quote.provider), "offer": quote.digest,
            "expected_nanoton": expected_cost_nanoton(quote.offer, self._units),
            "setup_nanoton": quote.offer.setup_nanoton, "run_nanoton_per_1000": dict(quote.offer.prices).get(1, 0),
            "device": quote.profile.device, "engine": quote.profile.engine,
        }

    async def _open(self, quote: Quote) -> None:
        try:
            lease = await self._buyer.open(quote, self._order, self._say)
        except CocoonError as error:
            self._purse.log.info("lease_failed", provider=quote.provider, code=error.code)
            await self._driver.post(task.LeaseFailed(error.code, error.text))
        else:
            self._lease = lease
            await self._tell_lease(lease, warm=False)
            await self._driver.post(task.LeaseOpened())

    async def _tell_lease(self, lease: Purchase, *, warm: bool) -> None:
        self._outcome.provider = peer_id(lease.provider)
        await self._say({"event": "lease", "provider": peer_id(lease.provider), "lease": lease.id, "warm": warm})

    async def _deliver(self, unit: int) -> None:
        lease, answer = self._answers.pop(unit)
        self._inputs.pop(unit, None)
        statement = answer.statement
        self._uncovered.add((lease.id, statement.number))
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
