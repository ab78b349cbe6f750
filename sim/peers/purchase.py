"""One purchase: what ``cocoon.node.purchase`` and ``tally`` do around the lease machine and the receipt machine.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-10 to LEA-15; receipts.md, rules REC-11 to REC-19; simulation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cocoon.core.errors import CocoonError, OutOfOrder, for_peer, from_code, from_peer
from cocoon.core.ids import LeaseId, PeerKey, TaskId
from cocoon.core.limits import RECEIPT_REPLY_NS
from cocoon.core.machine import Effect
from cocoon.core.units import MIB
from cocoon.ledger import events as receipts
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.receipt import ReceiptVerifier
from cocoon.ledger.record import Countersigned, ReceiptRecord
from cocoon.ledger.statement import check_statement
from cocoon.ledger.tab import Head, Tab
from cocoon.node import records
from cocoon.scheduler import purchase
from cocoon.scheduler.selection import RUNS, Measure, Terms
from cocoon.scheduler.spending import LeasePrice
from cocoon.wire.commitment import commit
from cocoon.wire.judged import Statement, Voucher, sign_cell
from cocoon.wire.messages import (
    Chunk,
    Countersign,
    Lease,
    LeaseAccept,
    LeaseClose,
    ModelOffer,
    ModelReady,
    ModelWant,
    Receipt,
    ReceiptIssued,
    Refusal,
    RunFailure,
    RunRequest,
    RunResult,
    TrancheClose,
)
from cocoon.wire.signing import Signed
from sim.engine.compute import UPLOAD_NS_PER_MIB
from sim.engine.driver import Driver
from sim.engine.flow import Moment, Work, sleep
from sim.engine.journal import Row
from sim.engine.network import End
from sim.peers.models import Model, counted_units

if TYPE_CHECKING:
    from sim.peers.buying import Buying


class Customer(Protocol):
    """A task that has units on a lease."""

    def delivered(self, unit: int, statement: Statement, salt: bytes) -> None:
        """A verified result."""

    def denied(self, unit: int, code: str, text: str) -> None:
        """No result, and why."""

    def settled(self, numbers: tuple[int, ...]) -> None:
        """A verified receipt over these runs of the lease, now countersigned."""

    def ended(self, code: str, text: str) -> None:
        """The lease is over."""


class Tally:
    """A requester's account of one lease."""

    def __init__(
        self, shop: Buying, lease: Signed[Lease], opening: Head, say: Callable[[Any], None],
        settled: Callable[[tuple[int, ...]], None],
    ) -> None:
        self.verifier = ReceiptVerifier(Tab(shop.peer.ground.words.terms(lease), opening))
        self.id = LeaseId(lease.digest)
        self.lane = lease.message.lane
        self._shop, self._lease, self._say, self._settled = shop, lease, say, settled
        self._rows = 0
        self._unwritten: list[bytes] = []

    def restore(self) -> None:
        """Take what an earlier life of this lease recorded."""
        journal = self._shop.peer.journal
        bodies = [row.body for row in journal.under(records.facts_of(self.id))]
        self._rows = len(bodies)
        replay(self.verifier, self._shop.peer.now_ns(), records.facts_in(bodies))

    def accept(self, statement: Statement) -> None:
        """Take a statement that was checked; it is owed as soon as anything is recorded that rests on it."""
        event = receipts.RunAccepted(statement)
        self._shop.peer.ground.checks.run_accepted(self.verifier.tab.terms, statement)
        self._shop.peer.drive(self.verifier, event)
        self._unwritten += self._fact(event)

    def record(self, rows: Sequence[Row]) -> None:
        """Write down what a user is given, and with it what is owed."""
        facts = []
        if self._unwritten:
            self._rows += 1
            key, body = records.fact_key(self.id, self._rows), records.pack_facts(self.id, self._unwritten)
            facts = [Row(records.RECEIPT_FACT, body, key)]
        self._shop.peer.journal.write(*facts, *rows)
        self._unwritten = []

    async def tell(self, event: Any, accept: Signed[LeaseAccept]) -> None:
        """Tell the receipt machine a fact and do what it orders.

        Raises:
            PeerFault: a receipt that does not fit our own account.
        """
        before = self.verifier.mark()
        effects = self._shop.peer.drive(self.verifier, event)
        signed = [effect for effect in effects if isinstance(effect, receipts.Countersign)]
        signatures = {effect.voucher: self._sign(effect.voucher) for effect in signed}
        rows = [self._row(effect, accept, signatures[effect.voucher]) for effect in signed]
        if self.verifier.mark() != before:
            self._unwritten += self._fact(event)
        self.record(rows)
        if effects:
            await self._shop.peer.journal.flush()
        for effect in effects:
            match effect:
                case receipts.AskReceipt(through):
                    self._say(TrancheClose(through=through))
                case receipts.Countersign(voucher, _, statements):
                    self._promise(voucher, signatures[voucher])
                    self._settled(tuple(statement.number for statement in statements))
                case receipts.RepeatCountersign(voucher):
                    self.repeat(voucher)

    def repeat(self, voucher: Voucher) -> None:
        """Send a countersignature again."""
        self._promise(voucher, self._sign(voucher))

    def _promise(self, voucher: Voucher, signature: bytes) -> None:
        if self._shop.treasury is not None:
            self._shop.treasury.show(voucher, signature)
        self._shop.peer.ground.checks.promised(voucher)
        self._say(Countersign(voucher=voucher.pack(), signature=signature))

    def _fact(self, event: Any) -> list[bytes]:
        return [pack_event(event)] if self.lane and isinstance(event, JOURNALLED) else []

    def _row(self, effect: receipts.Countersign, accept: Signed[LeaseAccept], signature: bytes) -> Row:
        words = Countersigned.of(self._lease, accept, effect.receipt, effect.voucher.pack(), signature)
        record = ReceiptRecord(words, effect.statements).pack()
        return Row(records.RECEIPT_ACCEPTED, record, records.receipt_key(effect.receipt.digest))

    def _sign(self, voucher: Voucher) -> bytes:
        treasury = self._shop.treasury
        signer = treasury.lane_key if self.lane and treasury is not None else self._shop.peer.signer
        return sign_cell(voucher.hash(), signer)


