"""The anchor: this provider's countersigned receipts, batched under roots on chain.

Purity: shell. Spec: docs/spec/anchoring.md, rules BAT-1 to BAT-9; anchor.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import ChainRefused, ChainUnreachable, CocoonError
from cocoon.core.ids import PeerKey, ReceiptHash
from cocoon.core.limits import ANCHOR_CARRY_NANOTON, ANCHOR_WAIT_NS, CLAIM_WAIT_S, RETRY_LAST_NS
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.ledger import anchor
from cocoon.ledger.anchor import AnchorBirth, AnchorState
from cocoon.ledger.anchoring import (
    ANCHOR_FACTS,
    AnchorAsked,
    AnchorBatcher,
    AnchorEvent,
    AnchorLapsed,
    AnchorOrdered,
    AnchorSeen,
    LookAtAnchor,
    ReceiptKept,
    ReportAnchored,
    SendAnchor,
)
from cocoon.ledger.export import AnchoredRecord
from cocoon.ledger.service import Sent
from cocoon.ledger.verify import verify_record
from cocoon.ledger.wallet import Outgoing
from cocoon.node import records
from cocoon.node.money import Money
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log
from cocoon.wire.cells import Cell


@dataclass(frozen=True, slots=True)
class Anchored:
    """The newest batch that is on chain, the anchor's transaction that took it, and how many receipts all hold."""

    ordered: AnchorOrdered
    transaction: bytes
    receipts: int


class Anchors:
    """Anchors receipts as the batcher orders it."""

    def __init__(self, money: Money, peer: PeerKey, journal: Journal, clock: Clock, log: Log) -> None:
        self.birth = AnchorBirth(money.ledger.address, peer, money.network_tag)
        self.batcher = AnchorBatcher()
        self._address = self.birth.address()
        self._money = money
        self._journal = journal
        self._clock = clock
        self._log = log
        self._news = trio.Event()
        # The last attempt failed; the next one is made after a while, or when somebody asks.
        self._stuck = False
        self._again = trio.Event()
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Take up the journal, then anchor until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._run()

    async def _run(self) -> None:
        receipts = [verify_record(entry.body).receipt for entry in self._journal.entries(records.RECEIPT_SETTLED)]
        batches = [ANCHOR_FACTS.unpack(entry.body) for entry in self._journal.entries(records.ANCHOR_FACT)]
        await self._do(self.batcher.restore(self._clock.now_ns(), receipts, batches))
        while True:
            news, due_ns = self._news, self.batcher.deadline_ns()
            wait_s = math.inf if due_ns is None else max(0, due_ns - self._clock.now_ns()) / SECOND_NS
            with trio.move_on_after(wait_s):
                await news.wait()
                continue
            await self._tell(DeadlinePassed())

    def keep(self, digest: ReceiptHash) -> None:
        """A receipt was countersigned and is in the journal."""
        # In a task of ours: whoever tells of a receipt may end before a batch is on chain.
        self._nursery.start_soon(self._tell, ReceiptKept(digest))

    async def anchor_now(self) -> None:
        """Anchor what no batch holds yet; returns when everything is on chain, that failed, or the wait is over."""
        self._stuck = False
        self._again.set()
        with trio.move_on_after(ANCHOR_WAIT_NS / SECOND_NS):
            while not self.batcher.settled and not self._stuck:
                news = self._news
                if not self.batcher.asked:              # also for receipts that came behind the last batch
                    self._nursery.start_soon(self._tell, AnchorAsked())
                await news.wait()

    async def newest(self) -> Anchored | None:
        """The newest batch on chain with its transaction; None if nothing was anchored."""
        state = await self._state()
        landed = [batch for batch in self.batcher.batches if state is not None and batch.seq <= state.seq]
        if not landed:
            return None
        for transaction in reversed(await self._money.ledger.transactions(self._address)):
            if transaction.success and transaction.in_body == _body(landed[-1]):
                return Anchored(landed[-1], transaction.hash, sum(batch.count for batch in landed))
        return None

    def export(self, receipt: ReceiptHash, record: bytes) -> bytes:
        """``record`` with its place under an anchored root.

        Raises:
            NotFound: the receipt is not anchored yet.
        """
        return AnchoredRecord(record, self.birth, self.batcher.proof(receipt)).pack()

    async def _tell(self, event: AnchorEvent | DeadlinePassed) -> None:
        await self._do(self.batcher.handle(self._clock.now_ns(), event))
        self._tell_news()

    def _tell_news(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case LookAtAnchor():
                    await self._tell(AnchorSeen(await self._look()))
                case SendAnchor(ordered):
                    await self._send(ordered)
                case ReportAnchored(ordered):
                    self._log.info("anchored", number=ordered.seq, count=ordered.count)

    async def _look(self) -> AnchorState | None:
        """The anchor in proven state, however long the chain is away."""
        while True:
            try:
                return await self._state()
            except CocoonError as error:
                self._log.warning("anchor_not_seen", code=error.code)
            await trio.sleep(RETRY_LAST_NS / SECOND_NS)

    async def _state(self) -> AnchorState | None:
        account = await self._money.ledger.account(self._address)
        return None if account.data is None else anchor.read_anchor(account.data)

    async def _send(self, ordered: AnchorOrdered) -> None:
        """Record the batch, carry it to the contract, and look what became of it."""
        key = records.anchor_key(ordered.seq, ordered.root)
        if self._journal.find(key) is None:
            await self._journal.append(records.ANCHOR_FACT, ANCHOR_FACTS.pack(ordered), key)
        # The first one deploys; it stays the same message however often it is handed in.
        deploy = self.birth.state_init() if ordered.seq == 1 else None
        try:
            sent = await self._money.ledger.submit(
                key, Outgoing(self._address, ANCHOR_CARRY_NANOTON, _body(ordered), deploy)
            )
            await self._executed(ordered, sent)
        except CocoonError as error:
            self._log.warning("anchor_failed", number=ordered.seq, code=error.code, text=error.text)
            self._stuck, self._again = True, trio.Event()
            self._tell_news()
            with trio.move_on_after(RETRY_LAST_NS / SECOND_NS):
                await self._again.wait()
            await self._tell(AnchorLapsed(ordered.seq))
        else:
            await self._tell(AnchorSeen(await self._look()))

    async def _executed(self, ordered: AnchorOrdered, sent: Sent) -> None:
        """Wait until the anchor took the root.

        Raises:
            ChainRefused: it did not.
        """
        account = await self._money.ledger.account(self._address)
        end_s = account.at_s + CLAIM_WAIT_S
        while account.at_s < end_s:
            for transaction in await self._money.ledger.transactions(self._address, sent.lt):
                if transaction.in_body == _body(ordered):
                    if transaction.success:
                        return
                    raise ChainRefused(f"the anchor refused root {ordered.seq} (exit code {transaction.exit_code})")
            await self._money.chain.wait_block(account.seqno)
            account = await self._money.ledger.account(self._address)
        raise ChainUnreachable(f"root {ordered.seq} was not anchored within {CLAIM_WAIT_S} s")


def _body(ordered: AnchorOrdered) -> Cell:
    return anchor.anchor_body(ordered.seq, ordered.seq, ordered.root, ordered.count)
