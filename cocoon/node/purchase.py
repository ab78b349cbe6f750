"""One purchase: the sealed link, the results and the receipts of one bought lease.

Nothing of the provider is believed: every result is checked against its
statement, every receipt against the results.

Purity: shell. Spec: docs/spec/leases.md, rules LEA-10 to LEA-15.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol, cast

import trio

from cocoon.core.errors import (
    CocoonError,
    LimitExceeded,
    LocalPeerLost,
    OutOfOrder,
    ProviderLost,
    StreamClosed,
    for_peer,
    from_code,
    from_peer,
)
from cocoon.core.ids import LeaseId, PeerKey, TaskId
from cocoon.core.limits import CHUNK_BYTES, CONTEXT_TOKENS, RECEIPT_REPLY_NS
from cocoon.core.machine import Effect
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
from cocoon.ledger import events as receipts
from cocoon.ledger.statement import check_statement
from cocoon.ledger.tab import Head
from cocoon.node.driver import Driver
from cocoon.node.link import WorkLink
from cocoon.node.means import Purse
from cocoon.node.models import HeldModel
from cocoon.node.tally import Tally
from cocoon.scheduler import purchase
from cocoon.scheduler.selection import RUNS, Measure, Terms
from cocoon.scheduler.spending import LeasePrice
from cocoon.wire.commitment import commit
from cocoon.wire.counting import counted_units, most_units
from cocoon.wire.judged import Statement
from cocoon.wire.manifest import pack_manifest
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    Lease,
    LeaseAccept,
    LeaseClose,
    ModelOffer,
    ModelReady,
    ModelWant,
    Receipt,
    ReceiptIssued,
    Refusal,
    RunCancel,
    RunFailure,
    RunRequest,
    RunResult,
    RunToken,
)
from cocoon.wire.schema import Message
from cocoon.wire.signing import Signed, open_signed
from cocoon.wire.widths import SALT_BYTES

_FROM_PROVIDER = (ModelWant, ModelReady, RunToken, RunResult, RunFailure, ReceiptIssued, Refusal, LeaseClose)


class Answer(Value):
    """A verified result of one unit, and what a receipt will say about it."""

    outputs: bytes
    salt: bytes
    statement: Statement


Say = Callable[[dict[str, object]], Awaitable[None]]


class Customer(Protocol):
    """A task that has units on this lease."""

    async def delivered(self, answers: Sequence[tuple[int, Answer]]) -> None:
        """Verified results of units."""

    def spoke(self, unit: int, token: RunToken) -> None:
        """A decoder made a token of a unit: in order, but one that another lease began is begun again."""

    async def denied(self, unit: int, code: str, text: str) -> None:
        """No result, and why."""

    async def settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        """A verified receipt over these runs of the lease, now countersigned."""

    async def ended(self, code: str, text: str) -> None:
        """The lease is over."""


class Purchase:
    """A bought lease. Tasks order units on it; it tells each what became of them."""

    def __init__(
        self, purse: Purse, lease: Signed[Lease], opening: Head, accept: Signed[LeaseAccept], link: WorkLink,
        model: HeldModel, payload_limit_bytes: int, progress: Say,
    ) -> None:
        terms = lease.message
        self.lease = lease
        self.id = LeaseId(lease.digest)
        self.provider = PeerKey(terms.provider)
        self._countersigned = accept
        self._purse = purse
        self._link = link
        self._model = model
        self._payload_limit_bytes = payload_limit_bytes
        self._progress: Say | None = progress
        self.tally = Tally(purse, lease, opening, link.post, self._settled)
        self._machine = purchase.LeasePurchase(
            purse.clock.now_ns(), terms.duration_s, terms.max_runs, terms.run_ms, purse.lease_idle_ns
        )
        self._driver = Driver(self._machine, purse.clock, self._perform)
        self._customers: dict[TaskId, Customer] = {}
        self._inputs: dict[tuple[TaskId, int], bytes] = {}
        self._sent: dict[int, RunRequest] = {}
        #: Tokens told of runs that are open.
        self._places: dict[int, int] = {}
        self._answers: dict[int, Answer] = {}
        self._state = trio.Event()
        self._over = trio.Event()
        # The provider closed the lease: it holds our last countersignature (LAN-7).
        self._parted = False
        self._silence = trio.Event()
        self._lost: CocoonError | None = None
        self._nursery: trio.Nursery

    @property
    def usable(self) -> bool:
        """Ready, and with run numbers left."""
        return self._machine.step is purchase.Step.READY and not self._machine.exhausted

    @property
    def idle(self) -> bool:
        """Ready, if only to end, and nobody waits for anything on it."""
        machine = self._machine
        is_quiet = not machine.sent and not machine.queued and not self._customers
        return machine.step is purchase.Step.READY and is_quiet

    @property
    def over(self) -> bool:
        """Nothing comes on it any more."""
        return self._over.is_set()

    @property
    def worked(self) -> bool:
        """Whether anything was accepted on it."""
        return self.tally.tab.units > 0

    @property
    def ending(self) -> CocoonError | None:
        """Why it is over; None while it is not."""
        return self._lost

    @property
    def ended_well(self) -> bool:
        """Given back by this side with nothing on the way: the provider needs no further word."""
        is_ours = self._lost is not None and self._lost.code == "released" and not self._sent
        return is_ours and self.tally.verifier.settled and self._parted

    def price(self, measure: Measure) -> LeasePrice:
        """What further runs cost at most; beside those of other tasks, if it is not idle."""
        terms, units = self.tally.tab.terms, self.tally.tab.units
        setup_nanoton = 0 if units else terms.setup_nanoton
        if measure != RUNS:
            return LeasePrice(setup_nanoton, terms.price_nanoton * measure.most, shared=True)
        return LeasePrice(setup_nanoton, terms.price_nanoton, units, shared=not self.idle)

    def costs_what(self, terms: Terms) -> bool:
        """Whether this lease has the prices of ``terms``."""
        mine = self.lease.message
        return (mine.setup_nanoton, mine.prices) == (terms.setup_nanoton, terms.prices)

    def covers(self, runs: int, measure: Measure, ceiling_nanoton: int | None) -> bool:
        """Whether so many more runs fit on the lease, and cost at most so much; None: its price was taken before."""
        used = self._machine.next_number - 1 + len(self._machine.queued)
        billed = used if measure == RUNS else self._most_units
        terms, most = self.tally.tab.terms, billed + runs * measure.most
        bill = terms.bill_nanoton
        if used + runs > self.lease.message.max_runs or (measure != RUNS and bill(most) > terms.ceiling_nanoton):
            return False
        return ceiling_nanoton is None or bill(most) - bill(billed) <= ceiling_nanoton

    @property
    def _most_units(self) -> int:
        """What is on the tab, and what all that has no answer may come to."""
        unit, waiting = self.tally.tab.terms.unit_kind, [*self._inputs.values()]
        waiting += [request.inputs for request in self._sent.values()]
        return self.tally.tab.units + sum(most_units(unit, inputs) for inputs in waiting)

    async def ready(self) -> None:
        """Wait until runs may go; raises why they never will."""
        await self._state.wait()
        if self._lost is not None:
            raise self._lost

    async def order(self, task: TaskId, units: Mapping[int, bytes], customer: Customer) -> None:
        """Put units with their inputs on the lease; the customer hears of each exactly once."""
        self._customers[task] = customer
        limit_bytes, runs = self._payload_limit_bytes, []
        for unit, inputs in units.items():
            if len(inputs) > limit_bytes:
                text = f"the inputs have {len(inputs)} bytes, this provider takes {limit_bytes} bytes a run"
                await customer.denied(unit, LimitExceeded.code, text)
            else:
                self._inputs[task, unit] = inputs
                runs.append(purchase.Run(task, unit, len(inputs)))
        if runs and not await self._driver.post(purchase.RunsOrdered(tuple(runs))):
            for run in runs:
                await customer.denied(run.unit, "released", "the lease has ended")

    async def close_tranche(self) -> None:
        """Ask for the receipt over everything answered so far."""
        await self._tell(receipts.TrancheClosed(self._machine.next_number - 1))

    def forget(self, task: TaskId) -> None:
        """The task has ended; what still comes for it is dropped."""
        self._customers.pop(task, None)
        if self._model.manifest.speaks:                 # a decoder may go on for long
            for number in [number for number, one in self._machine.sent.items() if one.task == task]:
                self._link.post(RunCancel(number=number))
        for key in [key for key in self._inputs if key[0] == task]:
            del self._inputs[key]

    async def release(self) -> None:
        """Give the lease back and wait until the provider was told."""
        await self._driver.post(purchase.LeaseReleased())
        await self._over.wait()

    async def run(self) -> None:
        """Serve the lease until it ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._read)
                nursery.start_soon(self._link.keep_sending)
                await self._driver.post(purchase.LeaseAgreed())
                await self._driver.run()
                nursery.cancel_scope.cancel()
        except Exception:
            # Whatever broke it, no task waits for it until its own deadline.
            await self._part(ProviderLost.code, "the lease was cut")
            raise
        finally:
            self._lost = self._lost or ProviderLost("the lease was cut")
            self._state.set()
            with trio.CancelScope(shield=True):
                await self._link.close()
            self._over.set()

    # --- what arrives ------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                await self._take_all(await self._link.receive_all(*_FROM_PROVIDER))
        except StreamClosed as error:
            self._silence.set()
            await self._driver.post(purchase.LeaseLost("provider_lost", error.text))
        except CocoonError as error:
            self._silence.set()
            await self._driver.post(purchase.LeaseLost(error.code, error.text))

    async def _take_all(self, messages: Sequence[Message]) -> None:
        """In their order, and results that follow each other as one."""
        for kind, some in groupby(messages, type):
            if kind is RunResult:
                await self._accept_all(cast(list[RunResult], list(some)))
            else:
                for message in some:
                    await self._take(message)

    async def _accept_all(self, results: Sequence[RunResult]) -> None:
        """Check these; what is good is owed before a task hears of it, also if one behind it is bad."""
        checked: list[tuple[int, Answer, receipts.RunAccepted]] = []
        try:
            for result in results:
                answer = self._verify(result)
                checked.append((result.number, answer, self.tally.accept(answer.statement)))
        finally:
            self.tally.owe([accepted for _, _, accepted in checked])
            self._answers |= {number: answer for number, answer, _ in checked}
            await self._driver.post(purchase.ResultsVerified(tuple([number for number, _, _ in checked])))

    async def _take(self, message: Message) -> None:
        match message:
            case ModelWant(file, first, count):
                await self._driver.post(purchase.ModelPartAsked(file, first, count))
            case ModelReady(load_us):
                await self._driver.post(purchase.ModelReady(load_us))
            case RunToken():
                await self._hear(message)
            case RunFailure(number, code, text):
                self._places.pop(number, None)
                self._sent.pop(number, None)
                said = from_peer(code, text)
                await self._driver.post(purchase.FailureReceived(number, said.code, said.text))
            case ReceiptIssued(receipt):
                await self._tell(receipts.ReceiptReceived(open_signed(receipt, Receipt, signer=self.provider)))
            case Refusal(code, text):
                await self._lose(from_peer(code, text))
            case LeaseClose(code):
                self._parted = True
                self._silence.set()
                await self._lose(from_peer(code, "closed by the provider"))

    async def _hear(self, token: RunToken) -> None:
        """A token is shown at once; the result is what is paid for, and has to say the same (TOK-25)."""
        one, place = self._machine.sent.get(token.number), self._places.get(token.number, 0) + 1
        if token.number not in self._sent or not self._model.manifest.speaks or token.place != place:
            raise OutOfOrder(f"token {token.place} of run {token.number}, due was {place} of an open run")
        if place > CONTEXT_TOKENS:
            raise LimitExceeded(f"more than {CONTEXT_TOKENS} tokens of run {token.number}")
        self._places[token.number] = place
        await self._driver.post(purchase.RunProgressed())
        if one is not None and (customer := self._customers.get(one.task)) is not None:
            customer.spoke(one.unit, token)

    async def _lose(self, error: CocoonError) -> None:
        await self._driver.post(purchase.LeaseLost(error.code, error.text))

    def _verify(self, result: RunResult) -> Answer:
        """Check a result against what was asked; see ``ledger.receipt.check_statement``."""
        request = self._sent.pop(result.number, None)
        self._places.pop(result.number, None)
        if request is None:
            raise OutOfOrder(f"a result for run {result.number}, which is not open")
        statement = Statement.unpack(result.statement)
        tab = self.tally.tab
        units = counted_units(tab.terms.unit_kind, request.inputs, result.outputs)
        check_statement(
            statement, tab.terms, number=result.number, units=units, price_nanoton=tab.price_nanoton(units),
            inputs=commit(request.salt, request.inputs), outputs=commit(request.salt, result.outputs),
        )
        return Answer(result.outputs, request.salt, statement)

    async def _tell(self, event: receipts.RequesterEvent) -> None:
        await self.tally.tell(event, self._countersigned)

    async def _settled(self, receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
        for customer in self._present():
            await customer.settled(receipt, numbers)

    async def _part(self, code: str, text: str) -> None:
        for customer in self._present():
            await customer.ended(code, text)

    def _present(self) -> Iterator[Customer]:
        """Those that are still there when it is their turn: one may end while another is told."""
        for task in tuple(self._customers):
            if (customer := self._customers.get(task)) is not None:
                yield customer

    # --- what the lease machine orders -------------------------------------

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case purchase.OfferModel():
                self._link.post(ModelOffer(manifest=pack_manifest(self._model.manifest)))
            case purchase.SendModelPart(file, first, count):
                self._nursery.start_soon(self._send_model, file, first, count)
            case purchase.LeaseIsReady(load_us):
                await self._report({"event": "ready", "load_ms": load_us // 1_000})
                self._progress = None                   # later events belong to the tasks themselves
                self._state.set()
            case purchase.SendRuns(first, runs):
                salts = os.urandom(SALT_BYTES * len(runs))
                for place, run in enumerate(runs):
                    self._send_run(first + place, run, salts[SALT_BYTES * place : SALT_BYTES * (place + 1)])
            case purchase.RunsDelivered(numbers, runs):
                await self._deliver(numbers, runs)
            case purchase.RunDenied(task, unit, code, text):
                self._inputs.pop((task, unit), None)
                if (customer := self._customers.get(task)) is not None:
                    await customer.denied(unit, code, text)
            case purchase.EndPurchase(code, text):
                self._purse.log.info("lease_ended", lease=self.id, code=code)
                self._lost = from_code(code, text)
                self._link.post(LeaseClose(code=for_peer(self._lost).code))
                await self._link.flush()
                if self.tally.lane and code == "released":
                    with trio.move_on_after(RECEIPT_REPLY_NS / SECOND_NS):
                        await self._silence.wait()
                await self._part(code, text)
                self._driver.stop()

    async def _send_model(self, file: int, first: int, count: int) -> None:
        """Send chunk hashes and chunks; a chunk that is not there ends the lease."""
        sizes = [part.size_bytes for part in self._model.manifest.files]
        before = sum(sizes[:file])
        try:
            self._link.post(ChunkHashes(file=file, hashes=b"".join(self._model.hashes_of(file))))
            for index in range(first, first + count):
                self._link.post(Chunk(file=file, index=index, data=self._model.read_chunk(file, index)))
                await self._link.flush()
                sent = before + min(sizes[file], (index + 1) * CHUNK_BYTES)
                await self._driver.post(purchase.ModelProgressed())
                await self._report({"event": "model", "sent_bytes": sent, "total_bytes": sum(sizes)})
        except CocoonError as error:
            await self._driver.post(purchase.LeaseLost(error.code, error.text))
        else:
            await self._driver.post(purchase.ModelPartSent())

    def _send_run(self, number: int, run: purchase.Run, salt: bytes) -> None:
        inputs = self._inputs.pop((run.task, run.unit), None)
        if inputs is None:
            # Its task has ended. Not sent from here: the inbox may be full, and this is its reader.
            gone = purchase.FailureReceived(number, "cancelled", "the task has ended")
            self._nursery.start_soon(self._driver.post, gone)
            return
        request = self._sent[number] = RunRequest(number=number, salt=salt, inputs=inputs)
        self._link.post(request)

    async def _deliver(self, numbers: Sequence[int], runs: Sequence[purchase.Run]) -> None:
        """Give each task its results."""
        answers = [(run, self._answers.pop(number)) for number, run in zip(numbers, runs, strict=True)]
        for task, some in groupby(answers, lambda one: one[0].task):
            if (customer := self._customers.get(task)) is not None:
                await customer.delivered([(run.unit, answer) for run, answer in some])

    async def _report(self, event: dict[str, object]) -> None:
        if self._progress is None:
            return
        try:
            await self._progress(event)
        except LocalPeerLost:
            self._progress = None                       # its task hears of it by itself; the lease goes on
