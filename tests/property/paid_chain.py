"""The rules of the escrow that matter to two peers, in a page: what runs, what is refused, what is paid.

The contract itself is tested on the real TVM (tests/tvm).

Purity: pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.values import replace
from cocoon.ledger.escrow import EscrowState, LaneState
from cocoon.wire.judged import Voucher
from tests.unit.ledger.parties import BIRTH


@dataclass
class Chain:
    """The escrow's rules that matter here; a message runs when the weather lets it, or never."""

    now_s: int = 1_000
    order_number: int = 0
    next_lane: int = 0
    lanes: dict[int, LaneState] = field(default_factory=dict)
    paid: dict[int, int] = field(default_factory=dict)
    #: How often a lane was topped up, expired, closed and pruned, and a claim refused: what the weather let happen.
    happened: Counter[str] = field(default_factory=Counter)

    def state(self) -> EscrowState:
        locked = sum(lane.cap_nanoton - lane.paid_nanoton for lane in self.lanes.values())
        return EscrowState(BIRTH, self.order_number, self.next_lane, locked, dict(self.lanes))

    def run(self, message: tuple[Any, ...]) -> bool:
        """Execute one message; False if the contract refuses it."""
        kind, *rest = message
        if kind == "claim":
            paid = self._claim(*rest)
            self.happened["claims refused"] += not paid
            return paid
        number, valid_until_s, act = rest
        if number != self.order_number or self.now_s >= valid_until_s or not act(self):
            return False
        self.order_number += 1
        return True

    def open_all(self, states: dict[int, LaneState]) -> bool:
        if min(states) < self.next_lane or any(state.expires_s <= self.now_s for state in states.values()):
            return False
        self.next_lane = max(states) + 1
        self.lanes |= states
        return True

    def top_up(self, lane: int, cap: int, expires_s: int) -> bool:
        old = self.lanes.get(lane)
        if old is None or cap < old.cap_nanoton or expires_s < old.expires_s:
            return False
        self.lanes[lane] = replace(old, cap_nanoton=cap, expires_s=expires_s)
        self.happened["topped up"] += 1
        return True

    def expire(self, lane: int) -> bool:
        if (old := self.lanes.get(lane)) is None:
            return False
        self.lanes[lane] = replace(old, expires_s=min(old.expires_s, self.now_s + BIRTH.close_delay_s))
        self.happened["expired"] += 1
        return True

    def close(self, lane: int, total: int) -> bool:
        old = self.lanes.get(lane)
        if old is None or not old.paid_nanoton <= total <= old.cap_nanoton:
            return False
        self.paid[lane] = total
        del self.lanes[lane]
        self.happened["closed"] += 1
        return True

    def prune(self, lane: int) -> bool:
        """By plain message of anybody, once the lane has expired."""
        if lane not in self.lanes or self.now_s < self.lanes[lane].expires_s:
            return False
        del self.lanes[lane]
        self.happened["pruned"] += 1
        return True

    def _claim(self, voucher: Voucher) -> bool:
        lane = self.lanes.get(voucher.lane)
        if lane is None or self.now_s >= lane.expires_s:
            return False
        if not lane.paid_nanoton < voucher.total_nanoton <= lane.cap_nanoton:
            return False
        self.paid[voucher.lane] = voucher.total_nanoton
        self.lanes[voucher.lane] = replace(lane, paid_nanoton=voucher.total_nanoton)
        return True
