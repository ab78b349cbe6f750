"""Chain facts for tests of pure money: states as ``ledger.escrow`` reads them."""

from __future__ import annotations

from typing import Any

from cocoon.core.ids import ReceiptHash
from cocoon.ledger.escrow import EscrowState, LaneState
from cocoon.ledger.lanes import LaneBook, LanePromised, LaneRules
from cocoon.ledger.tab import Head
from cocoon.wire.judged import Voucher, sign_cell
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, PROVIDER

PAYOUT, PROVIDER_KEY = b"\x21" * 32, b"\x22" * 32
TON = 10**9
RULES = LaneRules(margin_s=60, open_fee_nanoton=5_000_000, claim_fee_nanoton=4_000_000)
DAY_S = 86_400


def lane_state(**changes: Any) -> LaneState:
    """A lane of one coin that lives ten days from second 0."""
    fields = {
        "payout": PAYOUT, "provider_key": PROVIDER_KEY, "cap_nanoton": TON, "paid_nanoton": 0,
        "expires_s": 10 * DAY_S,
    }
    return LaneState(**(fields | changes))      # type: ignore[arg-type]


def escrow_state(
    lanes: dict[int, LaneState] | None = None, *, next_lane: int = 0, order_number: int = 0
) -> EscrowState:
    """The proven state of the requester's escrow."""
    lanes = lanes or {}
    locked = sum(lane.cap_nanoton - lane.paid_nanoton for lane in lanes.values())
    return EscrowState(BIRTH, order_number, max([next_lane, *(lane + 1 for lane in lanes)]), locked, lanes)


def promised(lane: int, **changes: Any) -> LanePromised:
    """A lane for the usual provider."""
    fields = {
        "lane": lane, "provider": PROVIDER.key, "payout": PAYOUT, "provider_key": PROVIDER_KEY, "cap_nanoton": TON,
        "expires_s": 10 * DAY_S,
    }
    return LanePromised(**(fields | changes))   # type: ignore[arg-type]


def book_with(*lanes: int, proven: bool = True) -> LaneBook:
    """A book with lanes for the usual provider."""
    book = LaneBook()
    for lane in lanes:
        book.record(promised(lane))
    if proven:
        book.see(escrow_state({lane: lane_state() for lane in lanes}))
    return book


def head_at(seq: int, total_nanoton: int) -> Head:
    """A lane's head after ``seq`` receipts."""
    return Head(seq, ReceiptHash(bytes([seq]) * 32), total_nanoton)


def voucher_at(head: Head, lane: int = 9, **changes: Any) -> Voucher:
    """The voucher that stands at ``head``."""
    fields: dict[str, Any] = {
        "network_tag": BIRTH.network_tag, "escrow": BIRTH.address(), "lane": lane, "seq": head.seq,
        "total_nanoton": head.total_nanoton, "head": head.digest,
    }
    return Voucher(**(fields | changes))


def vouched(head: Head, lane: int = 9, signer: Any = LANE_OWNER, **changes: Any) -> tuple[bytes, bytes]:
    """Packed voucher and signature, as a lease shows them."""
    voucher = voucher_at(head, lane, **changes)
    return voucher.pack(), sign_cell(voucher.hash(), signer)
