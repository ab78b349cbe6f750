"""The anchor: this provider's countersigned receipts, batched under roots on chain.

Purity: shell. Spec: docs/spec/anchoring.md, rules BAT-1 to BAT-9; anchor.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, Corrupt, SignerLost
from cocoon.core.ids import PeerKey, ReceiptHash
from cocoon.core.limits import ANCHOR_CARRY_NANOTON, ANCHOR_NS, ANCHOR_WAIT_NS, CLAIM_WAIT_S, RETRY_LAST_NS
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
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
from cocoon.ledger.wallet import Outgoing
from cocoon.node import records
from cocoon.node.money import Money
from cocoon.node.patience import persist
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log
from cocoon.wire.cells import Cell

#: Rows of the journal that are read without a turn for other tasks: some milliseconds.
_ROWS_A_TURN = 256


class Anchored(Value):
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
        # The journal is read.
        self._begun = False
        # Number of the newest row that was taken from it.
        self._read = 0
        self._events: deque[AnchorEvent | DeadlinePassed] = deque()
        self._posted = trio.Event()
        self._news = trio.Event()
        # The last attempt failed; the next one is made after a while, or when somebody asks.
        self._stuck = False
        self._again = trio.Event()
        # Messages with the outstanding root that are in a block and did not anchor it.
        self._spent = 0

    async def run(self) -> None:
        """Take up the journal, then anchor until cancelled."""
        await self._do(await self._begin())
        while True:
            for event in self._in_order(await self._next()):
                await self._do(self.batcher.handle(self._clock.now_ns(), event))
            self._tell_news()

    def keep(self, digest: ReceiptHash) -> None:
        """A receipt was countersigned and is in the journal."""
        self._post(ReceiptKept(digest))

    async def anchor_now(self) -> None:
        """Anchor what no batch holds yet; returns when everything is on chain, that failed, or the wait is over."""
        self._stuck = False
        self._again.set()
        with trio.move_on_after(ANCHOR_WAIT_NS / SECOND_NS):
            while not self._settled and not self._stuck:
                news = self._news
                if not self._events and not self.batcher.asked:     # also for receipts that came behind the last batch
                    self._post(AnchorAsked())
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

    @property
    def _settled(self) -> bool:
        """Whether every receipt that anybody told of is under a root that is on chain."""
        return self._begun and not self._events and self.batcher.settled

    async def _begin(self) -> list[Effect]:
        """Read the journal; what it leaves to do."""
        receipts: list[ReceiptHash] = []
        for digest in self._unread():
            receipts.append(digest)
            if not len(receipts) % _ROWS_A_TURN:
                await trio.lowlevel.checkpoint()
        batches = [ANCHOR_FACTS.unpack(entry.body) for entry in self._journal.entries(records.ANCHOR_FACT)]
        effects = self.batcher.restore(self._clock.now_ns(), receipts, batches)
        if (out := self.batcher.outstanding) is not None:
            self._spent = self._spent_before(out)
        self._begun = True
        return effects

    def _unread(self) -> Iterator[ReceiptHash]:
        """Receipts behind the newest that was read. Their keys name them; verifying a record takes a millisecond."""
        for entry in self._journal.entries(records.RECEIPT_SETTLED, self._read):
            self._read = entry.seq
            yield records.settled_digest(entry.unique)

    def _post(self, event: AnchorEvent) -> None:
        self._events.append(event)
        self._posted.set()

    async def _next(self) -> AnchorEvent | DeadlinePassed:
        """The next fact, or that the machine's time is up."""
        while not self._events:
            self._posted, due_ns = trio.Event(), self.batcher.deadline_ns()
            wait_s = math.inf if due_ns is None else max(0, due_ns - self._clock.now_ns()) / SECOND_NS
            with trio.move_on_after(wait_s) as waited:
                await self._posted.wait()
            if waited.cancelled_caught:
                return DeadlinePassed()
        return self._events.popleft()

    def _in_order(self, event: AnchorEvent | DeadlinePassed) -> Sequence[AnchorEvent | DeadlinePassed]:
        """``event``; of receipts all that the journal has: leases may tell of theirs in another order (BAT-1)."""
        if not isinstance(event, ReceiptKept):
            return [event]
        return [ReceiptKept(digest) for digest in self._unread()]

    def _tell_news(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case LookAtAnchor():
                    self._post(await self._look())
                case SendAnchor(ordered):
                    self._post(await self._send(ordered))
                case ReportAnchored(ordered):
                    self._log.info("anchored", number=ordered.seq, count=ordered.count)

    async def _look(self) -> AnchorSeen:
        """The anchor in proven state, however long the chain is away."""
        return AnchorSeen(await persist(self._log, "anchor_not_seen", self._state))

    async def _state(self) -> AnchorState | None:
        account = await self._money.ledger.account(self._address)
        return None if account.data is None else anchor.read_anchor(account.data)

    async def _send(self, ordered: AnchorOrdered) -> AnchorSeen | AnchorLapsed:
        """Record the batch, carry it to the contract, and look what became of it."""
        pause_ns = RETRY_LAST_NS
        try:
            await self._record(ordered)
            sent = await self._money.ledger.submit(_name(ordered, self._spent), self._message(ordered))
            if await self._executed(ordered, sent):
                return await self._look()
            # The next message costs gas too, so it is not sent as soon as an attempt that cost nothing is repeated.
            self._spent += 1
            pause_ns = ANCHOR_NS
        except (Corrupt, SignerLost):
            raise                                       # no attempt mends these (ERR-5)
        except CocoonError as error:
            self._log.failure("anchor_failed", error, number=ordered.seq)
        await self._pause(pause_ns)
        return AnchorLapsed(ordered.seq)

    async def _record(self, ordered: AnchorOrdered) -> None:
        key = records.anchor_key(ordered.seq, ordered.root)
        if self._journal.find(key) is None:
            await self._journal.append(records.ANCHOR_FACT, ANCHOR_FACTS.pack(ordered), key)
            self._spent = 0

    def _message(self, ordered: AnchorOrdered) -> Outgoing:
        """What carries the root. The first one deploys; it is the same message however often it is handed in."""
        deploy = self.birth.state_init() if ordered.seq == 1 else None
        return Outgoing(self._address, ANCHOR_CARRY_NANOTON, _body(ordered), deploy)

    def _spent_before(self, ordered: AnchorOrdered) -> int:
        """The number of the newest message that an earlier life gave to the wallet: it may still be executed."""
        prefix = records.anchor_key(ordered.seq, ordered.root)
        row = self._money.ledger.newest(prefix)
        return 0 if row is None else int.from_bytes(row.key.removeprefix(prefix), "big")

    async def _executed(self, ordered: AnchorOrdered, sent: Sent) -> bool:
        """Wait for what the anchor did with this message; False if it refused it, or did not get it in time."""
        ledger, body = self._money.ledger, _body(ordered)
        while True:
            account = await ledger.account(self._address)
            for transaction in await ledger.transactions(self._address, sent.lt):
                if transaction.in_source == ledger.address and transaction.in_body == body:
                    if not transaction.success:
                        self._log.warning("anchor_refused", number=ordered.seq, exit_status=transaction.exit_code)
                    return transaction.success
            if account.at_s >= sent.at_s + CLAIM_WAIT_S:
                self._log.warning("anchor_lapsed", number=ordered.seq)
                return False
            await self._money.chain.wait_block(account.seqno)

    async def _pause(self, most_ns: int) -> None:
        """Wait before the next attempt, or until somebody asks."""
        self._stuck, self._again = True, trio.Event()
        self._tell_news()
        with trio.move_on_after(most_ns / SECOND_NS):
            await self._again.wait()


def _body(ordered: AnchorOrdered) -> Cell:
    return anchor.anchor_body(ordered.seq, ordered.seq, ordered.root, ordered.count)


def _name(ordered: AnchorOrdered, spent: int) -> bytes:
    """The wallet's name of the message with this root that follows ``spent`` others."""
    return records.anchor_key(ordered.seq, ordered.root) + spent.to_bytes(4, "big")
