"""The tally: a requester's account of one lease, as long as it runs and whenever it is opened again to settle.

On paid leases every fact is in the journal before anything rests on it, in the
order in which the machine took it, so that what is owed survives any crash.

Purity: shell. Spec: docs/spec/receipts.md, rules REC-11 to REC-19; leases.md, rules LEA-10 to LEA-15.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from cocoon.core.errors import UsageError
from cocoon.core.ids import LeaseId
from cocoon.ledger import events as receipts
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.receipt import ReceiptVerifier
from cocoon.ledger.record import Countersigned, ReceiptRecord
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.means import Purse
from cocoon.store.service import Row
from cocoon.wire.judged import Statement, Voucher, sign_cell
from cocoon.wire.messages import Countersign, Lease, LeaseAccept, Receipt, TrancheClose
from cocoon.wire.schema import Message
from cocoon.wire.signing import Signed, Signer

Say = Callable[[Message], None]
Settled = Callable[[Signed[Receipt], tuple[int, ...]], Awaitable[None]]


class Tally:
    """What was accepted on one lease, and what was promised for it."""

    def __init__(self, purse: Purse, lease: Signed[Lease], opening: Head, say: Say, settled: Settled) -> None:
        """
        Args:
            opening: Where the lane stood when the lease began.
            say: Lets one message leave to the provider with the next flush of the link.
            settled: Told of each receipt that is verified and countersigned, with the run numbers under it.
        """
        self.verifier = ReceiptVerifier(Tab(terms_of(lease), opening))
        self.id = LeaseId(lease.digest)
        self.lane = lease.message.lane
        self._purse = purse
        self._lease = lease
        self._say = say
        self._settled = settled
        #: Rows of facts in the journal, and facts that come before whatever is recorded next.
        self._rows = 0
        self._unwritten: list[bytes] = []

    @property
    def tab(self) -> Tab:
        """Statements, figures, head."""
        return self.verifier.tab

    def restore(self) -> None:
        """Take what an earlier life of this lease recorded."""
        bodies = [entry.body for entry in self._purse.journal.under(records.facts_of(self.id))]
        self._rows = len(bodies)
        # Every order among them left or is asked for again: a countersignature by the provider, a receipt by us.
        replay(self.verifier, self._purse.clock.now_ns(), records.facts_in(bodies))

    def accept(self, statement: Statement) -> receipts.RunAccepted:
        """Take a statement that was checked; a fact for ``owe``."""
        event = receipts.RunAccepted(statement)
        self.verifier.handle(self._purse.clock.now_ns(), event)
        return event

    def owe(self, events: Sequence[receipts.RunAccepted]) -> None:
        """Have these recorded before, or together with, whatever is recorded on this lease from now on."""
        self._unwritten += self._facts(events)

    def record(self, rows: Sequence[Row]) -> None:
        """Write down what users are given, and before it all that is owed.

        A power cut may take both: to the provider the results were then lost on the way, and it withdraws
        what it stated of them (REC-13).
        """
        facts = []
        if self._unwritten:
            body, key = records.pack_facts(self.id, self._unwritten), records.fact_key(self.id, self._rows + 1)
            facts = [Row(records.RECEIPT_FACT, body, key)]
        self._purse.journal.write([*facts, *rows])
        self._rows += len(facts)
        self._unwritten = []

    async def tell(self, event: receipts.RequesterEvent, accept: Signed[LeaseAccept]) -> None:
        """Tell the receipt machine a fact and do what it orders.

        Args:
            accept: The provider's countersignature under which the link is open; it goes into records.

        Raises:
            PeerFault: a receipt that does not fit our own account.
        """
        before = self.verifier.mark()
        effects = self.verifier.handle(self._purse.clock.now_ns(), event)
        signed = [effect for effect in effects if isinstance(effect, receipts.Countersign)]
        signatures = {effect.voucher: self._sign(effect.voucher) for effect in signed}
        rows = [self._row(effect, accept, signatures[effect.voucher]) for effect in signed]
        if self.verifier.mark() != before:              # a replayed word must not cost a row of the journal
            self._unwritten += self._facts([event])
        self.record(rows)
        if effects:
            await self._purse.journal.flush()
        for effect in effects:
            match effect:
                case receipts.AskReceipt(through):
                    self._say(TrancheClose(through=through))
                case receipts.Countersign(voucher, receipt, statements):
                    self._promise(voucher, signatures[voucher])
                    await self._settled(receipt, tuple(statement.number for statement in statements))
                case receipts.RepeatCountersign(voucher):
                    self._promise(voucher, self._sign(voucher))

    def repeat(self) -> None:
        """Send the newest countersignature again: the provider may not have it."""
        if self.verifier.promised is not None:
            self._promise(self.verifier.promised, self._sign(self.verifier.promised))

    def _facts(self, events: Sequence[receipts.RequesterEvent]) -> list[bytes]:
        """As the journal has them. Price-0 leases are not resumed: nothing is owed for them."""
        return [pack_event(event) for event in events if isinstance(event, JOURNALLED)] if self.lane else []

    def _row(self, effect: receipts.Countersign, accept: Signed[LeaseAccept], signature: bytes) -> Row:
        """The record that makes the promise provable, durable before the promise leaves."""
        words = Countersigned.of(self._lease, accept, effect.receipt, effect.voucher.pack(), signature)
        record = ReceiptRecord(words, effect.statements).pack()
        return Row(records.RECEIPT_ACCEPTED, record, records.receipt_key(effect.receipt.digest))

    def _promise(self, voucher: Voucher, signature: bytes) -> None:
        if self._purse.treasury is not None:
            self._purse.treasury.show(voucher, signature)
        self._say(Countersign(voucher=voucher.pack(), signature=signature))

    def _sign(self, voucher: Voucher) -> bytes:
        signer: Signer = self._purse.identity
        if self.lane:
            if self._purse.treasury is None:
                raise UsageError("a paid lease on a network without a ledger")
            signer = self._purse.treasury.money.lane_key
        return sign_cell(voucher.hash(), signer)
