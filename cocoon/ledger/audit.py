"""The audit: what the journal says against what the chain says, to the nanoton.

Three kinds of question: does every account's balance follow from its own
transactions; does every escrow's proven state follow from them; and was each
lane paid what its vouchers promised, and no more.

Purity: pure; facts of both sides are arguments. Spec: docs/spec/anchoring.md, rules BAT-10 to BAT-17.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cocoon.core.values import Value
from cocoon.ledger.acts import EscrowHistory, LaneEnd, LaneHistory
from cocoon.ledger.escrow import EscrowState
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.verify import ReceiptFacts


class Difference(Value):
    """One thing on which two accounts of the same money disagree."""

    code: str
    #: What it is about: an address in hex, a lane, a receipt.
    subject: str
    expected_nanoton: int
    found_nanoton: int
    text: str


class Flow(Value):
    """What one account received, sent and paid in fees over its whole life."""

    received_nanoton: int
    sent_nanoton: int
    fees_nanoton: int

    @property
    def left_nanoton(self) -> int:
        """What must be there."""
        return self.received_nanoton - self.sent_nanoton - self.fees_nanoton


def flow_of(transactions: Iterable[Transaction]) -> Flow:
    """Sums over all transactions of an account; forward fees of its messages are fees (BAT-11)."""
    received = sent = fees = 0
    for tx in transactions:
        received += tx.in_value_nanoton
        sent += sum(out.value_nanoton for out in tx.outs)
        fees += tx.fees_nanoton + sum(out.forward_fee_nanoton for out in tx.outs)
    return Flow(received, sent, fees)


def audit_account(address: bytes, flow: Flow, balance_nanoton: int) -> list[Difference]:
    """Whether a proven balance follows from the account's transactions."""
    if flow.left_nanoton == balance_nanoton:
        return []
    text = f"received {flow.received_nanoton}, sent {flow.sent_nanoton}, fees {flow.fees_nanoton}"
    return [Difference("balance", address.hex(), flow.left_nanoton, balance_nanoton, text)]


def audit_escrow(history: EscrowHistory, state: EscrowState, balance_nanoton: int) -> list[Difference]:
    """Whether an escrow's proven state follows from its transactions (BAT-15)."""
    subject = state.birth.address().hex()
    found = []
    live = {lane.lane: lane for lane in history.lanes.values() if lane.end is LaneEnd.LIVE}
    locked = sum(lane.cap_nanoton - lane.paid_nanoton for lane in live.values())
    if history.order_number != state.order_number:
        text = f"order {history.order_number} is next by the transactions, {state.order_number} in the state"
        found.append(Difference("order", subject, 0, 0, text))
    if locked != state.locked_nanoton:
        found.append(Difference("locked", subject, locked, state.locked_nanoton, "locked by the transactions"))
    if history.balance_nanoton != balance_nanoton:
        text = "left by the transactions"
        found.append(Difference("balance", subject, history.balance_nanoton, balance_nanoton, text))
    for lane in sorted(set(live) | set(state.lanes)):
        seen, told = state.lanes.get(lane), live.get(lane)
        if seen is None or told is None:
            where = "only in the state" if told is None else "only in the transactions"
            found.append(Difference("lane", f"{subject}/{lane}", 0, 0, f"lane {lane} is live {where}"))
            continue
        if told.paid_nanoton != seen.paid_nanoton:
            text = "paid by the transactions"
            found.append(Difference("paid", f"{subject}/{lane}", told.paid_nanoton, seen.paid_nanoton, text))
        if told.cap_nanoton != seen.cap_nanoton:
            text = "cap by the transactions"
            found.append(Difference("cap", f"{subject}/{lane}", told.cap_nanoton, seen.cap_nanoton, text))
    return found


# --- lanes against receipts ------------------------------------------------


class LaneBooks(Value):
    """One lane as one side's journal knows it."""

    escrow: bytes
    lane: int
    #: Checked receipts of the lane, any order (``verify_record``).
    receipts: Sequence[ReceiptFacts]
    #: Total of the newest voucher that was signed, or accepted.
    vouched_nanoton: int
    #: Total of a cooperative close that this side signed.
    closed_nanoton: int | None = None
    #: Whether the lane pays us. Who is paid by it may let it expire unclaimed; that is no fault of the payer's books.
    sold: bool = True


def audit_receipts(books: LaneBooks) -> list[Difference]:
    """Whether a lane's receipts are one chain whose lines add up to its newest voucher (BAT-12)."""
    subject = f"{books.escrow.hex()}/{books.lane}"
    found = []
    total, last = 0, bytes(32)
    for facts in sorted(books.receipts, key=lambda facts: facts.seq):
        lines = sum(statement.price_nanoton for statement in facts.statements)
        if facts.previous != last:
            text = f"receipt {facts.seq} does not follow the one before it"
            found.append(Difference("chain", subject, total, facts.total_nanoton, text))
        if total + lines != facts.total_nanoton:
            text = f"lines of receipt {facts.seq} add up to {lines}"
            found.append(Difference("lines", subject, total + lines, facts.total_nanoton, text))
        total, last = facts.total_nanoton, facts.receipt
    if total != books.vouched_nanoton:
        found.append(Difference("vouched", subject, total, books.vouched_nanoton, "total of the newest receipt"))
    return found


def audit_lane(books: LaneBooks, history: LaneHistory | None, *, coming: bool = False) -> list[Difference]:
    """Whether the chain paid what the vouchers promised (BAT-13).

    A live lane may have been paid less than is vouched: that is pending. One
    that is gone may not, and none may have been paid more.

    Args:
        coming: The escrow has not reached the lane's id yet; it may have begun on credit.
    """
    subject = f"{books.escrow.hex()}/{books.lane}"
    vouched = books.vouched_nanoton
    if history is None:
        if coming or (vouched == 0 and not books.receipts):
            return []
        return [Difference("unopened", subject, vouched, 0, "vouched on a lane that is not on chain")]
    found = []
    if history.paid_nanoton > vouched:
        found.append(Difference("overpaid", subject, vouched, history.paid_nanoton, "paid above the newest voucher"))
    if history.end is LaneEnd.CLOSED and books.closed_nanoton != history.paid_nanoton:
        closed = books.closed_nanoton or 0
        found.append(Difference("close", subject, closed, history.paid_nanoton, "closed at a total not signed here"))
    may_forfeit = history.end is LaneEnd.LIVE or (history.end is LaneEnd.PRUNED and not books.sold)
    if history.paid_nanoton < vouched and not may_forfeit:
        text = f"the lane is {history.end.value} and its newest voucher was not paid"
        found.append(Difference("unpaid", subject, vouched, history.paid_nanoton, text))
    if vouched > history.cap_nanoton:
        found.append(Difference("cap", subject, history.cap_nanoton, vouched, "vouched above the lane's cap"))
    return found


def audit_lanes(books: Iterable[LaneBooks], histories: Mapping[bytes, EscrowHistory]) -> list[Difference]:
    """All lanes of a journal against the histories of their escrows, by address."""
    found = []
    for one in books:
        history = histories.get(one.escrow) or EscrowHistory()
        found += audit_receipts(one)
        found += audit_lane(one, history.lanes.get(one.lane), coming=one.lane >= history.next_lane)
    return found
