"""What an escrow must do, said a second time in Python: the state machine's oracle (docs/spec/escrow.md).

An action is something signed that anybody may deliver at any time, as often as he likes. The model says
with which code it is refused, or what changes and what leaves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from cocoon.core.values import replace
from cocoon.ledger import escrow
from cocoon.ledger.escrow import LaneState
from cocoon.wire.orders import NewLane, TopUp
from tests.tvm.chain import Prices
from tests.tvm.parties import OWNER


class Refused(Exception):
    """With its code."""


@dataclass(frozen=True)
class Leaves:
    """What a run sends away, and what it takes as deposit."""

    out: int = 0
    dest: bytes = b""
    keep: int = 0


@dataclass(frozen=True)
class Order:
    """``what``: lanes to open, ids to expire, (lane, total) to close, an amount to withdraw, or nothing."""

    number: int
    valid_until_s: int
    kind: str
    what: tuple[object, ...]
    keep: int = 0
    by_provider: bool = True


@dataclass(frozen=True)
class Claim:
    """By the provider's wallet, or from outside."""

    lane: int
    total: int
    external: bool = False


@dataclass(frozen=True)
class Prune:
    """By anybody."""

    lanes: tuple[int, ...]


@dataclass(frozen=True)
class OwnerMessage:
    """Withdraw so much (0: all), or expire all (None); perhaps by somebody else."""

    amount: int | None
    source: bytes = OWNER


Action = Order | Claim | Prune | OwnerMessage


@dataclass
class Model:
    """Counters and lanes."""

    close_delay_s: int
    order_number: int = 0
    next_lane: int = 0
    lanes: dict[int, LaneState] = field(default_factory=dict)

    @property
    def locked(self) -> int:
        """What is promised and not paid."""
        return sum(lane.cap_nanoton - lane.paid_nanoton for lane in self.lanes.values())

    def copy(self) -> Model:
        """For trying: a refused action changes nothing."""
        return dataclasses.replace(self, lanes=dict(self.lanes))

    def run(self, action: Action, now_s: int, balance: int) -> Leaves:
        """Do ``action`` with so much in the account (without what the message brings), or raise ``Refused``."""
        match action:
            case Order():
                return self._order(action, now_s, balance + action.keep)
            case Claim():
                return self._claim(action, now_s, balance)
            case Prune(lanes):
                for lane in lanes:
                    if now_s < self._lane(lane).expires_s:
                        raise Refused(114)
                    del self.lanes[lane]
                return Leaves()
            case OwnerMessage(amount, source):
                if source != OWNER:
                    raise Refused(101)
                self.order_number += 1
                if amount is not None:
                    return Leaves(self._withdrawal(amount, balance), OWNER)
                self._expire(tuple(self.lanes), now_s)
                return Leaves()

    def external_due(self, action: Claim, balance: int, worst: int) -> int:
        """What an external claim takes, if it pays for itself."""
        lane = self.lanes[action.lane]
        due = min(action.total - lane.paid_nanoton, balance)
        if due < 2 * worst + Prices().forward_fee_nanoton(0, 0):
            raise Refused(120)
        return due

    def _lane(self, lane: int) -> LaneState:
        if lane not in self.lanes:
            raise Refused(104)
        return self.lanes[lane]

    def _order(self, order: Order, now_s: int, balance: int) -> Leaves:
        if order.number != self.order_number:
            raise Refused(107)
        if not now_s < order.valid_until_s <= now_s + 86_400:
            raise Refused(108)
        self.order_number += 1
        if order.kind == "open":
            for lane in order.what:
                assert isinstance(lane, NewLane | TopUp)
                self._open(lane, now_s)
            if balance < self.locked + escrow.reserve_nanoton(len(self.lanes)):
                raise Refused(109)
        elif order.kind == "expire":
            self._expire(tuple(int(str(lane)) for lane in order.what), now_s)
        elif order.kind == "close":
            return self._close(order, balance)
        elif order.kind == "withdraw":
            return Leaves(self._withdrawal(int(str(order.what[0])), balance), OWNER, order.keep)
        return Leaves(keep=order.keep)

    def _open(self, lane: NewLane | TopUp, now_s: int) -> None:
        old = LaneState(b"", b"", 0, 0, now_s + 1)
        if isinstance(lane, NewLane):
            if not self.next_lane <= lane.lane <= self.next_lane + 64:
                raise Refused(115)
            if lane.cap_nanoton < 20_000_000:
                raise Refused(117)
            if len(self.lanes) == 64:
                raise Refused(118)
            self.next_lane = lane.lane + 1
            old = replace(old, payout=lane.payout, provider_key=lane.provider_key)
        else:
            old = self._lane(lane.lane)
            if lane.cap_nanoton < old.cap_nanoton:
                raise Refused(117)
        if not max(now_s + 1, old.expires_s) <= lane.expires_s <= now_s + 400 * 86_400:
            raise Refused(116)
        self.lanes[lane.lane] = replace(old, cap_nanoton=lane.cap_nanoton, expires_s=lane.expires_s)

    def _expire(self, lanes: tuple[int, ...], now_s: int) -> None:
        for lane in lanes:
            state = self._lane(lane)
            self.lanes[lane] = replace(state, expires_s=min(state.expires_s, now_s + self.close_delay_s))

    def _close(self, order: Order, balance: int) -> Leaves:
        number, total = (int(str(part)) for part in order.what)
        lane = self._lane(number)
        if not order.by_provider:
            raise Refused(103)
        if total < lane.paid_nanoton:
            raise Refused(122)
        if total > lane.cap_nanoton:
            raise Refused(106)
        out = total - lane.paid_nanoton
        if out > balance:
            raise Refused(109)
        del self.lanes[number]
        return Leaves(out, lane.payout, order.keep)

    def _withdrawal(self, amount: int, balance: int) -> int:
        most = balance - self.locked - escrow.reserve_nanoton(len(self.lanes))
        out = amount or most
        if not 0 < out <= most:
            raise Refused(109)
        return out

    def _claim(self, claim: Claim, now_s: int, balance: int) -> Leaves:
        lane = self._lane(claim.lane)
        if now_s >= lane.expires_s:
            raise Refused(113)
        if claim.total > lane.cap_nanoton:
            raise Refused(106)
        if claim.external:
            return Leaves(dest=lane.payout)
        if claim.total <= lane.paid_nanoton:
            raise Refused(105)
        out = min(claim.total - lane.paid_nanoton, balance)
        if not out:
            raise Refused(109)
        self.pay(claim.lane, out)
        return Leaves(out, lane.payout)

    def pay(self, number: int, amount: int) -> None:
        """Count what a lane was paid."""
        lane = self.lanes[number]
        self.lanes[number] = replace(lane, paid_nanoton=lane.paid_nanoton + amount)
