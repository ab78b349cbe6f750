"""What a provider earned: promised by vouchers, paid by the chain, still to come, and what it cost.

Purity: pure. Spec: docs/spec/lanes.md, rule LAN-30.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cocoon.core.values import Value
from cocoon.ledger.acts import EscrowHistory, LaneEnd
from cocoon.ledger.till import SoldLane


class LaneEarnings(Value):
    """One lane's part."""

    escrow: bytes
    lane: int
    earned_nanoton: int
    claimed_nanoton: int
    #: Gone before it was claimed: nobody will pay it.
    lost_nanoton: int

    @property
    def pending_nanoton(self) -> int:
        """Vouched and not paid yet."""
        return max(0, self.earned_nanoton - self.claimed_nanoton - self.lost_nanoton)


class Earnings(Value):
    """All lanes together."""

    lanes: tuple[LaneEarnings, ...]
    #: Of claims and anchors, from the transactions of our own wallet.
    fees_nanoton: int

    @property
    def earned_nanoton(self) -> int:
        """By the newest voucher of each lane."""
        return sum(lane.earned_nanoton for lane in self.lanes)

    @property
    def claimed_nanoton(self) -> int:
        """Paid by the chain."""
        return sum(lane.claimed_nanoton for lane in self.lanes)

    @property
    def pending_nanoton(self) -> int:
        """Vouched, and still to be claimed."""
        return sum(lane.pending_nanoton for lane in self.lanes)

    @property
    def lost_nanoton(self) -> int:
        """Vouched, and never to be paid."""
        return sum(lane.lost_nanoton for lane in self.lanes)


def earnings_of(
    lanes: Iterable[SoldLane], histories: Mapping[bytes, EscrowHistory], fees_nanoton: int
) -> Earnings:
    """Earnings of a provider's lanes.

    Args:
        lanes: From our till.
        histories: By escrow address; an escrow that is missing has paid nothing yet.
        fees_nanoton: What our own transactions for them cost.
    """
    found = []
    for lane in sorted(lanes, key=lambda lane: (lane.escrow, lane.lane)):
        escrow = histories.get(lane.escrow)
        history = escrow.lanes.get(lane.lane) if escrow is not None else None
        earned = lane.head.total_nanoton
        claimed = history.paid_nanoton if history is not None else 0
        over = history is not None and history.end is not LaneEnd.LIVE
        lost = max(0, earned - claimed) if over else 0
        found.append(LaneEarnings(lane.escrow, lane.lane, earned, claimed, lost))
    return Earnings(tuple(found), fees_nanoton)
