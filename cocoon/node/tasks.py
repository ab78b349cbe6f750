"""Tasks: the shell around each task machine, between the user, the market and a lease.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-20 and SCH-24 to SCH-28.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from cocoon.core.errors import BidExpired, CocoonError, LimitExceeded, from_code
from cocoon.core.groups import single_error
from cocoon.core.ids import LeaseId, PeerKey, TaskId, peer_id
from cocoon.core.limits import JOURNAL_BATCH, USUAL_CEILING_NANOTON
from cocoon.core.machine import Effect, Event
from cocoon.core.units import MILLISECOND_NS
from cocoon.core.values import Value, replace
from cocoon.node import records
from cocoon.node.buying import Buyer
from cocoon.node.driver import Driver
from cocoon.node.handover import Handover
from cocoon.node.market import Wanted
from cocoon.node.means import Order, Purse
from cocoon.node.purchase import Answer, Purchase
from cocoon.scheduler import task
from cocoon.scheduler.attempts import Attempts
from cocoon.scheduler.award import Sold
from cocoon.scheduler.selection import (
    Quote,
    Ranked,
    expected_completion_ns,
    expected_cost_nanoton,
    run_nanoton_per_1000,
    slowest_run_us,
)
from cocoon.store.service import Row
from cocoon.wire.counting import most_units
from cocoon.wire.framing import together
from cocoon.wire.messages import Receipt, RunToken
from cocoon.wire.signing import Signed

#: Slot of every unit until redundancy and hedging come.
_SLOT = 0
#: Of accepted units in one transaction, beside the one of what is owed for them.
_ROWS = JOURNAL_BATCH - 1

class Submission(Value):
    """What a user asked for."""

    order: Order
    units: int
    deadline_ms: int
    #: Most leases at a time.
    spread: int = 1


@dataclass(slots=True)
class _Share:
    """What one provider did of the task."""

    units: int = 0
    price_nanoton: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one lease does of a task; a ``purchase.Customer`` that says which lease speaks."""

    run: TaskRun
    lease: Purchase
    attempt: int

    async def delivered(self, answers: Sequence[tuple[int, Answer]]) -> None:
        """Verified results of units."""
        await self.run.delivered(self.attempt, answers)

    def spoke(self, unit: int, token: RunToken) -> None:
        """A token of a unit."""
        self.run.spoke(task.UnitSpoke(self.attempt, unit, token.place, token.token, token.head))

    async def denied(self, unit: int, code: str, text: str) -> None:
        """No result for this unit on this lease."""
        await self.run.post(task.UnitDenied(self.attempt, unit, code, text))

    async def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A countersigned receipt of the lease, perhaps over runs of other tasks too."""
        self.run.settled(receipt, numbers)

    async def ended(self, code: str, text: str) -> None:
        """The lease is over."""
        self.run.over(self.lease, code)
        await self.run.post(task.LeaseFailed(self.attempt, code, text))
        await self.run.check_settled()                  # the machine has heard first who is left


class Client(Protocol):
    """Who handed in a task, and hears what becomes of it."""

    def post(self, event: dict[str, object]) -> None:
        """Tell this with the next ``flush``."""

    async def flush(self) -> None:
        """Tell what was posted; ``LocalPeerLost`` if the client has gone."""

    async def say(self, event: dict[str, object]) -> None:
        """Tell this now, and what was posted before."""


class TaskRun:
    """One task, from submission to its end, over all its leases."""

    def __init__(
        self, purse: Purse, buyer: Buyer, submission: Submission, client: Client, handover: Handover
    ) -> None:
        now_ns = purse.clock.now_ns()
        self.id = TaskId(os.urandom(16))
        self._purse = purse
        self._buyer = buyer
        self._order = submission.order
        self._client = client
        self._handover = handover
        self._spread = submission.spread
        self._machine = task.Task(
            submission.units, now_ns + submission.deadline_ms * MILLISECOND_NS,
            Attempts(submission.spread, submission.order.ceiling_nanoton),
        )
        self._driver = Driver(self._machine, purse.clock, self._perform, self._record, client.flush)
        #: The lease of each attempt.
        self._parts: dict[int, _Part] = {}
        #: What the whole task may cost, once that is known.
        self._ceiling_nanoton = submission.order.ceiling_nanoton
        self._inputs: dict[int, bytes] = {}
        self._answers: dict[tuple[int, int], Answer] = {}
        #: Accepted results that the client was told.
        self._delivered = 0
        self._uncovered: set[tuple[bytes, int]] = set()
        self._covered: set[tuple[bytes, int]] = set()
        self._over: set[LeaseId] = set()
        #: Accepted results under no receipt when their lease ended; owed for until its lane expires.
        self._owed: set[tuple[bytes, int]] = set()
        self._receipts: list[str] = []
        self._shares: dict[PeerKey, _Share] = {}
        self._error: CocoonError | None = None
        self._nursery: trio.Nursery

    async def run(self) -> dict[str, object]:
        """Drive the task to its end.

        Returns:
            The closing summary for the user.

        Raises:
            CocoonError: the task failed; the code says why.
        """
        with single_error():
            await self._drive()
        if self._error is not None:
            raise self._error
        return self._summary()

    def _summary(self) -> dict[str, object]:
        shares = sorted(self._shares.items(), key=lambda share: -share[1].units)
        return {
            "task": self.id, "units": self._machine.units, "failed": self._machine.failed, "receipts": self._receipts,
            "price_nanoton": self._machine.attempts.spent_nanoton, "provider": peer_id(shares[0][0]) if shares else "",
            "providers": [
                {"provider": peer_id(who), "units": share.units, "price_nanoton": share.price_nanoton}
                for who, share in shares
            ],
            "unreceipted": len(self._owed - self._covered),
        }

    def _bounded(self) -> Order:
        """The order as a warm lease may take it: the price is agreed on already, not just any bill (SCH-19)."""
        order = self._order
        return order if order.ceiling_nanoton is not None else replace(order, ceiling_nanoton=USUAL_CEILING_NANOTON)

    async def _drive(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                warm = self._buyer.warm(self._bounded())[: self._spread]
                for attempt, lease in enumerate(warm):
                    self._parts[attempt] = _Part(self, lease, attempt)
                    await self._tell_lease(lease, warm=True)
                leases = tuple(task.WarmLease(lease.provider, lease.price(self._order.measure)) for lease in warm)
                await self.post(task.TaskSubmitted(leases))
                await self._driver.run()
            finally:
                # While the nursery is open: what a lease tells a task begins there.
                for part in self._parts.values():
                    part.lease.forget(self.id)
            nursery.cancel_scope.cancel()

    async def arrived(self, first: int, inputs: Sequence[bytes]) -> None:
        """The user handed in the next units.

        Raises:
            LimitExceeded: one may be billed for more than was said.
        """
        measure = self._order.measure
        if (most := max(most_units(measure.unit, one) for one in inputs)) > measure.most:
            raise LimitExceeded(f"a run of up to {most} tokens; the task was to have at most {measure.most} in one")
        self._inputs.update(enumerate(inputs, first))
        await self.post(task.UnitsArrived(len(inputs)))

    async def end(self) -> None:
        """The user hands in no more."""
        await self.post(task.UnitsEnded())

    async def fault(self, code: str, text: str) -> None:
        """The user went away, or broke the conversation."""
        await self.post(task.TaskFaulted(code, text))

    async def post(self, event: Event) -> None:
        """Tell the machine a fact."""
        if isinstance(event, task.SellersRanked):       # a search may be what told the usual ceiling
            event = replace(event, ceiling_nanoton=self._ceiling_nanoton)
        await self._driver.post(event)

    # --- what a lease tells ------------------------------------------------

    async def delivered(self, attempt: int, answers: Sequence[tuple[int, Answer]]) -> None:
        """Verified results of this task's units."""
        self._answers.update({(attempt, unit): answer for unit, answer in answers})
        prices = tuple(answer.statement.price_nanoton for _, answer in answers)
        await self.post(task.UnitsAnswered(attempt, tuple(unit for unit, _ in answers), prices))

    def spoke(self, event: task.UnitSpoke) -> None:
        """A token, for whoever reads along; the result has them all, so a client that is slow misses some."""
        self._driver.hint(event)

    def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A countersigned receipt."""
        # Not said from here: the caller reads the link, and a slow user must not hold it up.
        self._nursery.start_soon(self._tell_receipt, receipt, numbers)

    async def _tell_receipt(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        lease = receipt.message.lease
        for first, count in stretches(sorted(numbers)):
            await self._client.say({
                "event": "receipt", "hash": receipt.digest, "seq": receipt.message.seq, "lease": lease,
                "first_number": first, "runs": count, "verified": True,
            })
        self._covered |= {(lease, number) for number in numbers}
        self._receipts.append(receipt.digest.hex())
        await self.check_settled()

    def over(self, lease: Purchase, code: str) -> None:
        """Nothing comes on this lease any more: what it gave no receipt for is settled as a debt (LEA-16)."""
        self._over.add(lease.id)
        self._owed |= {entry for entry in self._uncovered if entry[0] == lease.id}
        ended: dict[str, object] = {"event": "lease_ended", "lease": lease.id, "code": code}
        self._nursery.start_soon(self._client.say, ended)      # as a receipt

    async def check_settled(self) -> None:
        """Tell the machine if no receipt is missing that may still come."""
        # What it accepted last may still be on its way to the journal, and counts as missing.
        is_told = self._delivered == self._machine.accepted
        is_settling = self._machine.phase is task.Phase.SETTLING
        if is_settling and is_told and not self._uncovered - self._covered - self._owed:
            await self.post(task.ReceiptsSettled())

    # --- what the task machine orders --------------------------------------

    async def _record(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, task.AcceptUnits):
                tally = self._parts[effect.attempt].lease.tally
                for first in range(0, len(effect.units), _ROWS):
                    units = effect.units[first : first + _ROWS]
                    tally.record([self._accepted(effect.attempt, unit) for unit in units])

    def _accepted(self, attempt: int, unit: int) -> Row:
        lease, answer = self._parts[attempt].lease, self._answers[attempt, unit]
        entry = records.UnitAccepted(
            task=self.id, unit=unit, slot=_SLOT, provider=lease.provider, lease=lease.id,
            number=answer.statement.number, price_nanoton=answer.statement.price_nanoton, salt=answer.salt,
            statement=answer.statement.pack(),
        )
        return Row(records.UNIT_ACCEPTED, entry.pack(), records.unit_key(self.id, unit, _SLOT))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case task.FindSellers():
                self._client.post({"event": "discovering"})
                self._nursery.start_soon(self._find)
            case task.OpenLease(attempt, quote):
                self._nursery.start_soon(self._open, attempt, quote)
            case task.GrantCredit(count):
                self._client.post({"event": "credit", "count": count})
            case task.OrderRuns(attempt, units):
                part = self._parts[attempt]             # the machine orders only on an open lease
                await part.lease.order(self.id, {unit: self._inputs[unit] for unit in units}, part)
            case task.TellToken(unit, place, token, head):
                self._client.post({"event": "token", "unit": unit, "place": place, "token": token, "head": head})
            case task.AcceptUnits(attempt, units):
                self._deliver(attempt, units)
            case task.ReportFailure(unit, code, text):
                self._inputs.pop(unit, None)
                self._handover.forget(unit)
                self._client.post({"event": "failed", "unit": unit, "code": code, "text": text})
            case task.CloseTranche():
                for lease in {part.lease for part in self._parts.values() if not part.lease.over}:
                    self._nursery.start_soon(lease.close_tranche)
                await self.check_settled()
            case task.EndTask(code, text):
                self._error = None if code is None else from_code(code, text)
                self._driver.stop()

    async def _find(self) -> None:
        order = self._order
        sold = await self._purse.market.buy(Wanted(
            order.kind, order.measure, None if order.private else order.model.id, order.model.size_bytes,
            self._units_left, self._ms_left, self._left_nanoton, self._machine.spurned,
        ))
        if self._ceiling_nanoton is None and sold.quotes:
            self._ceiling_nanoton = sold.ceiling_nanoton
        ranked = sold.verdict.quotes if isinstance(sold.verdict, Ranked) else ()
        await self._client.say({
            "event": "bids", "ceiling_nanoton": sold.ceiling_nanoton,
            "bids": [self._brief(quote, sold) for quote in (*ranked, *(q for q in sold.quotes if q not in ranked))],
            "chosen": peer_id(ranked[0].provider) if ranked else "",
            "missed": [{"provider": peer_id(one.peer), "code": one.code} for one in sold.missed],
        })
        await self.post(task.SellersRanked(sold.verdict, missed=sold.missed))

    @property
    def _ms_left(self) -> int:
        """Until the task's deadline; at least one, because it is told to bidders."""
        return max(1, (self._machine.deadline_at_ns - self._purse.clock.now_ns()) // MILLISECOND_NS)

    @property
    def _units_left(self) -> int:
        return max(1, self._machine.units - self._machine.accepted - self._machine.failed)

    @property
    def _left_nanoton(self) -> int | None:
        """What the rest of the task may cost; None while there is no ceiling."""
        if self._ceiling_nanoton is None:
            return None
        return max(0, self._ceiling_nanoton - self._machine.attempts.spent_nanoton)

    def _brief(self, quote: Quote, sold: Sold) -> dict[str, object]:
        why = sold.lost.get(quote.provider)
        return {
            "provider": peer_id(quote.provider), "bid": quote.digest,
            "expected_nanoton": expected_cost_nanoton(quote.terms, sold.units),
            "expected_ms": expected_completion_ns(quote, sold.units, slowest_run_us(sold.quotes)) // MILLISECOND_NS,
            "setup_nanoton": quote.terms.setup_nanoton, "run_nanoton_per_1000": run_nanoton_per_1000(quote.terms),
            "device": quote.profile.device, "engine": quote.profile.engine, "threads": quote.profile.threads,
            "warm": quote.warm, "reliability_ppm": self._purse.regard.reliability_ppm(quote.provider),
            "lost": why.reason() if why else "",
        }

    async def _open(self, attempt: int, quote: Quote) -> None:
        rest = replace(
            self._order, units=self._units_left, ceiling_nanoton=self._left_nanoton,
            without=frozenset(self._machine.spurned),
        )
        try:
            if self._purse.clock.now_ns() >= quote.binds_until_ns:
                raise BidExpired("the bid was made too long ago")
            lease = await self._buyer.open(quote, rest, self._client.say)
        except CocoonError as error:
            self._purse.log.info("lease_failed", provider=quote.provider, code=error.code)
            await self.post(task.LeaseFailed(attempt, error.code, error.text))
        else:
            self._parts[attempt] = _Part(self, lease, attempt)
            await self._tell_lease(lease, warm=False)
            await self.post(task.LeaseOpened(attempt, lease.price(self._order.measure)))

    async def _tell_lease(self, lease: Purchase, *, warm: bool) -> None:
        self._shares.setdefault(lease.provider, _Share())
        await self._client.say({"event": "lease", "provider": peer_id(lease.provider), "lease": lease.id, "warm": warm})

    def _deliver(self, attempt: int, units: Sequence[int]) -> None:
        lease = self._parts[attempt].lease
        share, entries = self._shares[lease.provider], self._owed if lease.id in self._over else self._uncovered
        told: list[dict[str, Any]] = []
        for unit in units:
            answer = self._answers.pop((attempt, unit))
            self._inputs.pop(unit, None)
            statement = answer.statement
            entries.add((lease.id, statement.number))
            share.price_nanoton += statement.price_nanoton
            told.append({
                "unit": unit, "salt": answer.salt, "number": statement.number, "units": statement.units,
                "price_nanoton": statement.price_nanoton, "ran_us": statement.ran_us, "input_hash": statement.input,
                "output_hash": statement.output, **self._handover.outputs(unit, answer.outputs),
            })
        share.units += len(units)
        self._delivered += len(units)
        provider = peer_id(lease.provider)
        for some in together(told, _outputs_bytes):
            self._client.post({"event": "results", "provider": provider, "lease": lease.id, "results": some})


def _outputs_bytes(told: dict[str, Any]) -> int:
    return told["outputs_bytes"] if "outputs_bytes" in told else len(told["outputs"])


def stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut ascending numbers into runs without gaps: (first, count)."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            yield numbers[start], index - start
            start = index
