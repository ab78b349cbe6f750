"""Facts and orders of the two receipt machines.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-8 to REC-17.
"""

from __future__ import annotations

from typing import ClassVar

from cocoon.core.machine import Effect, Event
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.messages import Receipt
from cocoon.wire.signing import Signed

# --- facts, provider -------------------------------------------------------


class StatementMade(Event):
    """A run ended with outputs; this is our account of it."""

    statement: Statement


class StatementsWithdrawn(Event):
    """Results above number ``after`` never reached the requester: it asked for one again, or resumed below it."""

    after: int


class CountersignReceived(Event):
    """A voucher and its 64-byte signature, as they came."""

    voucher: Voucher
    signature: bytes


class LaneProven(Event):
    """The lane is in proven state and covers the lease: the credit before it is not needed any more."""


# --- facts, requester ------------------------------------------------------


class RunAccepted(Event):
    """A result came whose statement passed ``check_statement``: the obligation is born."""

    statement: Statement


class ReceiptReceived(Event):
    """A receipt came; ``open_signed`` has checked its signature, nothing else."""

    receipt: Signed[Receipt]


class LeaseResumed(Event):
    """The lease is opened again, to settle it; told before anything else on the new link."""


class RunsForgotten(Event):
    """A power cut took the provider's account of the runs above number ``after``, as it says: it forgoes them."""

    after: int


# --- facts, both -----------------------------------------------------------


class TrancheClosed(Event):
    """The requester wants a receipt over all results up to number ``through`` (or the provider drains)."""

    through: int


class LinkResumed(Event):
    """The lease goes on over a new connection; what was under way may be lost."""


ProviderEvent = StatementMade | StatementsWithdrawn | CountersignReceived | LaneProven | TrancheClosed | LinkResumed
RequesterEvent = RunAccepted | ReceiptReceived | LeaseResumed | RunsForgotten | TrancheClosed | LinkResumed

# --- orders, provider ------------------------------------------------------


class IssueReceipt(Effect):
    """Sign this body with the peer key and send it. Idempotent by (lease, seq)."""

    receipt: Receipt
    durable: ClassVar[bool] = True


class SettleTranche(Effect):
    """Keep the record of a countersigned receipt. Idempotent by the receipt's digest."""

    receipt: Receipt
    statements: tuple[Statement, ...]
    voucher: Voucher
    signature: bytes
    durable: ClassVar[bool] = True


class ReportUnsettled(Effect):
    """Receipt ``seq`` was sent again and again and not countersigned: serve this lease no more."""

    seq: int


# --- orders, requester -----------------------------------------------------


class AskReceipt(Effect):
    """Send ``TrancheClose`` with this number."""

    through: int


class Countersign(Effect):
    """Sign the voucher's cell, send it, keep the record. Idempotent by the receipt's digest."""

    voucher: Voucher
    receipt: Signed[Receipt]
    statements: tuple[Statement, ...]
    durable: ClassVar[bool] = True


class RepeatCountersign(Effect):
    """Send the countersignature of the newest receipt again; the provider asked twice."""

    voucher: Voucher


class ReportReceiptLate(Effect):
    """No receipt over the results up to ``through`` came in time."""

    through: int
