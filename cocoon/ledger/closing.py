"""Closing a lane: at once with both signatures, or by bringing its expiry forward.

The requester gets back what is not owed, the provider is paid in the same
transaction. A provider signs only its own newest settled total, with nothing
open on the lane, so a close never costs it anything. If it does not answer, the
lane's expiry is brought forward: the provider then has the close delay to claim.

Purity: pure; order numbers, chain state and chain time come in facts. Spec: docs/spec/lanes.md, rules LAN-22 to LAN-29.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from cocoon.core.errors import LaneBusy, wrong
from cocoon.core.limits import CLOSE_REPLY_NS, ORDER_WAIT_S, RETRY_FIRST_NS
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.ledger.escrow import ORDER_LIFE_S, EscrowState, LaneState
from cocoon.ledger.till import CloseSigned, SoldLane
from cocoon.wire.judged import verify_cell
from cocoon.wire.orders import CloseOrder


def check_close(
    order: CloseOrder, signature: bytes, lane: SoldLane, state: EscrowState, *, now_s: int
) -> CloseSigned:
    """The provider's side: the fact to record before signing this close (LAN-23).

    Args:
        order, signature: Of ``CloseAsk``.
        lane: What our till knows of the lane.
        state: Proven state of the escrow.
        now_s: Chain time.

    Raises:
        BadSignature: not signed by the lane key.
        WrongField: ``wrong_network_id``, ``wrong_escrow``, ``wrong_lane``, ``wrong_total``
            (not our newest settled total), ``wrong_order`` (not the next number), ``wrong_expiry``.
        LaneBusy: a lease is open, or not settled.
    """
    head = order.head
    if head.network_tag != state.birth.network_tag:
        raise wrong("network_id", f"the order is for network {head.network_tag:08x}")
    if head.escrow != lane.escrow or lane.escrow != state.birth.address():
        raise wrong("escrow", "the order is for another escrow")
    verify_cell(order.hash(), state.birth.lane_key, signature)
    if order.lane != lane.lane or order.lane not in state.lanes:
        raise wrong("lane", f"the order closes lane {order.lane}, which is not this one or not on chain")
    if head.number != state.order_number:
        raise wrong("order", f"the order has number {head.number}, the escrow takes {state.order_number}")
    if not now_s < head.valid_until_s <= now_s + ORDER_LIFE_S:
        raise wrong("expiry", f"the order is valid until {head.valid_until_s}, chain time is {now_s}")
    if not lane.settled:
        raise LaneBusy(f"lane {lane.lane} has a lease that is {'unsettled' if lane.lease_over else 'open'}")
    if order.total_nanoton != lane.head.total_nanoton:
        raise wrong("total", f"the order closes at {order.total_nanoton}, settled are {lane.head.total_nanoton}")
    return CloseSigned(lane.escrow, lane.lane, order.total_nanoton, head.valid_until_s)


# --- the requester ---------------------------------------------------------


class CloseWanted(Event):
    """The lane is not needed any more; ``total_nanoton`` is its newest voucher's."""

    total_nanoton: int


class CloseAskSent(Event):
    """The order has its number, and the provider has the question."""


class CloseAgreed(Event):
    """The provider signed; the signature was checked against the provider key."""

    signature: bytes


class CloseDenied(Event):
    """The provider refuses, cannot be reached, or signed something else."""

    code: str


class OrderLapsed(Event):
    """The order that we sent was not executed before its valid-until."""


class LaneLooked(Event):
    """The lane in proven state at chain time ``at_s``; None: it is gone."""

    state: LaneState | None
    at_s: int


CloseEvent = CloseWanted | CloseAskSent | CloseAgreed | CloseDenied | OrderLapsed | LaneLooked


class AskClose(Effect):
    """Make the close order under the next number, sign it with the lane key, send ``CloseAsk`` and tell of that."""

    lane: int
    total_nanoton: int
    durable: ClassVar[bool] = True


class SendClose(Effect):
    """Carry the order with both signatures to the escrow."""

    lane: int
    signature: bytes
    durable: ClassVar[bool] = True


class SendExpire(Effect):
    """Order the lane's expiry forward."""

    lane: int
    durable: ClassVar[bool] = True


class SendPrune(Effect):
    """The lane has expired: anybody may remove it."""

    lane: int
    durable: ClassVar[bool] = True