class Purchase:
    """A bought lease. Tasks order units on it; it tells each what became of them."""

    def __init__(
        self, shop: Buying, lease: Signed[Lease], opening: Head, accept: Signed[LeaseAccept], end: End, model: Model
    ) -> None:
        self.shop, self.peer = shop, shop.peer
        self.lease = lease
        self.id = LeaseId(lease.digest)
        self.provider = PeerKey(lease.message.provider)
        self._accept, self._end, self._model = accept, end, model
        self.tally = Tally(shop, lease, opening, self._say, self._settled)
        self.scope = shop.peer.scope.child()
        terms = lease.message
        self.machine = purchase.LeasePurchase(
            self.peer.now_ns(), terms.duration_s, terms.max_runs, terms.run_ms, shop.lease_idle_ns
        )
        self._driver = Driver(self.machine, self.scope, self.peer, self._perform)
        self._customers: dict[TaskId, Customer] = {}
        self._inputs: dict[tuple[TaskId, int], bytes] = {}
        self._sent: dict[int, RunRequest] = {}
        self._answers: dict[int, tuple[Statement, bytes]] = {}
        heap = self.peer.ground.heap
        self._ready: Moment[None] = Moment(heap)
        self.gone: Moment[None] = Moment(heap)
        self._silence: Moment[None] = Moment(heap)
        self._parted = False
        #: Something came that ends the reading, as an exception ends a reader's loop.
        self._deaf = False
        self.ending: CocoonError | None = None
        self._frames: Work[Any] = Work(self.scope, self._take)
        end.on_frame = self._frames.put
        end.on_close = lambda: self._frames.put(None)
        self._driver.post(purchase.LeaseAgreed())

    @property
    def usable(self) -> bool:
        """Ready, and with run numbers left."""
        return self.machine.step is purchase.Step.READY and not self.machine.exhausted

    @property
    def idle(self) -> bool:
        """Ready, and nobody waits for anything on it."""
        is_quiet = not self.machine.sent and not self.machine.queued and not self._customers
        return self.machine.step is purchase.Step.READY and is_quiet

    @property
    def ended_well(self) -> bool:
        """Given back by this side with nothing on the way: the provider needs no further word."""
        is_ours = self.ending is not None and self.ending.code == "released" and not self._sent
        return is_ours and self.tally.verifier.settled and self._parted

    def price(self, measure: Measure) -> LeasePrice:
        """What further runs cost at most."""
        tab = self.tally.verifier.tab
        setup_nanoton = 0 if tab.units else tab.terms.setup_nanoton
        if measure != RUNS:
            return LeasePrice(setup_nanoton, tab.terms.price_nanoton * measure.most, shared=True)
        return LeasePrice(setup_nanoton, tab.terms.price_nanoton, tab.units, shared=not self.idle)

    def costs_what(self, terms: Terms) -> bool:
        """Whether this lease has the prices of ``terms``."""
        mine = self.lease.message
        return (mine.setup_nanoton, mine.prices) == (terms.setup_nanoton, terms.prices)

    def covers(self, runs: int, measure: Measure, ceiling_nanoton: int | None) -> bool:
        """Whether so many more runs fit on the lease, and cost at most so much."""
        used, tab = self.machine.next_number - 1 + len(self.machine.queued), self.tally.verifier.tab
        out = len(self._inputs) + len(self._sent)
        billed = used if measure == RUNS else tab.units + out * measure.most
        bill, most = tab.terms.bill_nanoton, billed + runs * measure.most
        if used + runs > self.lease.message.max_runs or (measure != RUNS and bill(most) > tab.terms.ceiling_nanoton):
            return False
        return ceiling_nanoton is None or bill(most) - bill(billed) <= ceiling_nanoton

    async def ready(self) -> None:
        """Wait until runs may go; raises why they never will."""
        await self._ready.wait()
        if self.ending is not None:
            raise self.ending

    def order(self, task: TaskId, units: Mapping[int, bytes], customer: Customer) -> None:
        """Put units with their inputs on the lease; the customer hears of each exactly once."""
        self._customers[task] = customer
        self._inputs.update({(task, unit): inputs for unit, inputs in units.items()})
        runs = tuple(purchase.Run(task, unit, len(inputs)) for unit, inputs in units.items())
        if not self._driver.post(purchase.RunsOrdered(runs)):
            for unit in units:
                customer.denied(unit, "released", "the lease has ended")

    def close_tranche(self) -> None:
        """Ask for the receipt over everything answered so far."""
        self._frames.put(receipts.TrancheClosed(self.machine.next_number - 1))

    def forget(self, task: TaskId) -> None:
        """The task has ended; what still comes for it is dropped."""
        self._customers.pop(task, None)
        for key in [key for key in self._inputs if key[0] == task]:
            del self._inputs[key]

    async def release(self) -> None:
        """Give the lease back and wait until the provider was told."""
        self._driver.post(purchase.LeaseReleased())
        await self.gone.wait()

    # --- what arrives ------------------------------------------------------

    async def _take(self, message: Any) -> None:
        if self._deaf:
            return
        try:
            await self._understand(message)
        except CocoonError as error:
            self._deaf = True
            self._silence.set(None)
            self._driver.post(purchase.LeaseLost(error.code, error.text))

    async def _understand(self, message: Any) -> None:
        match message:
            case ModelWant(file, first, count):
                self._driver.post(purchase.ModelPartAsked(file, first, count))
            case ModelReady(load_us):
                self._driver.post(purchase.ModelReady(load_us))
            case RunResult():
                self._answers[message.number] = answer = self._verify(message)
                self.tally.accept(answer[0])
                self._driver.post(purchase.ResultsVerified((message.number,)))
            case RunFailure(number, code, text):
                self._sent.pop(number, None)
                said = from_peer(code, text)
                self._driver.post(purchase.FailureReceived(number, said.code, said.text))
            case ReceiptIssued(packed):
                receipt = self.peer.ground.words.open(packed, Receipt, signer=self.provider)
                await self.tally.tell(receipts.ReceiptReceived(receipt), self._accept)
            case receipts.TrancheClosed():
                await self.tally.tell(message, self._accept)
            case Refusal(code, text):
                self._lose(from_peer(code, text))
            case LeaseClose(code):
                self._parted = True
                self._silence.set(None)
                self._lose(from_peer(code, "closed by the provider"))
            case None:
                self._silence.set(None)
                self._driver.post(purchase.LeaseLost("provider_lost", "the link has ended"))

    def _lose(self, error: CocoonError) -> None:
        self._driver.post(purchase.LeaseLost(error.code, error.text))

    def _verify(self, result: RunResult) -> tuple[Statement, bytes]:
        request = self._sent.pop(result.number, None)
        if request is None:
            raise OutOfOrder(f"a result for run {result.number}, which is not open")
        statement, tab = Statement.unpack(result.statement), self.tally.verifier.tab
        units = counted_units(tab.terms.unit_kind, request.inputs)
        check_statement(
            statement, tab.terms, number=result.number, units=units, price_nanoton=tab.price_nanoton(units),
            inputs=commit(request.salt, request.inputs), outputs=commit(request.salt, result.outputs),
        )
        return statement, request.salt

    def _settled(self, numbers: tuple[int, ...]) -> None:
        for customer in tuple(self._customers.values()):
            customer.settled(numbers)

    # --- what the lease machine orders -------------------------------------

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case purchase.OfferModel():
                self._say(ModelOffer(manifest=self._model.packed))
            case purchase.SendModelPart(file, first, count):
                self.scope.spawn(self._send_model(file, first, count))
            case purchase.LeaseIsReady():
                self._ready.set(None)
            case purchase.SendRuns(first, runs):
                for number, run in enumerate(runs, first):
                    self._send_run(number, run.task, run.unit)
            case purchase.RunsDelivered(numbers, runs):
                for number, run in zip(numbers, runs, strict=True):
                    statement, salt = self._answers.pop(number)
                    if (customer := self._customers.get(run.task)) is not None:
                        customer.delivered(run.unit, statement, salt)
            case purchase.RunDenied(task, unit, code, text):
                self._inputs.pop((task, unit), None)
                if (customer := self._customers.get(task)) is not None:
                    customer.denied(unit, code, text)
            case purchase.EndPurchase(code, text):
                await self._finish(code, text)

    async def _finish(self, code: str, text: str) -> None:
        self.ending = from_code(code, text)
        self._say(LeaseClose(code=for_peer(self.ending).code))
        if self.tally.lane and code == "released":
            await self._silence.wait(RECEIPT_REPLY_NS)
        for customer in tuple(self._customers.values()):
            customer.ended(code, text)
        self._driver.stop()
        self._ready.set(None)
        self._end.close()
        self.gone.set(None)

    async def _send_model(self, file: int, first: int, count: int) -> None:
        for index in range(first, first + count):
            size = min(MIB, self._model.size_bytes - index * MIB)
            await sleep(self.scope, UPLOAD_NS_PER_MIB * size // MIB)
            self._say(Chunk(file=file, index=index, data=b""))
            self._driver.post(purchase.ModelProgressed())
        self._driver.post(purchase.ModelPartSent())

    def _send_run(self, number: int, task: TaskId, unit: int) -> None:
        inputs = self._inputs.pop((task, unit), None)
        if inputs is None:
            self._driver.post(purchase.FailureReceived(number, "cancelled", "the task has ended"))
            return
        request = self._sent[number] = RunRequest(number=number, salt=self.peer.random(16), inputs=inputs)
        self._say(request)

    def _say(self, message: Any) -> None:
        self._end.send(message)
