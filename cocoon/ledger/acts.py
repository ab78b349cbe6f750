"""What an escrow's transactions did to its lanes, read from the messages that caused them.

The replay knows nothing but the chain: it starts at the birth and must end at
the proven state. So a third party can tell what each lane was ever paid, also
after it is gone.

Purity: pure. Spec: docs/spec/anchoring.md, rules BAT-14 to BAT-17.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.errors import Malformed
from cocoon.core.values import Value, replace
from cocoon.ledger import escrow
from cocoon.ledger.onchain import Transaction
from cocoon.wire import orders
from cocoon.wire.cells import CellReader
from cocoon.wire.judged import Voucher


class LaneEnd(Enum):
    """How a lane left the escrow."""

    LIVE = "live"
    CLOSED = "closed by both"
    PRUNED = "pruned after its expiry"


class LaneHistory(Value):
    """All that the chain says of one lane."""

    lane: int
    payout: bytes
    provider_key: bytes
    cap_nanoton: int
    #: In all, by claims and by the close.
    paid_nanoton: int = 0
    claims: int = 0
    end: LaneEnd = LaneEnd.LIVE


@dataclass(slots=True)
class EscrowHistory:
    """The lanes of one escrow over its whole life."""

    lanes: dict[int, LaneHistory] = field(default_factory=dict)
    order_number: int = 0
    balance_nanoton: int = 0

    @property
    def next_lane(self) -> int:
        """The lowest id that a new lane may have."""
        return max(self.lanes, default=-1) + 1

    def take(self, tx: Transaction) -> None:
        """Follow one transaction, in their order."""
        before = self.balance_nanoton
        sent = sum(out.value_nanoton + out.forward_fee_nanoton for out in tx.outs)
        self.balance_nanoton += tx.in_value_nanoton - sent - tx.fees_nanoton
        if tx.success and tx.exit_code == 0 and tx.in_body is not None and not tx.in_bounced:
            self._act(tx, before)

    def _act(self, tx: Transaction, balance_nanoton: int) -> None:
        """What one successful message did; nothing is demanded of it that the contract does not demand (BAT-17)."""
        assert tx.in_body is not None
        reader = CellReader.of(tx.in_body)
        match reader.uint(32) if reader.bits_left >= 32 else 0:
            case 0 | escrow.OP_TOP_UP:
                return                                  # a deposit, whatever follows
            case escrow.OP_ORDER:
                self._order(CellReader.of(escrow.order_in(tx.in_body)))
            case escrow.OP_CLAIM:
                reader.uint(64)
                self._claim(reader, balance_nanoton)
            case escrow.OP_EXTERNAL_CLAIM:
                self._claim(reader, balance_nanoton)
            case escrow.OP_PRUNE:
                reader.uint(64)
                for _ in range(reader.uint(8)):
                    self._leave(reader.uint(32), LaneEnd.PRUNED)
            case escrow.OP_EXPIRE_ALL | escrow.OP_WITHDRAW:
                self.order_number += 1
            case op:
                raise Malformed(f"an escrow refuses the operation 0x{op:08x}")

    def _order(self, order: CellReader) -> None:
        _, kind = orders.read_head(order)
        self.order_number += 1
        if kind == orders.OPEN:
            entry = order
            for _ in range(order.uint(8)):
                entry = CellReader.of(entry.ref())
                self._open(entry)
        elif kind == orders.CLOSE:
            lane, total = order.uint(32), order.uint(64)
            self.lanes[lane] = replace(self._lane(lane), paid_nanoton=total)
            self._leave(lane, LaneEnd.CLOSED)

    def _open(self, entry: CellReader) -> None:
        lane, cap, _ = entry.uint(32), entry.uint(64), entry.uint(32)
        if entry.bits_left:
            self.lanes[lane] = LaneHistory(lane, entry.address(), entry.blob(32), cap)
        else:
            self.lanes[lane] = replace(self._lane(lane), cap_nanoton=cap)

    def _claim(self, reader: CellReader, balance_nanoton: int) -> None:
        reader.blob(64)
        voucher = Voucher.unpack(reader.ref().data())
        lane = self._lane(voucher.lane)
        due = min(voucher.total_nanoton - lane.paid_nanoton, balance_nanoton)
        self.lanes[lane.lane] = replace(lane, paid_nanoton=lane.paid_nanoton + due, claims=lane.claims + 1)

    def _leave(self, lane: int, end: LaneEnd) -> None:
        self.lanes[lane] = replace(self._lane(lane), end=end)

    def _lane(self, lane: int) -> LaneHistory:
        if lane not in self.lanes:
            raise Malformed(f"a transaction of the escrow speaks of lane {lane}, which was never opened")
        return self.lanes[lane]


def history_of(transactions: Iterable[Transaction]) -> EscrowHistory:
    """The history that all transactions of one escrow, oldest first, tell.

    Raises:
        Malformed: they are not those of an escrow.
    """
    history = EscrowHistory()
    for tx in transactions:
        history.take(tx)
    return history
