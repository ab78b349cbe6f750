"""When a provider claims what a lane owes it, and how it watches the lane meanwhile.

A claim costs a fee, a voucher keeps for as long as its lane lives: so claims are
rare, but never late. One ``ClaimKeeper`` per lane; all its times are chain times
but the interval between looks.

Invariants
    No claim is sent for what would not pay its fee.
    A lane with a voucher is looked at eight times per close delay.

Purity: pure. Spec: docs/spec/lanes.md, rules LAN-15 to LAN-21.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cocoon.core.limits import LANE_FEES, LANE_LOOKS
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS
from cocoon.ledger.escrow import LaneState
from cocoon.wire.judged import Voucher


class VoucherSettled(Event):
    """A newer voucher of the lane was accepted and is durable."""

    voucher: Voucher
    signature: bytes


class LaneSeen(Event):
    """The lane in proven state at chain time ``at_s``; None: it is not there.

    ``expected`` is False while the escrow has not reached this id yet.
    """

    state: LaneState | None
    at_s: int
    claim_fee_nanoton: int
    expected: bool = True


class LaneUnseen(Event):
    """The chain did not give the lane's state."""


class ClaimAsked(Event):
    """The user, or a draining peer, wants what is due now."""


class ClaimEnded(Event):
    """Our claim of voucher ``seq`` is in a block, or will never be."""

    seq: int
    paid: bool


class ClosePending(Event):
    """We signed a close at this total: if the lane goes, that was paid."""

    total_nanoton: int


ClaimEvent = VoucherSettled | LaneSeen | LaneUnseen | ClaimAsked | ClaimEnded | ClosePending


class LookAtLane(Effect):
    """Read the lane's proven state and tell ``LaneSeen``."""

    escrow: bytes
    lane: int


class SendClaim(Effect):
    """Queue the claim in the outbox, and tell ``ClaimEnded``. Idempotent by the voucher's hash."""

    voucher: Voucher
    signature: bytes
    durable: ClassVar[bool] = True


class ReportClaimed(Effect):
    """What ``ClaimAsked`` wanted is done, as far as it could be."""


class ReportLaneGone(Effect):
    """The lane is gone, and this much of its newest voucher was never paid as far as this keeper saw."""

    unpaid_nanoton: int
    durable: ClassVar[bool] = True


@dataclass(slots=True)
class ClaimKeeper:
    """Watches one lane and claims from it."""

    escrow: bytes
    lane: int
    close_delay_s: int
    voucher: Voucher | None = field(default=None, init=False)
    signature: bytes = field(default=b"", init=False)
    #: As last seen.
    state: LaneState | None = field(default=None, init=False)
    #: Voucher of the claim that is on its way.
    claiming_seq: int = field(default=0, init=False)
    gone: bool = field(default=False, init=False)
    _closing_nanoton: int = field(default=0, init=False)
    _half_s: int = field(default=0, init=False)
    _forward: bool = field(default=False, init=False)
    #: Somebody wants what is due: not looked at yet, or claimed for him and under way.
    _asked: bool = field(default=False, init=False)
    _answering: bool = field(default=False, init=False)
    _look_ns: int | None = field(default=None, init=False)

    @property
    def due_nanoton(self) -> int:
        """What a claim would pay, before its fee."""
        paid = self.state.paid_nanoton if self.state is not None else 0
        return max(0, self.voucher.total_nanoton - paid) if self.voucher is not None else 0

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; nothing happens once the lane is gone."""
        if self.gone:
            return []
        match event:
            case VoucherSettled(voucher, signature):
                if self.voucher is None or voucher.seq > self.voucher.seq:
                    self.voucher, self.signature = voucher, signature
                if self._look_ns is None:
                    return self._look(now_ns)
            case LaneSeen():
                return self._seen(event)
            case LaneUnseen():
                return self._answer_asked()
            case ClaimAsked():
                self._asked = True
                return self._look(now_ns)
            case ClaimEnded(seq, paid) if seq == self.claiming_seq:
                return self._ended(now_ns, paid)
            case ClosePending(total):
                self._closing_nanoton = max(self._closing_nanoton, total)
                return self._look(now_ns)
            case DeadlinePassed() if self._look_ns is not None and now_ns >= self._look_ns:
                return self._look(now_ns)
        return []

    def deadline_ns(self) -> int | None:
        """When the lane is to be looked at again; None while there is nothing to lose."""
        return None if self.gone else self._look_ns

    def _look(self, now_ns: int) -> list[Effect]:
        self._look_ns = now_ns + max(1, self.close_delay_s * SECOND_NS // LANE_LOOKS)
        return [LookAtLane(self.escrow, self.lane)]

    def _ended(self, now_ns: int, paid: bool) -> list[Effect]:
        """A failed claim waits for the next look, however it failed: at once it would only fail again (LAN-19)."""
        self.claiming_seq = 0
        answered: list[Effect] = [ReportClaimed()] if self._answering else []
        self._answering = False
        return [*answered, *(self._look(now_ns) if paid or self._asked else [])]

    def _answer_asked(self) -> list[Effect]:
        asked, self._asked = self._asked, False
        return [ReportClaimed()] if asked else []

    def _seen(self, seen: LaneSeen) -> list[Effect]:
        if seen.state is None:
            return self._vanished() if seen.expected else self._answer_asked()
        if self.state is None or seen.state.expires_s > self.state.expires_s:
            self._half_s, self._forward = (seen.at_s + seen.state.expires_s) // 2, False
        elif seen.state.expires_s < self.state.expires_s:
            self._forward = True
        self.state = seen.state
        if self.claiming_seq:
            return []
        if self.voucher is None or not self._worth(seen):
            return self._answer_asked()
        self.claiming_seq, self._answering, self._asked = self.voucher.seq, self._asked, False
        return [SendClaim(self.voucher, self.signature)]

    def _worth(self, seen: LaneSeen) -> bool:
        """Whether to claim now (LAN-17): a claim that does not pay its fee never is."""
        assert seen.state is not None
        if self.due_nanoton <= seen.claim_fee_nanoton or seen.at_s >= seen.state.expires_s:
            return False
        if self._asked or self._forward or seen.at_s >= self._half_s:
            return True
        return self.due_nanoton >= min(LANE_FEES * seen.claim_fee_nanoton, seen.state.cap_nanoton // 2)

    def _vanished(self) -> list[Effect]:
        """Closed at a total that we signed, or pruned after its expiry."""
        self.gone = True
        answered: list[Effect] = [ReportClaimed()] if self._asked or self._answering else []
        unpaid = 0
        if self.voucher is not None and self.state is not None:   # else what was paid was never seen: the audit says
            unpaid = max(0, self.voucher.total_nanoton - max(self.state.paid_nanoton, self._closing_nanoton))
        return [*answered, ReportLaneGone(unpaid)]
