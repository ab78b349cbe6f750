"""Lanes: what a requester's escrow holds for one provider, and how much of it is free.

The requester keeps a ``LaneBook`` per escrow, the provider a ``LaneTill``
(``ledger.till``). Both compute what is free from signed words alone:
``free = cap - voucher total - ceilings of open leases``.

Invariants
    One lease is open on a lane at a time, so its receipts are one chain.
    A lane id, once promised, belongs to one provider for ever.
    The ceilings of open leases never exceed what is free.

Purity: pure; chain time and chain state come as arguments.
Spec: docs/spec/lanes.md, rules LAN-1 to LAN-7, LAN-13 and LAN-14.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.errors import LaneBusy, LaneClosing, LimitExceeded, UsageError
from cocoon.core.ids import LeaseId, PeerKey, ReceiptHash
from cocoon.core.limits import ESCROW_LANES, LANE_FEES, LANE_GAP, LANE_LIFE_S, LANE_SLACK_S
from cocoon.core.machine import Event
from cocoon.core.values import Value
from cocoon.ledger.escrow import LANE_FLOOR_NANOTON, EscrowState
from cocoon.ledger.facts import FactBook
from cocoon.ledger.tab import Head


class LaneRules(Value):
    """What a network and its prices make of lanes."""

    #: A lane outlives its leases by this.
    margin_s: int
    #: Fee of the order that opens a lane, and of a claim.
    open_fee_nanoton: int
    claim_fee_nanoton: int
    life_s: int = LANE_LIFE_S

    @property
    def least_nanoton(self) -> int:
        """The smallest cap that a provider takes (LAN-5)."""
        return max(LANE_FLOOR_NANOTON, LANE_FEES * (self.open_fee_nanoton + self.claim_fee_nanoton))


# --- facts of record, requester --------------------------------------------


class LanePromised(Event):
    """The id stands in an order, or in a lease on credit: it belongs to this provider now."""

    lane: int
    provider: PeerKey
    payout: bytes
    provider_key: bytes
    cap_nanoton: int
    expires_s: int


class LeaseReserved(Event):
    """A lease on this lane is about to be signed."""

    lane: int
    lease: LeaseId
    ceiling_nanoton: int


class LeaseReleased(Event):
    """The lease is over and everything accepted on it is under a voucher; the lane's head is this."""

    lane: int
    lease: LeaseId
    seq: int
    digest: ReceiptHash
    total_nanoton: int
    skipped: int

    @classmethod
    def at(cls, lane: int, lease: LeaseId, head: Head) -> LeaseReleased:
        """The fact for a lease that ended at ``head``; the provider may have had one more receipt out (LAN-10)."""
        return cls(lane, lease, head.seq, head.digest, head.total_nanoton, head.skipped + 1)

    @property
    def head(self) -> Head:
        """Where the lane stands now."""
        return Head(self.seq, self.digest, self.total_nanoton, self.skipped)


class LaneEnding(Event):
    """This side signed a close, or an order that brings the expiry forward: no further lease."""

    lane: int


BookFact = LanePromised | LeaseReserved | LeaseReleased | LaneEnding
BOOK_FACTS = FactBook(LanePromised, LeaseReserved, LeaseReleased, LaneEnding)


# --- answers ---------------------------------------------------------------


class UseLane(Value):
    """Sign the lease on this lane; its receipts follow ``head``."""

    lane: int
    head: Head
    #: False while the lane is only promised: the provider may give credit.
    proven: bool


class TopUpLane(Value):
    """Order this absolute cap and expiry, wait until they are proven, then choose again."""

    lane: int
    cap_nanoton: int
    expires_s: int


class NewLaneNeeded(Value):
    """Record ``LanePromised`` with these figures and order it; the lease may start on credit."""

    lane: int
    cap_nanoton: int
    expires_s: int


class NoLane(Value):
    """The escrow can take no further lane now, and why."""

    why: str


Choice = UseLane | TopUpLane | NewLaneNeeded | NoLane


class LaneStage(Enum):
    """Where a lane stands in the requester's book."""

    PROMISED = "not on chain yet"
    OPEN = "on chain"
    ENDING = "being closed"
    GONE = "not on chain any more"


@dataclass(slots=True)
class BoughtLane:
    """One lane of our escrow."""

    lane: int
    provider: PeerKey
    payout: bytes
    provider_key: bytes
    #: Absolute, as promised, then as read on chain.
    cap_nanoton: int
    expires_s: int
    paid_nanoton: int = 0
    stage: LaneStage = LaneStage.PROMISED
    head: Head = field(default_factory=Head)
    #: The open lease, if any, and its ceiling.
    lease: LeaseId | None = None
    reserved_nanoton: int = 0

    @property
    def free_nanoton(self) -> int:
        """What a further lease may cost (LAN-3)."""
        return self.cap_nanoton - max(self.head.total_nanoton, self.paid_nanoton) - self.reserved_nanoton


