"""The runs of one lease between request and answer: executed in order, as many at once as wait, each with a statement.

Purity: shell. Spec: docs/spec/leases.md, rules LEA-5 and LEA-6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from cocoon.core.errors import CocoonError, LimitExceeded
from cocoon.core.ids import LeaseId
from cocoon.core.limits import FLIGHT_BYTES, LANE_PROOF_NS, ORDER_NS, PAYLOAD_BYTES, RECEIPT_REPLY_NS
from cocoon.core.machine import Effect, Event
from cocoon.core.units import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.node.means import Shop
from cocoon.node.models import HeldModel
from cocoon.runtime.service import Answer, Joining, RunReport, Seat, Wanted
from cocoon.scheduler import sale
from cocoon.wire.commitment import commit
from cocoon.wire.counting import asked_units, counted_units, most_units
from cocoon.wire.judged import Statement
from cocoon.wire.messages import Lease, RunRequest, RunResult
from cocoon.wire.signing import Signed


@dataclass(slots=True)
class Job:
    """A run between request and answer."""

    request: RunRequest
    received_ns: int
    result: RunResult | None = None
    statement: Statement | None = None
    #: What the receipt machine ordered when it took the statement; due after the result has left.
    orders: Sequence[Effect] = ()
    #: The most that it is billed for, once that was counted.
    most_units: int = 0


class Execution:
    """One lease's worker, and the runs that it was asked for."""

    def __init__(
        self, shop: Shop, lease: Signed[Lease], issuer: ReceiptIssuer, news: Callable[[], trio.Event],
        post: Callable[[Event], Awaitable[bool]], close: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            news: The event of the next receipt that is issued or settled, and while ``waits`` of the next statements.
            post: Tells the lease machine a fact.
            close: Gives the receipt over what is open, though none is due.
        """
        self._shop = shop
        self._lease = lease
        self._issuer = issuer
        self._news = news
        self._post = post
        self._close = close
        #: Whether the next run waits until it may be begun.
        self.waits = False
        self._unit = issuer.tab.terms.unit_kind
        self._jobs: dict[int, Job] = {}
        self._seat: Seat | None = None
        #: What a run took of late; none is known to be short before the first.
        self._ran_us = ORDER_NS // MICROSECOND_NS
        #: Statements that were made and are not on the tab yet, and what they are billed for.
        self._made = self._made_units = 0
        #: Outputs that were made and are not on the link yet.
        self._finished_bytes = 0
        self._popped = trio.Event()

    def take(self, requests: Sequence[RunRequest]) -> None:
        """A number seen before keeps its first job; the machine says what becomes of the second."""
        now_ns = self._shop.clock.now_ns()
        for request in requests:
            self._jobs.setdefault(request.number, Job(request, now_ns))

    def recorded(self, number: int) -> tuple[Job, Statement]:
        """The finished run whose statement goes on the tab now."""
        job = self._jobs[number]
        assert job.statement is not None                # RunsFinished is posted only after it was made
        self._made -= 1
        self._made_units -= job.statement.units
        return job, job.statement

    def pop(self, number: int) -> Job | None:
        """The run has its answer."""
        job = self._jobs.pop(number, None)
        if job is not None and job.result is not None:
            may_wait = self._finished_bytes > FLIGHT_BYTES
            self._finished_bytes -= len(job.result.outputs)
            if may_wait:
                self._popped.set()
                self._popped = trio.Event()
        return job

    async def load(self, model: HeldModel) -> int:
        """Have the model loaded; the microseconds that it took, 0 if it was for another lease."""
        terms, runtime = self._lease.message, self._shop.runtime
        joinable = model.manifest.joinable
        tolerance = (joinable.relative_ppm, joinable.absolute_nano) if joinable is not None else (0, 0)
        wanted = Wanted(
            model=None if terms.private else terms.model,
            limits=replace(runtime.limits, run_ns=terms.run_ms * MILLISECOND_NS),
            model_file=model.main_path, pieces_file=self._pieces(model),
            tolerance=tolerance if runtime.may_join(terms.model) else None,
            joining=Joining.LEASES if joinable is not None else Joining.LEASE,
        )
        self._seat = await runtime.seat(wanted, LeaseId(self._lease.digest), self._lease.signer)
        return self._seat.load_us

    def cancel(self, number: int) -> None:
        """The requester wants no more of this run: nothing to do, a run of tensors is over soon."""

    def begin(self, nursery: trio.Nursery, numbers: Sequence[int]) -> None:
        """Have these executed; nothing else is until they are."""
        nursery.start_soon(self.run, numbers)

    async def run(self, numbers: Sequence[int]) -> None:
        """Execute these, and post what became of each."""
        left = [number for number in numbers if await self._is_billable(number)]
        while left and (count := await self._room(left)):
            batch, left = left[:count], left[count:]
            done = await self._run(batch)
            left = batch[done:] + left
            if not done:
                return

    async def close(self) -> None:
        """Give the model back: its worker is killed, unless another lease has it too, or it rests for the next."""
        if self._seat is not None:
            await self._seat.close()

    def _pieces(self, model: HeldModel) -> Path | None:
        """The bytes of its tokens, if it is to run as a decoder."""
        return None

    async def _room(self, numbers: Sequence[int]) -> int:
        """How many may be executed now, one at least, as soon as another one may be; none if the lease ends instead."""
        while self._finished_bytes > FLIGHT_BYTES:      # the requester reads slowly; that it stops, the link notices
            await self._popped.wait()
        return self._fitting(numbers) if await self._allowed(numbers[0]) else 0

    def _with(self, number: int) -> tuple[int, int]:
        """Runs that were begun and are not on the tab yet; and the most that they are billed for with this one more."""
        return self._made, self._made_units + self._most(number)

    def _most(self, number: int) -> int:
        job = self._jobs[number]
        job.most_units = job.most_units or most_units(self._unit, job.request.inputs)
        return job.most_units

    async def _is_billable(self, number: int) -> bool:
        """Whether this run can be paid for; one that cannot would have the worker work for nothing."""
        job = self._jobs[number]
        try:
            job.most_units = asked_units(self._unit, job.request.inputs)
        except CocoonError as error:
            await self._post(sale.RunBroke(number, error.code, error.text, worker_lost=False))
            return False
        return True

    async def _allowed(self, number: int) -> bool:
        """Wait until this unpaid run may be begun (REC-11, MON-13); False if the lease ends instead."""
        if not self._issuer.affordable(*self._with(number)):
            await self._post(sale.LeaseBroke("limit_exceeded", "the next run would pass the lease's ceiling"))
            return False
        return self._issuer.may_start(*self._with(number)) or await self._countersigned(number)

    async def _countersigned(self, number: int) -> bool:
        """As ``_allowed``, where too much is unpaid."""
        # On credit the wait is for the lane, which comes or fails by itself.
        patience_ns = RECEIPT_REPLY_NS if self._issuer.proven else RECEIPT_REPLY_NS + LANE_PROOF_NS
        try:
            with trio.move_on_after(patience_ns / SECOND_NS):
                while not self._issuer.may_start(*self._with(number)):
                    self.waits, news = True, self._news()
                    if not self._made and self._issuer.outstanding is None and self._issuer.tab.open:
                        # What is open leaves too little room, and is not due by itself. Half told it would be neither.
                        with trio.CancelScope(shield=True):
                            await self._close()
                    await news.wait()
                return True
        finally:
            self.waits = False
        text = f"{len(self._issuer.tab.open)} runs wait for a countersignature"
        await self._post(sale.LeaseBroke("receipt_unsettled", text))
        return False

    def _fitting(self, numbers: Sequence[int]) -> int:
        """With the first: what may be unpaid and has room in memory with it, and delays it by no more than a moment."""
        count, size_bytes, units = 1, len(self._jobs[numbers[0]].request.inputs), self._with(numbers[0])[1]
        for number in numbers[1 : ORDER_NS // MICROSECOND_NS // max(1, self._ran_us)]:
            size_bytes += len(self._jobs[number].request.inputs)
            open_runs = self._made + count
            units += self._most(number)
            if size_bytes > PAYLOAD_BYTES or not (
                self._issuer.may_start(open_runs, units) and self._issuer.affordable(open_runs, units)
            ):
                break
            count += 1
        return count

    async def _run(self, batch: Sequence[int]) -> int:
        """How many of them, from the first, are done with; 0 if the worker is gone."""
        seat, started_ns = self._seat, self._shop.clock.now_ns()
        assert seat is not None                         # StartRuns follows ModelLoaded
        try:
            outcomes = await seat.run_all(batch, [self._jobs[number].request.inputs for number in batch])
        except CocoonError as error:
            if len(batch) > 1 and not seat.alive:
                self._shop.runtime.keep_apart(self._lease.message.model)
            await self._post(sale.RunBroke(batch[0], error.code, error.text, not seat.alive))
            return 0
        finished: list[int] = []
        for number, outcome in zip(batch, outcomes, strict=False):
            try:
                self._make(number, outcome, started_ns)
            except CocoonError as error:
                await self._post(sale.RunBroke(number, error.code, error.text, worker_lost=False))
            else:
                finished.append(number)
        await self._post(sale.RunsFinished(tuple(finished)))
        return len(outcomes)

    def _make(self, number: int, outcome: RunReport | Answer | CocoonError, started_ns: int) -> None:
        """Result and statement of a run; its price follows from those that were made before it."""
        if isinstance(outcome, CocoonError):
            raise outcome
        job, outputs = self._jobs[number], bytes(outcome.outputs)   # the worker may change its own while they are read
        limit = self._shop.terms.max_payload_bytes
        if len(outputs) > limit:
            raise LimitExceeded(f"the outputs have {len(outputs)} bytes, this provider gives {limit} a run")
        units = counted_units(self._unit, job.request.inputs, outputs)
        self._shop.bids.pace.ran(self._lease.message.model, outcome.ran_us, units)
        self._ran_us += (outcome.ran_us - self._ran_us) // 2
        salt = job.request.salt
        given, made = commit(salt, job.request.inputs), commit(salt, outputs)
        job.statement = Statement(
            lease=self._issuer.tab.terms.lease, number=number, input_alg=given.alg, input=given.hash,
            output_alg=made.alg, output=made.hash, units=units,
            price_nanoton=self._issuer.tab.price_nanoton(units, self._made_units), ran_us=outcome.ran_us,
            queued_us=(started_ns - job.received_ns) // MICROSECOND_NS,
            joined=outcome.joined, place=outcome.place,
        )
        self._made += 1
        self._made_units += units
        self._finished_bytes += len(outputs)
        job.result = RunResult(number=number, outputs=outputs, statement=job.statement.pack())
