"""Receipts, both sides: the provider issues one per tranche, the requester checks and countersigns.

One receipt is without countersignature at a time; runs go on meanwhile, up to
``RUNS_UNSETTLED`` and, on paid leases, up to one tranche of value. A tranche ends
at ``TRANCHE_RUNS`` runs, at half its value, or when the requester asks. Refused
input raises and changes nothing.

Invariants
    Each statement is under at most one countersigned receipt; receipts of a lane
    are numbered in rising order, each names the digest of the one countersigned before.
    A total never falls. Two different receipts with one number are never issued,
    and never countersigned.
    Delivered unpaid value never exceeds one tranche, or one run if dearer.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-5 to REC-17; money.md, MON-13 to MON-16.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cocoon.core.errors import LimitExceeded, OutOfOrder, PeerFault, Replayed, UsageError, wrong
from cocoon.core.ids import ReceiptHash
from cocoon.core.limits import RECEIPT_REPLY_NS, RECEIPT_RESENDS, RUNS_UNSETTLED, TRANCHE_RUNS
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    CountersignReceived,
    IssueReceipt,
    LaneProven,
    LeaseResumed,
    LinkResumed,
    ProviderEvent,
    ReceiptReceived,
    RepeatCountersign,
    ReportReceiptLate,
    ReportUnsettled,
    RequesterEvent,
    RunAccepted,
    RunsForgotten,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.exposure import affordable, fits, has_ripened, is_ripe, ripe, within
from cocoon.ledger.tab import Tab, check_voucher, voucher_of
from cocoon.wire import ed25519
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.messages import Receipt
from cocoon.wire.schema import digest
from cocoon.wire.signing import Signed, Verify


@dataclass(slots=True)
class ReceiptIssuer:
    """The provider's side of one lease."""

    tab: Tab
    #: False while a paid lease runs on credit: its lane is not in proven state yet (MON-16).
    proven: bool = True
    #: How the signature of a voucher is checked; only a simulator, which makes all of them itself, has another way.
    verify: Verify = ed25519.verify
    #: Issued and not countersigned.
    outstanding: Receipt | None = field(default=None, init=False)
    #: Newest voucher that settled a receipt of this lease: what a claim will show.
    settled: Voucher | None = field(default=None, init=False)
    _closed_through: int = field(default=0, init=False)
    _deadline_ns: int | None = field(default=None, init=False)
    _resends: int = field(default=0, init=False)

    def handle(self, now_ns: int, event: ProviderEvent | DeadlinePassed) -> list[Effect]:
        """Take one fact.

        Raises:
            UsageError: a statement of ours that the lease does not allow.
            LimitExceeded: a statement beyond what ``may_start`` allowed.
            BadSignature, WrongField, Replayed: a countersignature that is not due.
        """
        match event:
            case StatementMade(statement):
                return self._made(now_ns, statement)
            case StatementsWithdrawn(after):
                return self._withdrawn(now_ns, after)
            case LaneProven():
                self.proven = True
            case TrancheClosed(through):
                # Later runs belong to a later tranche, whatever number was named.
                self._closed_through = max(self._closed_through, min(through, self.tab.last_number))
                return self._issue(now_ns)
            case CountersignReceived(voucher, signature):
                return self._countersigned(now_ns, voucher, signature)
            case LinkResumed() if self.outstanding is not None:
                self._resends = 0
                return self._send(now_ns)
            case DeadlinePassed() if self._deadline_ns is not None and now_ns >= self._deadline_ns:
                return self._late(now_ns)
        return []

    def deadline_ns(self) -> int | None:
        """When the countersignature is due; None while no receipt is out, or all patience is used."""
        return self._deadline_ns

    def room(self) -> int:
        """Runs that may still be executed before a countersignature is needed, by count alone (REC-11)."""
        return RUNS_UNSETTLED - len(self.tab.open)

    def may_start(self, open_runs: int = 0, units: int | None = None) -> bool:
        """Whether one more run may start now, while ``open_runs`` others are under way (REC-11, MON-13, MON-16).

        False until the next countersignature, or until the lane is proven.

        Args:
            units: The most that all of these come to; None: one each.
        """
        return fits(self.tab, open_runs, units, unproven=not self.proven)

    def affordable(self, open_runs: int = 0, units: int | None = None) -> bool:
        """Whether one more run stays below the ceiling; if not, the lease takes no further run."""
        return affordable(self.tab, open_runs, units)

    def parting(self) -> tuple[bool, int]:
        """For ``LaneLeft``: whether nothing waits for a voucher, and the numbers used up above the head (LAN-10)."""
        return not self.tab.open, self.tab.head.skipped + (self.outstanding is not None)

    def mark(self) -> tuple[object, ...]:
        """What the facts so far have made of this side; one that leaves it equal changed nothing."""
        tab = self.tab
        return self.settled, self.outstanding, self._closed_through, tab.last_number, len(tab.open), tab.head

    def _made(self, now_ns: int, statement: Statement) -> list[Effect]:
        if not self.tab.holds(statement):
            try:
                self.tab.check_next(statement)
            except PeerFault as error:
                raise UsageError(f"own statement of run {statement.number}: {error.text}") from error
            if not within(self.tab, statement):
                raise LimitExceeded(f"{len(self.tab.open)} runs wait for a countersignature; wait for it")
            self.tab.add(statement)
        return self._issue(now_ns)

    def _withdrawn(self, now_ns: int, after: int) -> list[Effect]:
        """Forget results that never arrived, and void the receipt that speaks of one (REC-13)."""
        out = self.outstanding
        if out is not None and self.tab.open[out.runs - 1].number > after:
            self.outstanding, self._deadline_ns = None, None
            self.tab.skip()
        self.tab.withdraw(after)
        return self._issue(now_ns)

    def _issue(self, now_ns: int) -> list[Effect]:
        if self.outstanding is not None or not (runs := self._due()):
            return []
        self.outstanding = self.tab.receipt(runs)
        self._resends = 0
        return self._send(now_ns)

    def _due(self) -> int:
        if is_ripe(self.tab):
            return min(TRANCHE_RUNS, len(self.tab.open))
        if not self.tab.open or self._closed_through < self.tab.open[0].number:
            return 0
        return min(TRANCHE_RUNS, sum(statement.number <= self._closed_through for statement in self.tab.open))

    def _send(self, now_ns: int) -> list[Effect]:
        assert self.outstanding is not None
        self._deadline_ns = now_ns + RECEIPT_REPLY_NS
        return [IssueReceipt(self.outstanding)]

    def _late(self, now_ns: int) -> list[Effect]:
        assert self.outstanding is not None
        if self._resends < RECEIPT_RESENDS:
            self._resends += 1
            return self._send(now_ns)
        self._deadline_ns = None
        return [ReportUnsettled(self.outstanding.seq)]

    def _countersigned(self, now_ns: int, voucher: Voucher, signature: bytes) -> list[Effect]:
        self.verify(self.tab.terms.voucher_key, voucher.hash(), signature)
        if voucher == self.settled:
            return []
        if self.settled is not None and voucher.seq < self.settled.seq:
            raise Replayed(f"voucher {voucher.seq} after voucher {self.settled.seq}")
        if self.outstanding is None:
            raise wrong("seq", f"voucher {voucher.seq} while no receipt is out")
        receipt_hash = ReceiptHash(digest(self.outstanding))
        check_voucher(voucher, voucher_of(self.tab.terms, self.outstanding, receipt_hash))
        receipt, self.outstanding = self.outstanding, None
        self._deadline_ns = None
        self.settled = voucher
        statements = self.tab.settle(receipt, receipt_hash)
        return [SettleTranche(receipt, statements, voucher, signature), *self._issue(now_ns)]


