"""The escrow contract as peers see it: address, state, message bodies, and what they cost.

Everything here is layout and arithmetic; what the contract does with it is in
``contracts/escrow.tolk``. Peers know an escrow by its address alone: it is the
hash of the known code and of the canonical initial data (ESC-2).

Purity: pure. Spec: docs/spec/escrow.md, rules ESC-1 to ESC-18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cocoon.core.errors import Malformed, wrong
from cocoon.core.limits import ESCROW_LANES, PRUNE_LANES
from cocoon.core.values import Value
from cocoon.ledger import bytecode
from cocoon.wire.cells import Cell, CellBuilder, CellReader, state_init
from cocoon.wire.dictionary import read_dictionary
from cocoon.wire.orders import OrderHead, lane_list, read_head

OP_ORDER, OP_CLAIM, OP_EXPIRE_ALL = 0x0C0C1001, 0x0C0C1002, 0x0C0C1003
OP_WITHDRAW, OP_PRUNE, OP_TOP_UP, OP_EXTERNAL_CLAIM = 0x0C0C1004, 0x0C0C1005, 0x0C0C1006, 0x0C0C1102
EXTERNAL_CLAIM_TAG = 0x0C0C7A03
CODE_HASH = bytecode.ESCROW_CODE_HASH

#: What stays for storage beside the locked money (ESC-9).
RESERVE_NANOTON = 50_000_000
RESERVE_LANE_NANOTON = 1_000_000
RESERVE_EMPTY_NANOTON = 2_000_000
#: Floors and spans of the contract (ESC-10, ESC-11).
LANE_FLOOR_NANOTON = 20_000_000
LANE_LIFE_S = 400 * 86_400
ORDER_LIFE_S = 86_400


class EscrowBirth(Value):
    """All that an escrow's address depends on, besides the known code."""

    #: Hash part of the address that alone receives withdrawals.
    owner: bytes
    lane_key: bytes
    network_tag: int
    index: int
    close_delay_s: int

    def data(self) -> Cell:
        """The canonical initial data: counters and locked money at zero, no lanes."""
        builder = CellBuilder().address(self.owner).blob(self.lane_key, 32)
        builder.uint(self.network_tag, 32).uint(self.index, 32).uint(self.close_delay_s, 32)
        return builder.uint(0, 32).uint(0, 32).uint(0, 8).coins(0).maybe(None).end()

    def state_init(self) -> Cell:
        """What deploys the escrow."""
        return state_init(bytecode.escrow_code(), self.data())

    def address(self) -> bytes:
        """Hash part of the escrow's workchain-0 address, 32 bytes."""
        return self.state_init().hash()


class LaneState(Value):
    """One live lane. ``cap_nanoton - paid_nanoton`` is locked for it."""

    payout: bytes
    provider_key: bytes
    cap_nanoton: int
    paid_nanoton: int
    expires_s: int


class EscrowState(Value):
    """What an escrow's data say. ``order_number`` is the number that the next order must have."""

    birth: EscrowBirth
    order_number: int
    next_lane: int
    locked_nanoton: int
    lanes: Mapping[int, LaneState]
    #: Levels of the dictionary of lanes; a claim's gas grows with it.
    depth: int = 0


class Fees(Protocol):
    """The network's prices, as its configuration has them."""

    def gas_fee_nanoton(self, gas: int) -> int:
        """Nanoton for so much gas."""

    def forward_fee_nanoton(self, cells: int, bits: int) -> int:
        """Nanoton for sending a message with so many cells and bits beside its root."""


def read_state(data: Cell) -> EscrowState:
    """Read an escrow's data.

    Raises:
        Malformed: they are not an escrow's, or its sums do not fit its lanes.
    """
    reader = CellReader.of(data)
    owner, lane_key = reader.address(), reader.blob(32)
    birth = EscrowBirth(owner, lane_key, reader.uint(32), reader.uint(32), reader.uint(32))
    order_number, next_lane, live, locked = reader.uint(32), reader.uint(32), reader.uint(8), reader.coins()
    root = reader.maybe()
    reader.end()
    lanes = {lane: _read_lane(entry) for lane, entry in read_dictionary(root, 32, ESCROW_LANES).items()}
    due = sum(lane.cap_nanoton - lane.paid_nanoton for lane in lanes.values())
    if (live, locked) != (len(lanes), due):
        raise Malformed(f"an escrow says {live} lanes and {locked} nanoton locked; it holds {len(lanes)} and {due}")
    return EscrowState(birth, order_number, next_lane, locked, lanes, root.depth() if root is not None else 0)


