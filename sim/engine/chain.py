"""A chain with one escrow for each requester: blocks, delays, outages, and the rules of the contract in a page.

The contract itself is tested on the real machine of the chain (tests/tvm); here it is
what two peers must expect of it. Fees are fixed, so that sums can be checked to the nanoton.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-9 and SIM-10; escrow.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cocoon.core.rng import Stream
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value, replace
from cocoon.ledger.escrow import EscrowBirth, EscrowState, LaneState, reserve_nanoton
from cocoon.wire.judged import Voucher
from sim.engine.flow import Bell
from sim.engine.heap import Heap

#: Chain time at the beginning of every world.
GENESIS_S = 1_800_000_000
#: What an order and a claim cost whoever sends it; the devnet's prices are of this size.
ORDER_FEE_NANOTON = 10_000_000
CLAIM_FEE_NANOTON = 8_000_000

Done = Callable[[bool], None]


class Pace(Value):
    """How fast the chain is. ``delay_blocks`` is the most that a message waits for its block."""

    block_ns: int = 500_000_000
    delay_blocks: int = 3


@dataclass(slots=True)
class Escrow:
    """One requester's contract."""

    birth: EscrowBirth
    #: Rung when a message was executed here, or refused.
    news: Bell
    balance_nanoton: int = 0
    order_number: int = 0
    next_lane: int = 0
    lanes: dict[int, LaneState] = field(default_factory=dict)

    @property
    def locked_nanoton(self) -> int:
        """For all lanes."""
        return sum([lane.cap_nanoton - lane.paid_nanoton for lane in self.lanes.values()])

    def state(self) -> EscrowState:
        """As it is read and proven."""
        depth = len(self.lanes).bit_length()
        return EscrowState(
            self.birth, self.order_number, self.next_lane, self.locked_nanoton, dict(self.lanes), depth
        )


class OpenLanes(Value):
    """An order that opens and fills lanes; ``number`` must be the escrow's next."""

    escrow: bytes
    number: int
    valid_until_s: int
    lanes: dict[int, LaneState]
    deposit_nanoton: int
    payer: bytes


class Claim(Value):
    """A voucher shown to the escrow."""

    escrow: bytes
    voucher: Voucher
    payer: bytes


@dataclass(slots=True)
class Chain:
    """Wallets, escrows and the messages under way."""

    heap: Heap
    pace: Pace
    draws: Stream
    wallets: dict[bytes, int] = field(default_factory=dict)
    escrows: dict[bytes, Escrow] = field(default_factory=dict)
    fees_nanoton: int = 0
    #: Nothing is read or executed before.
    away_until_ns: int = 0
    #: What each (escrow, lane) paid in all.
    paid: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def found(self, birth: EscrowBirth) -> None:
        """Let there be an escrow, empty."""
        self.escrows[birth.address()] = Escrow(birth, Bell(self.heap))

    @property
    def now_s(self) -> int:
        """Chain time: that of the newest block."""
        return GENESIS_S + self.heap.now_ns // self.pace.block_ns * self.pace.block_ns // SECOND_NS

    @property
    def is_away(self) -> bool:
        """Whether nobody can reach it."""
        return self.heap.now_ns < self.away_until_ns

    @property
    def total_nanoton(self) -> int:
        """All money; never changes."""
        locked_up = sum([escrow.balance_nanoton for escrow in self.escrows.values()])
        return sum(self.wallets.values()) + locked_up + self.fees_nanoton

    def send(self, message: OpenLanes | Claim, done: Done) -> None:
        """Let a message run in one of the next blocks; ``done`` hears whether the contract took it."""
        waits = 1 + self.draws.below(self.pace.delay_blocks)
        self.heap.after(waits * self.pace.block_ns, self._execute, message, done)

    def unlocked_nanoton(self, escrow: Escrow) -> int:
        """What orders may still lock."""
        return max(0, escrow.balance_nanoton - escrow.locked_nanoton - reserve_nanoton(len(escrow.lanes)))

    def _execute(self, message: OpenLanes | Claim, done: Done) -> None:
        if self.is_away:
            self.heap.at(self.away_until_ns + self.pace.block_ns, self._execute, message, done)
            return
        taken = self._open(message) if isinstance(message, OpenLanes) else self._claim(message)
        self.escrows[message.escrow].news.ring()
        done(taken)

    def _pay_fee(self, payer: bytes, fee_nanoton: int) -> bool:
        if self.wallets[payer] < fee_nanoton:
            return False
        self.wallets[payer] -= fee_nanoton
        self.fees_nanoton += fee_nanoton
        return True

    def _open(self, order: OpenLanes) -> bool:
        escrow = self.escrows[order.escrow]
        if not self._pay_fee(order.payer, ORDER_FEE_NANOTON) or self.wallets[order.payer] < order.deposit_nanoton:
            return False
        fresh = [lane for lane in order.lanes if lane not in escrow.lanes]
        after = escrow.lanes | order.lanes
        locked = sum(lane.cap_nanoton - lane.paid_nanoton for lane in after.values())
        balance = escrow.balance_nanoton + order.deposit_nanoton
        if (
            order.number != escrow.order_number or self.now_s >= order.valid_until_s
            or any(lane < escrow.next_lane for lane in fresh)
            or any(
                state.cap_nanoton < escrow.lanes[lane].cap_nanoton or state.expires_s < escrow.lanes[lane].expires_s
                for lane, state in order.lanes.items() if lane in escrow.lanes
            )
            or locked + reserve_nanoton(len(after)) > balance
        ):
            return False
        self.wallets[order.payer] -= order.deposit_nanoton
        escrow.balance_nanoton = balance
        escrow.order_number += 1
        escrow.next_lane = max([escrow.next_lane, *(lane + 1 for lane in fresh)])
        escrow.lanes = {
            lane: state if lane in fresh or lane not in escrow.lanes
            else replace(escrow.lanes[lane], cap_nanoton=state.cap_nanoton, expires_s=state.expires_s)
            for lane, state in after.items()
        }
        return True

    def _claim(self, claim: Claim) -> bool:
        escrow, voucher = self.escrows[claim.escrow], claim.voucher
        lane = escrow.lanes.get(voucher.lane)
        if not self._pay_fee(claim.payer, CLAIM_FEE_NANOTON) or lane is None or self.now_s >= lane.expires_s:
            return False
        if not lane.paid_nanoton < voucher.total_nanoton <= lane.cap_nanoton:
            return False
        due = voucher.total_nanoton - lane.paid_nanoton
        escrow.balance_nanoton -= due
        self.wallets[lane.payout] += due
        escrow.lanes[voucher.lane] = replace(lane, paid_nanoton=voucher.total_nanoton)
        self.paid[claim.escrow, voucher.lane] = voucher.total_nanoton
        return True