@dataclass(slots=True)
class LaneBook:
    """The requester's lanes in one escrow."""

    lanes: dict[int, BoughtLane] = field(default_factory=dict)
    #: The smallest id that the contract takes next, as last proven. We begin at 1: lane 0 is no lane (MON-7).
    next_on_chain: int = 0

    def check(self, fact: BookFact) -> None:
        """Return if ``record`` takes this fact: what is in the journal must be one that a replay takes.

        Raises:
            UsageError: an id given twice, or a lane that is not this book's.
            LaneBusy, LaneClosing: a second lease on a lane, or one on a lane that ends.
            LimitExceeded: a ceiling above what is free.
        """
        match fact:
            case LanePromised(lane):
                if lane < 1 or lane in self.lanes or lane < max(self.lanes, default=0):
                    raise UsageError(f"lane id {lane} was given before")
            case LeaseReserved(lane, lease, ceiling):
                self._check_free(self._lane(lane), lease, ceiling)
            case LeaseReleased(lane) | LaneEnding(lane):
                self._lane(lane)

    def record(self, fact: BookFact) -> None:
        """Take a fact of record; append it to the journal before its consequences leave.

        Raises:
            As ``check``; nothing is changed.
        """
        self.check(fact)
        self.restore(fact)

    def restore(self, fact: BookFact) -> None:
        """Take a fact of an earlier life: it was checked then, against caps of the chain that no journal holds."""
        match fact:
            case LanePromised(lane, provider, payout, provider_key, cap, expires):
                self.lanes[lane] = BoughtLane(lane, provider, payout, provider_key, cap, expires)
            case LeaseReserved(lane, lease, ceiling):
                found = self._lane(lane)
                found.lease, found.reserved_nanoton = lease, ceiling
            case LeaseReleased(lane, lease):
                found = self._lane(lane)
                if found.lease == lease:
                    found.lease, found.reserved_nanoton = None, 0
                if fact.head.seq >= found.head.seq:
                    found.head = fact.head
            case LaneEnding(lane):
                found = self._lane(lane)
                if found.stage is not LaneStage.GONE:
                    found.stage = LaneStage.ENDING

    def see(self, state: EscrowState) -> None:
        """Take the proven state of the escrow."""
        self.next_on_chain = max(self.next_on_chain, state.next_lane)
        for found in self.lanes.values():
            seen = state.lanes.get(found.lane)
            if seen is not None:
                found.cap_nanoton, found.paid_nanoton = seen.cap_nanoton, seen.paid_nanoton
                found.expires_s = seen.expires_s
                if found.stage is LaneStage.PROMISED:
                    found.stage = LaneStage.OPEN
            elif found.lane < state.next_lane:
                found.stage = LaneStage.GONE

    def unopened(self, wanted: Collection[int], now_s: int, rules: LaneRules) -> tuple[NewLaneNeeded, ...]:
        """The lanes of an order that opens ``wanted``, in the order of their ids (LAN-4).

        With them go all others that were promised and that work was done on, or is: a later id on chain
        would end their promise. One that nobody ever used is passed over; its id is never given again.
        """
        waiting = [
            lane for lane in self.lanes.values() if lane.stage is LaneStage.PROMISED
            and (lane.lane in wanted or lane.lease is not None or lane.head.total_nanoton)
        ]
        return tuple(
            NewLaneNeeded(lane.lane, lane.cap_nanoton, max(lane.expires_s, now_s + rules.life_s))
            for lane in sorted(waiting, key=lambda lane: lane.lane)
        )

    def choose(
        self, provider: PeerKey, payout: bytes, provider_key: bytes, *, ceiling_nanoton: int, duration_s: int,
        now_s: int, rules: LaneRules, worth_nanoton: int = 0,
    ) -> Choice:
        """The lane for a lease of this ceiling, or what has to be ordered first (LAN-6).

        Args:
            payout, provider_key: From the provider's key bundle.
            duration_s: Of the lease.
            now_s: Chain time.
            worth_nanoton: What a lane that is opened or topped up then has free at least.
        """
        until_s = now_s + duration_s + rules.margin_s + LANE_SLACK_S
        ours = [
            lane for lane in self.lanes.values()
            if (lane.provider, lane.payout, lane.provider_key) == (provider, payout, provider_key)
            and lane.lease is None and lane.stage in (LaneStage.OPEN, LaneStage.PROMISED)
        ]
        for lane in sorted(ours, key=lambda lane: (lane.stage is not LaneStage.OPEN, lane.lane)):
            if lane.free_nanoton >= ceiling_nanoton and lane.expires_s >= until_s:
                return UseLane(lane.lane, lane.head, lane.stage is LaneStage.OPEN)
        worth = max(ceiling_nanoton, rules.least_nanoton, worth_nanoton)
        expires_s = max(until_s, now_s + rules.life_s)
        for lane in (lane for lane in ours if lane.stage is LaneStage.OPEN and now_s < lane.expires_s):
            cap = max(lane.cap_nanoton, lane.cap_nanoton - lane.free_nanoton + worth)
            return TopUpLane(lane.lane, cap, max(lane.expires_s, expires_s))
        return self._new(worth, expires_s)

    def _new(self, cap_nanoton: int, expires_s: int) -> Choice:
        live = sum(lane.stage is not LaneStage.GONE for lane in self.lanes.values())
        if live >= ESCROW_LANES:
            return NoLane(f"{live} lanes live in this escrow")
        lane = max(self.next_on_chain, max(self.lanes, default=0) + 1)
        if lane > self.next_on_chain + LANE_GAP:
            return NoLane(f"{LANE_GAP} promised lanes are not on chain yet")
        return NewLaneNeeded(lane, cap_nanoton, expires_s)

    @staticmethod
    def _check_free(lane: BoughtLane, lease: LeaseId, ceiling_nanoton: int) -> None:
        if lane.lease is not None and lane.lease != lease:
            raise LaneBusy(f"lane {lane.lane} has an open lease")
        if lane.stage in (LaneStage.ENDING, LaneStage.GONE):
            raise LaneClosing(f"lane {lane.lane} is {lane.stage.value}")
        if lane.lease is None and ceiling_nanoton > lane.free_nanoton:
            raise LimitExceeded(f"a ceiling of {ceiling_nanoton} nanoton, free on the lane are {lane.free_nanoton}")

    def _lane(self, lane: int) -> BoughtLane:
        if lane not in self.lanes:
            raise UsageError(f"lane {lane} was never promised")
        return self.lanes[lane]