@dataclass(slots=True)
class ReceiptVerifier:
    """The requester's side of one lease."""

    tab: Tab
    #: Newest voucher that this side has promised on this lease.
    promised: Voucher | None = field(default=None, init=False)
    _closed_through: int = field(default=0, init=False)
    _deadline_ns: int | None = field(default=None, init=False)

    def handle(self, now_ns: int, event: RequesterEvent | DeadlinePassed) -> list[Effect]:
        """Take one fact.

        Raises:
            WrongField: a statement or a receipt that contradicts our own account.
            OutOfOrder: more results than a provider may deliver without a receipt.
            Replayed: a receipt or a run from before the newest receipt.
        """
        match event:
            case RunAccepted(statement):
                self._accepted(now_ns, statement)
            case TrancheClosed(through):
                self._closed_through = max(self._closed_through, min(through, self.tab.last_number))
                return self._ask(now_ns)
            case ReceiptReceived(receipt):
                return self._received(now_ns, receipt)
            case LinkResumed():
                return self._ask(now_ns)
            case LeaseResumed():
                return self._resumed(now_ns)
            case RunsForgotten(after):
                self.tab.withdraw(after)
            case DeadlinePassed() if self._deadline_ns is not None and now_ns >= self._deadline_ns:
                self._deadline_ns = None
                return [ReportReceiptLate(self._due_through() or 0)]
        return []

    def deadline_ns(self) -> int | None:
        """When the receipt of an ended tranche is due; None while none is awaited."""
        return self._deadline_ns

    @property
    def settled(self) -> bool:
        """Whether everything accepted is under a voucher."""
        return not self.tab.open

    def affordable(self, open_runs: int = 0) -> bool:
        """Whether one more run, beside ``open_runs`` that were asked for, stays below the ceiling."""
        return affordable(self.tab, open_runs)

    def mark(self) -> tuple[object, ...]:
        """What the facts so far have made of this side; one that leaves it equal changed nothing."""
        return self.promised, self._closed_through, self.tab.last_number, len(self.tab.open), self.tab.head

    def _accepted(self, now_ns: int, statement: Statement) -> None:
        if self.tab.holds(statement):
            return
        self.tab.check_next(statement)
        if not within(self.tab, statement):
            raise OutOfOrder(f"run {statement.number} after {len(self.tab.open)} runs without a receipt")
        self.tab.add(statement)
        if self._deadline_ns is None and has_ripened(self.tab):
            self._deadline_ns = now_ns + RECEIPT_REPLY_NS

    def _resumed(self, now_ns: int) -> list[Effect]:
        """Say what we hold; what we do not is withdrawn, and may have been under one receipt (REC-13)."""
        self.tab.skip()
        self._closed_through = self.tab.last_number
        self._deadline_ns = now_ns + RECEIPT_REPLY_NS if self.tab.open else None
        return [AskReceipt(self.tab.last_number)]

    def _due_through(self) -> int | None:
        """Last number of the tranche that has ended and has no receipt yet."""
        if (count := ripe(self.tab)) > 0:
            return self.tab.open[count - 1].number
        closed = [statement.number for statement in self.tab.open if statement.number <= self._closed_through]
        return closed[-1] if closed else None

    def _ask(self, now_ns: int) -> list[Effect]:
        if (through := self._due_through()) is None:
            return []
        self._deadline_ns = now_ns + RECEIPT_REPLY_NS
        return [AskReceipt(max(through, self._closed_through))]

    def _received(self, now_ns: int, receipt: Signed[Receipt]) -> list[Effect]:
        terms, head = self.tab.terms, self.tab.head
        if receipt.signer != terms.provider:
            raise wrong("provider", f"receipt signed by {receipt.signer.hex()[:16]}, not by the provider")
        receipt_hash = ReceiptHash(receipt.digest)
        if self.promised is not None and receipt_hash == head.digest:
            return [RepeatCountersign(self.promised)]
        if receipt.message.lease == terms.lease and self.tab.opening.seq < receipt.message.seq < head.seq:
            raise Replayed(f"receipt {receipt.message.seq} after receipt {head.seq}")
        self.tab.check(receipt.message)
        self.promised = voucher_of(terms, receipt.message, receipt_hash)
        statements = self.tab.settle(receipt.message, receipt_hash)
        self._deadline_ns = now_ns + RECEIPT_REPLY_NS if self._due_through() is not None else None
        return [Countersign(self.promised, receipt, statements)]
