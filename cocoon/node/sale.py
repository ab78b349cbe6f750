"""One sale: the sealed link, the worker, the statements and the receipts of one lease.

Purity: shell. Spec: docs/spec/leases.md, rules LEA-1 to LEA-9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from typing import cast

import trio

from cocoon.core.errors import CocoonError, from_code, wrong
from cocoon.core.groups import single_error
from cocoon.core.ids import LeaseId, ReceiptHash
from cocoon.core.limits import RECEIPT_REPLY_NS
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.ledger.events import (
    CountersignReceived,
    IssueReceipt,
    LaneProven,
    LinkResumed,
    ProviderEvent,
    ReportUnsettled,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.record import Countersigned, ReceiptRecord
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.delivery import Delivery
from cocoon.node.driver import Driver
from cocoon.node.execution import Execution
from cocoon.node.generation import Generation
from cocoon.node.link import WorkLink
from cocoon.node.means import Shop
from cocoon.node.till import FREE, Entry, Till
from cocoon.scheduler import sale
from cocoon.store.service import Row
from cocoon.wire.judged import Voucher
from cocoon.wire.manifest import Manifest, unpack_manifest
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    Countersign,
    Lease,
    LeaseAccept,
    LeaseClose,
    ModelOffer,
    ModelReady,
    Receipt,
    ReceiptIssued,
    RunCancel,
    RunRequest,
    TrancheClose,
    refusal,
    run_failure,
)
from cocoon.wire.schema import Message
from cocoon.wire.signing import Signed, sign

_FROM_REQUESTER = (ModelOffer, ChunkHashes, Chunk, RunRequest, RunCancel, TrancheClose, Countersign, LeaseClose)


class Sale:
    """Runs until the lease has ended; then nothing of it remains but journal entries."""

    def __init__(
        self, shop: Shop, lease: Signed[Lease], accept: Signed[LeaseAccept], link: WorkLink, highest: int,
        entry: Entry = FREE,
    ) -> None:
        """``highest`` is the last run that may have been begun, ``entry`` where the lane of a paid lease stands."""
        terms = lease.message
        self._shop = shop
        self._lease = lease
        self._accept = accept
        self._id = LeaseId(lease.digest)
        self._link = link
        self._terms = terms_of(lease)
        self._issuer = ReceiptIssuer(Tab(self._terms, entry.opening), proven=entry.proven)
        self._receipts: dict[int, Signed[Receipt]] = {}
        #: Rows of facts in the journal.
        self._rows = 0
        self._hears = True
        self._receipt_news = trio.Event()
        # Runs below this may never have reached the requester; those of this link did.
        self._doubtful_through = highest
        self._entry = entry
        # A lease that is settled begins with what its requester holds.
        self._unsaid = entry.settles
        self._left = False
        machine = sale.LeaseSale(
            shop.clock.now_ns(), terms.duration_s, terms.max_runs, shop.terms.lease_idle_ns, highest
        )
        self._driver = Driver(machine, shop.clock, self._perform, self._record, link.flush)
        self._execution_needs = (
            shop, lease, self._issuer, lambda: self._receipt_news, self._driver.post, self._close_open
        )
        self._execution = Execution(*self._execution_needs)
        self._delivery = Delivery(shop, terms, self._id, self._driver.post, link.post, link.flush)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Serve the lease until it ends, whoever ends it."""
        try:
            with single_error():
                await self._serve()
        except CocoonError as error:
            await self._part(error.code, error.text)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._clear()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._accept.message.resumed:
                await self._resume()
                await self._link.flush()
            nursery.start_soon(self._read)
            nursery.start_soon(self._link.keep_sending)
            nursery.start_soon(self._mind_receipts)
            if self._shop.till is not None and self._terms.lane and not self._entry.settles:
                nursery.start_soon(self._mind_lane, self._shop.till)
            await self._driver.run()
            nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        """Free the lane of a paid lease, once."""
        if self._shop.till is not None and self._terms.lane and not self._left:
            self._left = True
            await self._shop.till.leave(self._terms, self._issuer)

    async def drain(self) -> None:
        """Finish what is under way, give the receipt for it, and end."""
        await self._driver.post(sale.DrainAsked())

    async def _clear(self) -> None:
        async with AsyncExitStack() as stack:           # a full disk must not keep a worker alive
            stack.push_async_callback(self._link.close)
            stack.callback(self._delivery.discard)
            stack.push_async_callback(self._execution.close)
            await self._leave()

    # --- what arrives ------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                await self._take_all(await self._link.receive_all(*_FROM_REQUESTER))
        except CocoonError as error:
            self._hears = False
            self._tell_news()
            await self._driver.post(sale.LeaseBroke(error.code, error.text))

    async def _take_all(self, messages: Sequence[Message]) -> None:
        """In their order, and requests that follow each other as one."""
        for kind, some in groupby(messages, type):
            if kind is RunRequest:
                requests = cast(list[RunRequest], list(some))
                self._execution.take(requests)
                await self._driver.post(sale.RunsRequested(tuple([(one.number, len(one.inputs)) for one in requests])))
            else:
                for message in some:
                    await self._take(message)

    async def _take(self, message: Message) -> None:
        match message:
            case ModelOffer(manifest):
                await self._name_model(unpack_manifest(manifest))
            case ChunkHashes(file, hashes):
                self._delivery.expect(file, hashes)
            case Chunk(file, index, data):
                await self._delivery.store(file, index, data)
            case RunCancel(number):
                self._execution.cancel(number)
            case TrancheClose(through):
                await self._close_tranche(through)
            case Countersign(voucher, signature):
                await self._tell(CountersignReceived(Voucher.unpack(voucher), signature))
            case LeaseClose(code):
                await self._driver.post(sale.LeaseBroke(code, "closed by the requester"))

    async def _close_tranche(self, through: int) -> None:
        if not self._unsaid:
            await self._tell(TrancheClosed(through))
            return
        # The first word on a lease that is settled: what lies above never reached the requester (REC-13).
        self._unsaid = False
        await self._tell(StatementsWithdrawn(through))
        await self._tell(TrancheClosed(through))
        await self._settle(self._issuer.handle(self._shop.clock.now_ns(), LinkResumed()))

    async def _name_model(self, manifest: Manifest) -> None:
        if self._entry.settles:
            raise wrong("lease", "a paid lease that was open before is opened again to settle it, not to run")
        await self._delivery.name(manifest)

    # --- what the lease machine orders -------------------------------------

    async def _record(self, effects: Sequence[Effect]) -> None:
        rows, are_begun = [], False
        for effect in effects:
            match effect:
                case sale.ReserveRuns(through):
                    are_begun = True
                    body = records.pack_runs(self._id, through)
                    rows.append(Row(records.RUNS_RESERVED, body, records.runs_key(self._id, through)))
                case sale.AnswerRuns(numbers):
                    # Taken and queued for the disk without a pause between: a replay sees the same order (REC-18).
                    rows.append(self._row([self._state(number) for number in numbers]))
        if are_begun:                                   # no number is begun twice, whatever comes
            await self._shop.journal.append_many(rows)
        else:                                           # what a power cut takes of results we forgo (REC-26)
            self._shop.journal.write(rows)

    def _state(self, number: int) -> ProviderEvent:
        """Put the statement of a finished run on the tab."""
        job, statement = self._execution.recorded(number)
        made = StatementMade(statement)
        job.orders = self._issuer.handle(self._shop.clock.now_ns(), made)
        return made

    def _row(self, events: Sequence[ProviderEvent]) -> Row:
        self._rows += 1
        body = records.pack_facts(self._id, [pack_event(event) for event in events])
        return Row(records.RECEIPT_FACT, body, records.fact_key(self._id, self._rows))

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case sale.FetchModel():
                self._nursery.start_soon(self._delivery.fetch)
            case sale.LoadModel():
                self._nursery.start_soon(self._load)
            case sale.SayReady(load_us):
                self._link.post(ModelReady(load_us=load_us))
            case sale.StartRuns(numbers):
                self._execution.begin(self._nursery, numbers)
            case sale.AnswerRuns(numbers):
                for number in numbers:
                    await self._answer(number)
                if self._execution.waits:
                    self._tell_news()
            case sale.FailRun(number, code, text):
                self._execution.pop(number)
                if code == "run_lost" and number <= self._doubtful_through:
                    await self._tell(StatementsWithdrawn(number - 1))
                self._link.post(run_failure(number, from_code(code, text)))
            case sale.EndSale(code, text):
                self._shop.log.info("lease_ended", lease=self._id, code=code)
                await self._tell(TrancheClosed(self._issuer.tab.last_number))
                await self._link.flush()
                await self._await_countersign()
                await self._leave()
                await self._part(code, text)
                self._driver.stop()

    async def _await_countersign(self) -> None:
        """Give a requester that is still there the time to countersign the last receipt."""
        with trio.move_on_after(RECEIPT_REPLY_NS / SECOND_NS):
            while self._hears and self._issuer.outstanding is not None:
                await self._receipt_news.wait()

    async def _part(self, code: str, text: str) -> None:
        """The last words on the link: the cause, for people, then the end."""
        told = refusal(from_code(code, text))
        self._link.post(told)
        self._link.post(LeaseClose(code=told.code))
        await self._link.flush()

    async def _load(self) -> None:
        try:
            model = await self._delivery.verified()
            if model.manifest.speaks:
                self._execution = generation = Generation(*self._execution_needs, self._link.post)
                self._nursery.start_soon(generation.speak)
            load_us = await self._execution.load(model)
        except CocoonError as error:
            await self._driver.post(sale.LeaseBroke(error.code, error.text))
        else:
            if load_us:                                 # else another lease had it loaded
                self._shop.bids.pace.loaded(self._lease.message.model, load_us)
            await self._driver.post(sale.ModelLoaded(load_us))

    async def _mind_lane(self, till: Till) -> None:
        """Have the lane of a lease on credit proven; serve none that ends before it can be claimed from (LAN-32)."""
        ending = till.serve(self._terms, self._entry)
        try:
            if not self._issuer.proven:
                await till.prove(self._terms, self._issuer.tab.opening, self._lease.message.duration_s)
                self._issuer.handle(self._shop.clock.now_ns(), LaneProven())
                self._tell_news()
            await ending.wait()
        except CocoonError as error:
            await self._driver.post(sale.LeaseBroke(error.code, error.text))
        else:
            await self._driver.post(sale.LeaseBroke("lane_closing", "the lane ends before this lease can be claimed"))

    async def _answer(self, number: int) -> None:
        job = self._execution.pop(number)
        assert job is not None and job.result is not None   # AnswerRuns follows RunsFinished
        # From here on a number asked again is a replay, which must not make us forget what is owed.
        self._doubtful_through = 0
        self._link.post(job.result)
        if job.orders:
            await self._settle(job.orders)

    async def _close_open(self) -> None:
        """End the tranche before it is due: the most that the next run may cost has no room beside it (MON-14)."""
        await self._tell(TrancheClosed(self._issuer.tab.last_number))

    # --- receipts ----------------------------------------------------------

    async def _resume(self) -> None:
        """Bring the receipt machine to where it stood before the link, or this peer, was lost."""
        bodies = [entry.body for entry in self._shop.journal.under(records.facts_of(self._id))]
        self._rows = len(bodies)
        now_ns = self._shop.clock.now_ns()
        # What a crash kept from being recorded is recorded now; what was said then is not said again.
        orders = replay(self._issuer, now_ns, records.facts_in(bodies))
        await self._settle(orders, aloud=False)
        if not self._entry.settles:
            await self._settle(self._issuer.handle(now_ns, LinkResumed()))

    async def _tell(self, event: ProviderEvent) -> None:
        """Give a fact to the receipt machine and queue it for the journal without a pause between."""
        assert isinstance(event, JOURNALLED)
        now_ns = self._shop.clock.now_ns()
        before = self._issuer.mark()
        effects = self._issuer.handle(now_ns, event)
        if self._issuer.mark() != before:               # a replayed word must not cost us a row of the journal
            await self._shop.journal.append_many([self._row([event])])
        await self._settle(effects)

    async def _settle(self, effects: Sequence[Effect], *, aloud: bool = True) -> None:
        for effect in effects:
            match effect:
                case IssueReceipt(body):
                    receipt = self._receipts[body.seq] = sign(body, self._shop.identity)
                    await self._once(records.RECEIPT_ISSUED, receipt.pack(), records.receipt_key(receipt.digest))
                    self._tell_news()
                    if aloud:
                        self._link.post(ReceiptIssued(receipt=receipt.pack()))
                case SettleTranche(body, statements, voucher, signature):
                    receipt = self._receipts.pop(body.seq)
                    words = Countersigned.of(self._lease, self._accept, receipt, voucher.pack(), signature)
                    record = ReceiptRecord(words, statements).pack()
                    settled = Row(records.RECEIPT_SETTLED, record, records.settled_key(receipt.digest))
                    await self._keep(settled, voucher, signature)
                    if self._shop.anchors is not None:
                        self._shop.anchors.keep(ReceiptHash(receipt.digest))
                    self._tell_news()
                case ReportUnsettled(seq):
                    await self._driver.post(sale.LeaseBroke("receipt_unsettled", f"receipt {seq} is not countersigned"))

    async def _keep(self, settled: Row, voucher: Voucher, signature: bytes) -> None:
        """Record a settled receipt, and with it what its voucher is worth."""
        till = self._shop.till if self._terms.lane else None
        rows = [settled] if till is None else [settled, till.row(self._terms, voucher, signature)]
        assert settled.unique is not None
        if self._shop.journal.find(settled.unique) is None:
            await self._shop.journal.append_many(rows)
        if till is not None:
            till.keep(self._terms, voucher, signature)

    def _tell_news(self) -> None:
        """Wake whoever waits for a receipt to be issued or settled."""
        self._receipt_news.set()
        self._receipt_news = trio.Event()

    async def _mind_receipts(self) -> None:
        """Tell the receipt machine when its time is up: it sends again, then gives the requester up (REC-12)."""
        while True:
            news, due_ns = self._receipt_news, self._issuer.deadline_ns()
            now_ns = self._shop.clock.now_ns()
            if due_ns is not None and now_ns >= due_ns:
                await self._settle(self._issuer.handle(now_ns, DeadlinePassed()))
                await self._link.flush()
                continue
            patience_s = math.inf if due_ns is None else (due_ns - now_ns) / SECOND_NS
            with trio.move_on_after(patience_s):
                await news.wait()

    async def _once(self, kind: str, body: bytes, key: bytes) -> None:
        """Record what is idempotent by its key."""
        if self._shop.journal.find(key) is None:
            await self._shop.journal.append(kind, body, key)