def _read_lane(reader: CellReader) -> LaneState:
    lane = LaneState(reader.address(), reader.blob(32), reader.coins(), reader.coins(), reader.uint(32))
    reader.end()
    if lane.paid_nanoton > lane.cap_nanoton:
        raise Malformed(f"a lane paid {lane.paid_nanoton} nanoton above its cap {lane.cap_nanoton}")
    return lane


def recognise(address: bytes, birth: EscrowBirth, code_hash: bytes, data: Cell) -> EscrowState:
    """The state of the account at ``address``, if it is the escrow of ``birth``.

    The address alone decides: whoever deploys forged initial data gets another one.

    Args:
        code_hash, data: from the account's proven state.

    Raises:
        WrongField: ``wrong_escrow``: another address, code or birth.
        Malformed: the data are not an escrow's.
    """
    if (due := birth.address()) != address:
        raise wrong("escrow", f"the escrow of this birth is at {due.hex()}, not at {address.hex()}")
    if code_hash != CODE_HASH:
        raise wrong("escrow", f"code {code_hash.hex()} at {address.hex()} is no escrow's that this peer knows")
    state = read_state(data)
    if state.birth != birth:
        raise wrong("escrow", f"the data at {address.hex()} are of another birth")
    return state


# --- what may leave --------------------------------------------------------


def reserve_nanoton(live: int) -> int:
    """What ``live`` lanes keep back for storage."""
    return RESERVE_NANOTON + RESERVE_LANE_NANOTON * live if live else RESERVE_EMPTY_NANOTON


def unlocked_nanoton(state: EscrowState, balance_nanoton: int) -> int:
    """What opens, top-ups and withdrawals may use; never negative."""
    return max(0, balance_nanoton - state.locked_nanoton - reserve_nanoton(len(state.lanes)))


# --- what it costs ----------------------------------------------------------
# Upper bounds of gas, measured on the real TVM (docs/spec/escrow.md has the table). ``depth`` is
# ``EscrowState.depth``; whoever opens n lanes adds ``n.bit_length()``.

GAS_ORDER = 8_200
GAS_LANE = 3_300
GAS_LEVEL = 700
GAS_CLAIM = 10_300
GAS_CLOSE = 11_300
GAS_WITHDRAW = 10_000
#: The contract reckons with its longest ending before it knows which one comes.
GAS_SPARE = 2_200
#: A whole external claim: root, body, voucher, signature (ESC-17).
EXTERNAL_CELLS, EXTERNAL_BITS = 4, 2_700
GAS_EXTERNAL = 9_000


def claim_gas(depth: int) -> int:
    """Gas of an internal claim."""
    return GAS_CLAIM + GAS_LEVEL * depth


def lanes_gas(count: int, depth: int) -> int:
    """Gas of opening, topping up, expiring or pruning ``count`` lanes at a time (0: of a cancellation)."""
    return GAS_ORDER + count * (GAS_LANE + GAS_LEVEL * depth)


def close_gas(depth: int) -> int:
    """Gas of a cooperative close."""
    return GAS_CLOSE + GAS_LEVEL * depth


def cost_nanoton(fees: Fees, gas: int, sends: int = 1) -> int:
    """What a message of so much gas costs for good, with ``sends`` messages that the escrow sends."""
    return fees.gas_fee_nanoton(gas) + sends * fees.forward_fee_nanoton(0, 0)


def value_nanoton(fees: Fees, gas: int, keep_nanoton: int = 0, payload_bits: int = 0) -> int:
    """A value that the contract takes for so much gas; what it does not need returns."""
    sends = fees.forward_fee_nanoton(0, 0) + fees.forward_fee_nanoton(1, payload_bits)
    return keep_nanoton + fees.gas_fee_nanoton(gas + GAS_SPARE) + sends


