"""Orders to an escrow, signed by its lane key: open, bring an expiry forward, close, withdraw, cancel.

An order is one judged cell. Its head says for which network and escrow it is,
which number it has in that escrow's sequence and until when it may run; one byte
says what is to be done. Only the order that opens or tops up lanes has a
reference: a chain of cells with one lane each, covered by the hash.

Purity: pure. Spec: docs/spec/judged.md, rules JUD-9 to JUD-14.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import ESCROW_LANES, ORDER_LANES_LISTED
from cocoon.core.values import Value
from cocoon.wire.cells import Cell, CellBuilder, CellReader
from cocoon.wire.widths import CLOSE_BYTES as CLOSE_BYTES

ORDER_TAG = 0x0C0C7A02
OPEN, EXPIRE, CLOSE, WITHDRAW, CANCEL = 1, 2, 3, 4, 5
HEAD_BITS = 403
CLOSE_BITS = HEAD_BITS + 32 + 64
#: What a withdrawal may carry for its receiver: the rest of the order's cell.
PAYLOAD_BITS = 1_023 - HEAD_BITS - 64


class OrderHead(Value):
    """For whom an order is, its number in the escrow's sequence, and its last second (exclusive)."""

    network_tag: int
    #: Hash part of the escrow's workchain-0 address.
    escrow: bytes
    number: int
    valid_until_s: int


class NewLane(Value):
    """A lane that does not exist yet. ``cap_nanoton`` is all that it may ever pay."""

    lane: int
    cap_nanoton: int
    expires_s: int
    #: Hash part of the provider's workchain-0 address.
    payout: bytes
    provider_key: bytes


class TopUp(Value):
    """A live lane's new cap and expiry, neither lower than the old one."""

    lane: int
    cap_nanoton: int
    expires_s: int


def open_order(head: OrderHead, lanes: Sequence[NewLane | TopUp]) -> Cell:
    """Open and top up ``lanes`` (1 to ``ESCROW_LANES``, new ids rising), all or none.

    Raises:
        UsageError: no lane or too many, or a field is out of its bits.
    """
    if not 1 <= len(lanes) <= ESCROW_LANES:
        raise UsageError(f"an order opens 1 to {ESCROW_LANES} lanes, not {len(lanes)}")
    rest: Cell | None = None
    for lane in reversed(lanes):
        entry = CellBuilder().uint(lane.lane, 32).uint(lane.cap_nanoton, 64).uint(lane.expires_s, 32)
        if isinstance(lane, NewLane):
            entry.address(lane.payout).blob(lane.provider_key, 32)
        if rest is not None:
            entry.ref(rest)
        rest = entry.end()
    assert rest is not None
    return _head(head, OPEN).uint(len(lanes), 8).ref(rest).end()


def expire_order(head: OrderHead, lanes: Sequence[int]) -> Cell:
    """Bring the expiries of ``lanes`` (1 to ``ORDER_LANES_LISTED``) forward to the run's time plus the close delay.

    Raises:
        UsageError: no lane or too many.
    """
    return lane_list(_head(head, EXPIRE), lanes, ORDER_LANES_LISTED, "an order")


def close_order(head: OrderHead, lane: int, total_nanoton: int) -> Cell:
    """Pay ``lane`` up to its final total and delete it; the provider signs the same cell."""
    return _head(head, CLOSE).uint(lane, 32).uint(total_nanoton, 64).end()


def withdraw_order(head: OrderHead, amount_nanoton: int, payload: Cell | None = None) -> Cell:
    """Send ``amount_nanoton`` (0: all that is unlocked) to the owner, with the payload's bits as body.

    The product never makes one, its owner withdraws by plain messages; tests and the contract's other clients do.

    Raises:
        UsageError: a payload with references or of more than ``PAYLOAD_BITS`` bits.
    """
    builder = _head(head, WITHDRAW).uint(amount_nanoton, 64)
    if payload is not None:
        if payload.refs or payload.bits > PAYLOAD_BITS:
            raise UsageError(f"a withdrawal carries at most {PAYLOAD_BITS} bits and no references")
        builder.inline(payload)
    return builder.end()


def cancel_order(head: OrderHead) -> Cell:
    """Use the number up and do nothing, so that another order of this number never runs.

    The product never makes one; tests and the contract's other clients do.
    """
    return _head(head, CANCEL).end()


class CloseOrder(Value):
    """A cooperative close as the two peers exchange it."""

    head: OrderHead
    lane: int
    total_nanoton: int

    def cell(self) -> Cell:
        """The cell that lane key and provider key sign."""
        return close_order(self.head, self.lane, self.total_nanoton)

    def pack(self) -> bytes:
        """Data bytes of the cell, ``CLOSE_BYTES`` long."""
        return self.cell().data()

    def hash(self) -> bytes:
        """Representation hash, 32 bytes."""
        return self.cell().hash()

    @classmethod
    def unpack(cls, data: bytes) -> CloseOrder:
        """Read the data bytes of a cooperative close.

        Raises:
            Malformed: another tag, kind of order, length, padding or form of address.
        """
        reader = CellReader(data, CLOSE_BITS)
        head, kind = read_head(reader)
        if kind != CLOSE:
            raise Malformed(f"order {kind} where a cooperative close ({CLOSE}) is due")
        found = cls(head, reader.uint(32), reader.uint(64))
        reader.end()
        return found


def read_head(reader: CellReader) -> tuple[OrderHead, int]:
    """Head and kind of the order that ``reader`` begins.

    Raises:
        Malformed: another tag, or an address that is no plain one of workchain 0.
    """
    if (tag := reader.uint(32)) != ORDER_TAG:
        raise Malformed(f"tag 0x{tag:08x} is not an order's")
    network, escrow = reader.uint(32), reader.address()
    return OrderHead(network, escrow, reader.uint(32), reader.uint(32)), reader.uint(8)


def lane_list(builder: CellBuilder, lanes: Sequence[int], most: int, what: str) -> Cell:
    """``builder``'s bits, how many lanes there are (8 bits), and their ids.

    Args:
        what: Who names them, for people.

    Raises:
        UsageError: no lane, or more than ``most``.
    """
    if not 1 <= len(lanes) <= most:
        raise UsageError(f"{what} names 1 to {most} lanes, not {len(lanes)}")
    builder.uint(len(lanes), 8)
    for lane in lanes:
        builder.uint(lane, 32)
    return builder.end()


def _head(head: OrderHead, kind: int) -> CellBuilder:
    builder = CellBuilder().uint(ORDER_TAG, 32).uint(head.network_tag, 32).address(head.escrow)
    return builder.uint(head.number, 32).uint(head.valid_until_s, 32).uint(kind, 8)