class ReportClosed(Effect):
    """The lane is gone; what it locked is free again."""

    lane: int


class CloseStage(Enum):
    """How far a close has come."""

    OPEN = "not wanted"
    ASKED = "the provider was asked"
    SENT = "the close is on its way"
    EXPIRING = "the expiry is brought forward"
    PRUNING = "the expired lane is being removed"
    CLOSED = "gone"


@dataclass(slots=True)
class LaneCloser:
    """The requester's side of one close. Looked at while ``stage`` is neither open nor closed."""

    lane: int
    stage: CloseStage = field(default=CloseStage.OPEN, init=False)
    total_nanoton: int = field(default=0, init=False)
    _deadline_ns: int | None = field(default=None, init=False)
    #: The provider has from the first question until then to sign; it may be busy with the end of the lease before.
    _until_ns: int | None = field(default=None, init=False)
    _waiting: bool = field(default=False, init=False)

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; what came before, or too late, changes nothing."""
        match event:
            case CloseWanted(total) if self.stage is CloseStage.OPEN:
                self.stage, self.total_nanoton = CloseStage.ASKED, total
                return self._ask()
            case CloseAskSent() if self.stage is CloseStage.ASKED:
                self._until_ns = self._until_ns or now_ns + CLOSE_REPLY_NS
                self._deadline_ns = self._until_ns
            case CloseAgreed(signature) if self.stage is CloseStage.ASKED:
                self.stage, self._deadline_ns = CloseStage.SENT, None
                return [SendClose(self.lane, signature)]
            case CloseDenied(code) if self.stage is CloseStage.ASKED:
                if code != LaneBusy.code or now_ns + RETRY_FIRST_NS >= (self._until_ns or 0):
                    return self._expire()
                self._waiting, self._deadline_ns = True, now_ns + RETRY_FIRST_NS
            case DeadlinePassed() if self._deadline_ns is not None and now_ns >= self._deadline_ns:
                return self._ask() if self._waiting else self._expire()
            case OrderLapsed() if self.stage in (CloseStage.SENT, CloseStage.EXPIRING):
                return self._expire()
            case LaneLooked(state, at_s) if self.stage is not CloseStage.CLOSED:
                return self._looked(state, at_s)
        return []

    def deadline_ns(self) -> int | None:
        """When the provider's answer is due, or a busy one is asked again."""
        return self._deadline_ns

    def _ask(self) -> list[Effect]:
        self._waiting, self._deadline_ns = False, None
        return [AskClose(self.lane, self.total_nanoton)]

    def _expire(self) -> list[Effect]:
        self.stage, self._deadline_ns = CloseStage.EXPIRING, None
        return [SendExpire(self.lane)]

    def _looked(self, state: LaneState | None, at_s: int) -> list[Effect]:
        if state is None:
            self.stage, self._deadline_ns = CloseStage.CLOSED, None
            return [ReportClosed(self.lane)]
        if at_s >= state.expires_s and self.stage not in (CloseStage.OPEN, CloseStage.PRUNING):
            self.stage, self._deadline_ns = CloseStage.PRUNING, None
            return [SendPrune(self.lane)]
        return []


# --- order numbers ---------------------------------------------------------


@dataclass(slots=True)
class OrderDesk:
    """One escrow order is in flight at a time; its number is free again when it can never run (LAN-28)."""

    #: Number and valid-until of the order in flight.
    flying: tuple[int, int] | None = None

    def take(self, state: EscrowState, now_s: int) -> tuple[int, int] | None:
        """(number, valid-until) for a new order; None while another may still be executed.

        Args:
            state: Proven, read now.
            now_s: Chain time.
        """
        if not self.free(state, now_s):
            return None
        self.flying = state.order_number, now_s + ORDER_WAIT_S
        return self.flying

    def resume(self, number: int, valid_until_s: int) -> None:
        """An earlier life of this peer gave this order away; it may still be executed."""
        self.flying = number, valid_until_s

    def free(self, state: EscrowState, now_s: int) -> bool:
        """Whether nothing is in flight any more: executed, or past its valid-until."""
        if self.flying is not None and (state.order_number > self.flying[0] or now_s >= self.flying[1]):
            self.flying = None
        return self.flying is None

    def drop(self, number: int) -> None:
        """Nothing of this number was carried by us; who was asked to agree may still carry a close (LAN-29)."""
        if self.flying is not None and self.flying[0] == number:
            self.flying = None