def external_due_nanoton(fees: Fees, depth: int) -> int:
    """What must be due at least for an external claim, of any size that the contract takes."""
    worst = fees.gas_fee_nanoton(GAS_EXTERNAL + GAS_LEVEL * depth)
    worst += fees.forward_fee_nanoton(EXTERNAL_CELLS, EXTERNAL_BITS)
    return 2 * worst + fees.forward_fee_nanoton(0, 0)


# --- message bodies --------------------------------------------------------


def order_body(
    query_id: int, keep_nanoton: int, signature: bytes, order: Cell, provider_signature: bytes | None = None
) -> Cell:
    """Carry an order. ``keep_nanoton`` of the message's value stays as deposit; the rest less fees returns.

    Args:
        provider_signature: of a cooperative close, over the same cell.
    """
    builder = _body(OP_ORDER, query_id).coins(keep_nanoton).blob(signature, 64).ref(order)
    return builder.maybe(None if provider_signature is None else _signature(provider_signature)).end()


def order_in(body: Cell) -> Cell:
    """The order that a message of ``order_body``'s form carries.

    Its carrier may spell the amount that stays in more bytes than it needs: the contract takes that, so we do (BAT-17).

    Raises:
        Malformed: it carries none.
    """
    reader = CellReader.of(body)
    if reader.uint(32) != OP_ORDER:
        raise Malformed("a message that carries no order")
    reader.uint(64)
    reader.uint(8 * reader.uint(4))
    reader.blob(64)
    return reader.ref()


def carried_order(body: Cell) -> OrderHead:
    """The head of the order that ``order_body`` carries.

    Raises:
        Malformed: it carries none.
    """
    return read_head(CellReader.of(order_in(body)))[0]


def claim_body(query_id: int, signature: bytes, voucher: Cell) -> Cell:
    """Claim what a voucher promises; whoever sends it brings the gas and gets the rest back."""
    return _body(OP_CLAIM, query_id).blob(signature, 64).ref(voucher).end()


def external_claim_body(provider_signature: bytes, signature: bytes, voucher: Cell) -> Cell:
    """Claim by an external message; gas comes out of what is due.

    Args:
        provider_signature: by the lane's provider key, over ``external_claim_hash``.
        signature: by the lane key, over the voucher.
    """
    builder = CellBuilder().uint(OP_EXTERNAL_CLAIM, 32).blob(provider_signature, 64)
    return builder.ref(voucher).ref(_signature(signature)).end()


def external_claim_hash(voucher_hash: bytes) -> bytes:
    """What the provider key signs for an external claim, 32 bytes."""
    return CellBuilder().uint(EXTERNAL_CLAIM_TAG, 32).blob(voucher_hash, 32).end().hash()


def expire_all_body(query_id: int) -> Cell:
    """By the owner: bring every lane's expiry forward."""
    return _body(OP_EXPIRE_ALL, query_id).end()


def owner_withdraw_body(query_id: int, amount_nanoton: int = 0) -> Cell:
    """By the owner: withdraw so much, or (0) all that is unlocked."""
    return _body(OP_WITHDRAW, query_id).uint(amount_nanoton, 64).end()


def prune_body(query_id: int, lanes: Sequence[int]) -> Cell:
    """By anybody: delete ``lanes`` (1 to ``PRUNE_LANES``), all of them expired.

    Raises:
        UsageError: no lane or too many.
    """
    return lane_list(_body(OP_PRUNE, query_id), lanes, PRUNE_LANES, "a message")


def top_up_body(query_id: int) -> Cell:
    """A deposit that says what it is; an empty body does the same."""
    return _body(OP_TOP_UP, query_id).end()


def _body(op: int, query_id: int) -> CellBuilder:
    return CellBuilder().uint(op, 32).uint(query_id, 64)


def _signature(signature: bytes) -> Cell:
    return CellBuilder().blob(signature, 64).end()
