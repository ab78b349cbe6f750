"""One sale: what ``cocoon.node.sale`` does around the lease machine and the receipt machine.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-1 to LEA-9; receipts.md, rules REC-11 to REC-19; simulation.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cocoon.core.errors import CocoonError, from_code, wrong
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LANE_PROOF_NS, RECEIPT_REPLY_NS
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import MICROSECOND_NS
from cocoon.core.values import Value
from cocoon.ledger.events import (
    CountersignReceived,
    IssueReceipt,
    LaneProven,
    LinkResumed,
    ReportUnsettled,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.journal import pack_event, replay
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.record import Countersigned, ReceiptRecord
from cocoon.ledger.tab import Head, Tab
from cocoon.node import records
from cocoon.scheduler import sale
from cocoon.wire.commitment import commit
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.manifest import chunk_count, model_id, unpack_manifest
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
    RunRequest,
    RunResult,
    TrancheClose,
    refusal,
    run_failure,
)
from cocoon.wire.signing import Signed, sign
from sim.engine.driver import Driver
from sim.engine.flow import Bell, Moment, Work, sleep
from sim.engine.journal import Row
from sim.engine.network import End
from sim.peers.models import counted_units, most_units

if TYPE_CHECKING:
    from sim.peers.selling import Selling


class Entry(Value):
    """What a lease begins with on this side."""

    opening: Head
    proven: bool
    #: A paid lease that was open before is opened again to settle it, and takes no run.
    settles: bool = False
    #: Chain time until which its lane must live, while runs are taken on it.
    until_s: int = 0


FREE = Entry(Head(), proven=True)


@dataclass(slots=True)
class _Job:
    request: RunRequest
    received_ns: int
    result: RunResult | None = None
    statement: Statement | None = None
    orders: Sequence[Effect] = ()


class Sale:
    """One lease, until it has ended."""

    def __init__(
        self, shop: Selling, lease: Signed[Lease], accept: Signed[LeaseAccept], end: End, highest: int, entry: Entry
    ) -> None:
        self.shop = shop
        self.peer = peer = shop.peer
        self.id = LeaseId(lease.digest)
        self._lease, self._accept, self._end, self._entry = lease, accept, end, entry
        self._terms = peer.ground.words.terms(lease)
        self.issuer = ReceiptIssuer(
            Tab(self._terms, entry.opening), proven=entry.proven, verify=peer.ground.words.verify
        )
        self._scope = peer.scope.child()
        terms = lease.message
        machine = sale.LeaseSale(
            peer.now_ns(), terms.duration_s, terms.max_runs, shop.wares.terms.lease_idle_ns, highest
        )
        self._driver = Driver(machine, self._scope, peer, self._perform, self._record)
        self._jobs: dict[int, _Job] = {}
        self._receipts: dict[int, Signed[Receipt]] = {}
        self._rows = 0
        #: Statements that were made and are not on the tab yet, and what they are billed for.
        self._made = self._made_units = 0
        self._doubtful_through = highest
        self._unsaid = entry.settles
        self._hears = True
        self._missing: set[int] = set()
        self._news = Bell(peer.ground.heap)
        self._over: Moment[None] = Moment(peer.ground.heap)
        self._draws = peer.stream("compute")
        self._left = False
        self._frames: Work[Any] = Work(self._scope, self._take)
        end.on_frame = self._frames.put
        end.on_close = lambda: self._frames.put(None)

    async def run(self) -> None:
        """Serve it until it ends, whoever ends it."""
        if self._accept.message.resumed:
            await self._resume()
        self._mind_receipts()
        if self._terms.lane and not self._entry.settles:
            self._scope.spawn(self._mind_lane())
        self._driver.arm()
        await self._over.wait()
        self._scope.close()
        self._end.close()
        await self._leave()

    async def _leave(self) -> None:
        if self.shop.till is not None and self._terms.lane and not self._left:
            self._left = True
            await self.shop.till.leave(self._terms, self.issuer)

    # --- what arrives ------------------------------------------------------

    async def _take(self, message: Any) -> None:
        if not self._hears:
            return
        try:
            await self._understand(message)
        except CocoonError as error:
            self._hears = False
            self._driver.post(sale.LeaseBroke(error.code, error.text))

    async def _understand(self, message: Any) -> None:
        match message:
            case ModelOffer(manifest):
                self._name_model(manifest)
            case Chunk(_, index):
                self._missing.discard(index)
                if self._missing:
                    self._driver.post(sale.ModelProgressed())
                else:
                    self.shop.wares.shelf.add(self._lease.message.model)
                    self._driver.post(sale.ModelFetched())
            case RunRequest(number):
                self._jobs.setdefault(number, _Job(message, self.peer.now_ns()))
                self._driver.post(sale.RunsRequested(((number, len(message.inputs)),)))
            case TrancheClose(through):
                await self._close_tranche(through)
            case Countersign(voucher, signature):
                await self._tell(CountersignReceived(Voucher.unpack(voucher), signature))
            case LeaseClose(code):
                self._driver.post(sale.LeaseBroke(code, "closed by the requester"))
            case None:
                self._hears = False
                self._news.ring()
                self._driver.post(sale.LeaseBroke("stream_closed", "the link has ended"))

    def _name_model(self, manifest: bytes) -> None:
        if self._entry.settles:
            raise wrong("lease", "a paid lease that was open before is opened again to settle it, not to run")
        found = unpack_manifest(manifest)
        if model_id(found) != self._lease.message.model:
            raise wrong("model", "the manifest is not that of the leased model")
        if found.sold_as != self._lease.message.kind:
            raise wrong("kind", "the model is sold otherwise")
        self._model_bytes = found.size_bytes
        held = self._lease.message.model in self.shop.wares.shelf
        self._missing = set() if held else set(range(chunk_count(found.size_bytes)))
        self._driver.post(sale.ModelNamed(held))

    async def _close_tranche(self, through: int) -> None:
        if not self._unsaid:
            await self._tell(TrancheClosed(through))
            return
        self._unsaid = False
        await self._tell(StatementsWithdrawn(through))
        await self._tell(TrancheClosed(through))
        await self._settle(self._handle(LinkResumed()))

    # --- what the lease machine orders ---------------------------------------

    async def _record(self, effects: Sequence[Effect]) -> None:
        rows, are_begun = [], False
        for effect in effects:
            match effect:
                case sale.ReserveRuns(through):
                    are_begun = True
                    body, key = records.pack_runs(self.id, through), records.runs_key(self.id, through)
                    rows.append(Row(records.RUNS_RESERVED, body, key))
                case sale.AnswerRuns(numbers):
                    rows += [self._fact(self._state(self._jobs[number])) for number in numbers]
        if are_begun:
            await self.peer.journal.append(*rows)
        else:
            self.peer.journal.write(*rows)

    def _state(self, job: _Job) -> StatementMade:
        """Put the statement of a finished run on the tab."""
        assert job.statement is not None
        self._made -= 1
        self._made_units -= job.statement.units
        made = StatementMade(job.statement)
        job.orders = self._handle(made)
        return made

    def _fact(self, event: Any) -> Row:
        self._rows += 1
        key = records.fact_key(self.id, self._rows)
        return Row(records.RECEIPT_FACT, records.pack_facts(self.id, [pack_event(event)]), key)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case sale.FetchModel():
                self._end.send(ModelWant(file=0, first=0, count=len(self._missing)))
            case sale.LoadModel():
                self._scope.spawn(self._load())
            case sale.SayReady(load_us):
                self._end.send(ModelReady(load_us=load_us))
            case sale.StartRuns(numbers):
                self._scope.spawn(self._execute(numbers))
            case sale.AnswerRuns(numbers):
                for number in numbers:
                    job = self._jobs.pop(number)
                    self._doubtful_through = 0
                    assert job.result is not None
                    self._end.send(job.result)
                    await self._settle(job.orders)
                self._news.ring()
            case sale.FailRun(number, code, text):
                self._jobs.pop(number, None)
                if code == "run_lost" and number <= self._doubtful_through:
                    await self._tell(StatementsWithdrawn(number - 1))
                self._end.send(run_failure(number, from_code(code, text)))
            case sale.EndSale(code, text):
                await self._finish(code, text)

    async def _finish(self, code: str, text: str) -> None:
        """The last receipt, time for its countersignature, the last words."""
        await self._tell(TrancheClosed(self.issuer.tab.last_number))
        self._scope.spawn(self._part(code, text))

    async def _part(self, code: str, text: str) -> None:
        heap = self.peer.ground.heap
        until_ns = heap.now_ns + RECEIPT_REPLY_NS
        while self._hears and self.issuer.outstanding is not None and heap.now_ns < until_ns:
            await self._news.wait(until_ns - heap.now_ns)
        await self._leave()
        told = refusal(from_code(code, text))
        self._end.send(told)
        self._end.send(LeaseClose(code=told.code))
        self._driver.stop()
        self._over.set(None)

    async def _load(self) -> None:
        load_us = self.shop.wares.compute.load_us(self._model_bytes, self._draws)
        await sleep(self._scope, load_us * MICROSECOND_NS)
        self.shop.pace.loaded(self._lease.message.model, load_us)
        self._driver.post(sale.ModelLoaded(load_us))

    async def _execute(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not await self._has_room():
                return
            await self._run(number, self._jobs[number])

    async def _run(self, number: int, job: _Job) -> None:
        queued_us = (self.peer.now_ns() - job.received_ns) // MICROSECOND_NS
        ran_us = self.shop.wares.compute.run_us(self._draws)
        await sleep(self._scope, ran_us * MICROSECOND_NS)
        units = counted_units(self._terms.unit_kind, job.request.inputs)
        self.shop.pace.ran(self._lease.message.model, ran_us, units)
        outputs = hashlib.sha256(job.request.inputs).digest()
        given, made = commit(job.request.salt, job.request.inputs), commit(job.request.salt, outputs)
        job.statement = Statement(
            lease=self.id, number=number, input_alg=given.alg, input=given.hash, output_alg=made.alg, output=made.hash,
            units=units, price_nanoton=self.issuer.tab.price_nanoton(units, self._made_units), ran_us=ran_us,
            queued_us=queued_us,
        )
        self._made += 1
        self._made_units += units
        job.result = RunResult(number=number, outputs=outputs, statement=job.statement.pack())
        self._driver.post(sale.RunsFinished((number,)))

    async def _has_room(self) -> bool:
        """Wait until another unpaid run may be executed (REC-11, MON-13); who never signs loses the lease."""
        if not self.issuer.affordable(*self._with_one_more()):
            self._driver.post(sale.LeaseBroke("limit_exceeded", "the next run would pass the lease's ceiling"))
            return False
        heap = self.peer.ground.heap
        until_ns = heap.now_ns + RECEIPT_REPLY_NS + (0 if self.issuer.proven else LANE_PROOF_NS)
        while not self.issuer.may_start(*self._with_one_more()):
            if heap.now_ns >= until_ns:
                text = f"{len(self.issuer.tab.open)} runs wait for a countersignature"
                self._driver.post(sale.LeaseBroke("receipt_unsettled", text))
                return False
            if not self._made and self.issuer.outstanding is None and self.issuer.tab.open:
                # No receipt is due, but what it would cover leaves no room for the most that this run may cost.
                await self._tell(TrancheClosed(self.issuer.tab.last_number))
            else:
                await self._news.wait(until_ns - heap.now_ns)
        return True

    def _with_one_more(self) -> tuple[int, int]:
        """Runs that are not on the tab yet; and the most that they come to with another one."""
        return self._made, self._made_units + most_units(self._terms.unit_kind)

    async def _mind_lane(self) -> None:
        """Have the lane of a lease on credit proven; serve none that ends before it can be claimed from (LAN-32)."""
        till = self.shop.till
        assert till is not None
        ending = till.serve(self._terms, self._entry)
        try:
            if not self.issuer.proven:
                await till.prove(self._terms, self.issuer.tab.opening, self._lease.message.duration_s)
                self._handle(LaneProven())
                self._news.ring()
            await ending.wait()
        except CocoonError as error:
            self._driver.post(sale.LeaseBroke(error.code, error.text))
        else:
            self._driver.post(sale.LeaseBroke("lane_closing", "the lane ends before this lease can be claimed"))

    # --- receipts ----------------------------------------------------------------

    def _handle(self, event: Any) -> list[Effect]:
        orders: list[Effect] = self.peer.drive(self.issuer, event)
        self._mind_receipts()
        return orders

    async def _resume(self) -> None:
        """Bring the receipt machine to where it stood before the link, or this peer, was lost."""
        bodies = [row.body for row in self.peer.journal.under(records.facts_of(self.id))]
        self._rows = len(bodies)
        await self._settle(replay(self.issuer, self.peer.now_ns(), records.facts_in(bodies)), aloud=False)
        if not self._entry.settles:
            await self._settle(self._handle(LinkResumed()))

    async def _tell(self, event: Any) -> None:
        before = self.issuer.mark()
        effects = self._handle(event)
        if self.issuer.mark() != before:
            await self.peer.journal.append(self._fact(event))
        await self._settle(effects)

    async def _settle(self, effects: Sequence[Effect], *, aloud: bool = True) -> None:
        for effect in effects:
            match effect:
                case IssueReceipt(body):
                    receipt = self._receipts[body.seq] = sign(body, self.peer.signer)
                    key = records.receipt_key(receipt.digest)
                    if self.peer.journal.find(key) is None:
                        await self.peer.journal.append(Row(records.RECEIPT_ISSUED, receipt.pack(), key))
                    self._news.ring()
                    if aloud:
                        self._end.send(ReceiptIssued(receipt=receipt.pack()))
                case SettleTranche(body, statements, voucher, signature):
                    receipt = self._receipts.pop(body.seq)
                    words = Countersigned.of(self._lease, self._accept, receipt, voucher.pack(), signature)
                    await self._keep(receipt, ReceiptRecord(words, statements).pack(), voucher, signature)
                    self._news.ring()
                case ReportUnsettled(seq):
                    self._driver.post(sale.LeaseBroke("receipt_unsettled", f"receipt {seq} is not countersigned"))

    async def _keep(self, receipt: Signed[Receipt], record: bytes, voucher: Voucher, signature: bytes) -> None:
        """Record a settled receipt, and with it what its voucher is worth."""
        settled = Row(records.RECEIPT_SETTLED, record, records.settled_key(receipt.digest))
        till = self.shop.till if self._terms.lane else None
        rows = [settled] if till is None else [settled, till.row(self._terms, voucher, signature)]
        assert settled.unique is not None
        if self.peer.journal.find(settled.unique) is None:
            await self.peer.journal.append(*rows)
        if till is not None:
            till.keep(self._terms, voucher, signature)

    def _mind_receipts(self) -> None:
        """See to it that the receipt machine hears when its time is up."""
        due_ns = self.issuer.deadline_ns()
        if due_ns is not None:
            heap = self.peer.ground.heap
            self._scope.later(max(0, self.peer.world_ns(due_ns) - heap.now_ns), self._receipt_due, due_ns)

    def _receipt_due(self, due_ns: int) -> None:
        if self.issuer.deadline_ns() == due_ns:
            self._scope.spawn(self._settle(self._handle(DeadlinePassed())))

