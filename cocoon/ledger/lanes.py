"""Lanes, both sides: what an escrow holds for one provider, and how much of it is free.

The requester keeps a ``LaneBook`` per escrow, the provider a ``LaneTill`` over
all escrows that pay it. Both compute what is free from signed words alone:
``free = cap - voucher total - ceilings of open leases``.

Invariants
    One lease is open on a lane at a time, so its receipts are one chain.
    A lane id, once promised, belongs to one provider for ever.
    The ceilings of open leases never exceed what is free.

Purity: pure; chain time and chain state come as arguments. Spec: docs/spec/lanes.md, rules LAN-1 to LAN-14.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from cocoon.core.errors import LaneBusy, LaneClosing, LimitExceeded, Replayed, UsageError, wrong
from cocoon.core.ids import LeaseId, PeerKey, ReceiptHash
from cocoon.core.limits import ESCROW_LANES, LANE_FEES, LANE_LIFE_S
from cocoon.core.machine import Event
from cocoon.ledger.escrow import LANE_FLOOR_NANOTON, LANE_GAP, EscrowState, LaneState
from cocoon.ledger.facts import FactBook
from cocoon.ledger.tab import Head, shown_voucher
from cocoon.ledger.terms import LeaseTerms
from cocoon.wire.judged import Voucher


@dataclass(frozen=True, slots=True)
class LaneRules:
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


@dataclass(frozen=True, slots=True)
class LanePromised(Event):
    """The id stands in an order, or in a lease on credit: it belongs to this provider now."""

    lane: int
    provider: PeerKey
    payout: bytes
    provider_key: bytes
    cap_nanoton: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class LeaseReserved(Event):
    """A lease on this lane is about to be signed."""

    lane: int
    lease: LeaseId
    ceiling_nanoton: int


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class LaneEnding(Event):
    """This side signed a close, or an order that brings the expiry forward: no further lease."""

    lane: int


BOOK_FACTS = FactBook(LanePromised, LeaseReserved, LeaseReleased, LaneEnding)


# --- answers ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UseLane:
    """Sign the lease on this lane; its receipts follow ``head``."""

    lane: int
    head: Head
    #: False while the lane is only promised: the provider may give credit.
    proven: bool


@dataclass(frozen=True, slots=True)
class TopUpLane:
    """Order this absolute cap and expiry, wait until they are proven, then choose again."""

    lane: int
    cap_nanoton: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class NewLaneNeeded:
    """Record ``LanePromised`` with these figures and order it; the lease may start on credit."""

    lane: int
    cap_nanoton: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class NoLane:
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

    def record(self, fact: LanePromised | LeaseReserved | LeaseReleased | LaneEnding) -> None:
        """Take a fact of record; append it to the journal before its consequences leave.

        Raises:
            UsageError: an id given twice, or a lane that is not this book's.
            LaneBusy, LaneClosing: a second lease on a lane, or one on a lane that ends.
            LimitExceeded: a ceiling above what is free.
        """
        match fact:
            case LanePromised(lane, provider, payout, provider_key, cap, expires):
                if lane < 1 or lane in self.lanes or lane < max(self.lanes, default=0):
                    raise UsageError(f"lane id {lane} was given before")
                self.lanes[lane] = BoughtLane(lane, provider, payout, provider_key, cap, expires)
            case LeaseReserved(lane, lease, ceiling):
                self._reserve(self._lane(lane), lease, ceiling)
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

    def unopened(self, now_s: int, rules: LaneRules) -> tuple[NewLaneNeeded, ...]:
        """The promised lanes in the order of their ids: an order that opens lanes opens all of them (LAN-4).

        Else a later id on chain would end the earlier promise, and the work done on it.
        """
        waiting = [lane for lane in self.lanes.values() if lane.stage is LaneStage.PROMISED]
        return tuple(
            NewLaneNeeded(lane.lane, lane.cap_nanoton, max(lane.expires_s, now_s + rules.life_s))
            for lane in sorted(waiting, key=lambda lane: lane.lane)
        )

    def choose(
        self, provider: PeerKey, payout: bytes, provider_key: bytes, *, ceiling_nanoton: int, duration_s: int,
        now_s: int, rules: LaneRules,
    ) -> Choice:
        """The lane for a lease of this ceiling, or what has to be ordered first (LAN-6).

        Args:
            payout, provider_key: From the provider's key bundle.
            duration_s: Of the lease.
            now_s: Chain time.
        """
        until_s = now_s + duration_s + rules.margin_s
        ours = [
            lane for lane in self.lanes.values()
            if (lane.provider, lane.payout, lane.provider_key) == (provider, payout, provider_key)
            and lane.lease is None and lane.stage in (LaneStage.OPEN, LaneStage.PROMISED)
        ]
        for lane in sorted(ours, key=lambda lane: (lane.stage is not LaneStage.OPEN, lane.lane)):
            if lane.free_nanoton >= ceiling_nanoton and lane.expires_s >= until_s:
                return UseLane(lane.lane, lane.head, lane.stage is LaneStage.OPEN)
        worth = max(ceiling_nanoton, rules.least_nanoton)
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

    def _reserve(self, lane: BoughtLane, lease: LeaseId, ceiling_nanoton: int) -> None:
        if lane.lease is not None and lane.lease != lease:
            raise LaneBusy(f"lane {lane.lane} has an open lease")
        if lane.stage in (LaneStage.ENDING, LaneStage.GONE):
            raise LaneClosing(f"lane {lane.lane} is {lane.stage.value}")
        if lane.lease is None and ceiling_nanoton > lane.free_nanoton:
            raise LimitExceeded(f"a ceiling of {ceiling_nanoton} nanoton, free on the lane are {lane.free_nanoton}")
        lane.lease, lane.reserved_nanoton = lease, ceiling_nanoton

    def _lane(self, lane: int) -> BoughtLane:
        if lane not in self.lanes:
            raise UsageError(f"lane {lane} was never promised")
        return self.lanes[lane]


# --- the provider ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LaneEntered(Event):
    """A lease on this lane is about to be countersigned; its receipts follow ``opening``."""

    escrow: bytes
    lane: int
    requester: PeerKey
    lease: LeaseId
    ceiling_nanoton: int
    seq: int
    digest: ReceiptHash
    total_nanoton: int
    skipped: int

    @property
    def opening(self) -> Head:
        """Where the lane stood."""
        return Head(self.seq, self.digest, self.total_nanoton, self.skipped)


@dataclass(frozen=True, slots=True)
class VoucherKept(Event):
    """A voucher of this lane was accepted: what a claim will show. ``voucher`` is the packed cell."""

    escrow: bytes
    lane: int
    voucher: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class LaneLeft(Event):
    """The lease is over; ``settled`` says that nothing of it waits for a voucher (``ReceiptIssuer.parting``)."""

    escrow: bytes
    lane: int
    lease: LeaseId
    settled: bool
    skipped: int


@dataclass(frozen=True, slots=True)
class CloseSigned(Event):
    """We agreed to close this lane at ``total_nanoton``; the order is void after ``valid_until_s``."""

    escrow: bytes
    lane: int
    total_nanoton: int
    valid_until_s: int


TILL_FACTS = FactBook(LaneEntered, VoucherKept, LaneLeft, CloseSigned)


@dataclass(slots=True)
class SoldLane:
    """One lane that pays us."""

    escrow: bytes
    lane: int
    requester: PeerKey
    #: Where the open lease began; ``Tab.opening`` of its receipts, also when it is resumed.
    opening: Head = field(default_factory=Head)
    head: Head = field(default_factory=Head)
    #: The newest voucher, and its signature: what a claim shows.
    voucher: Voucher | None = None
    signature: bytes = b""
    #: The newest lease; it may be resumed until there is a newer one.
    lease: LeaseId | None = None
    reserved_nanoton: int = 0
    lease_over: bool = False
    #: Nothing of the newest lease waits for a voucher, and it is over.
    settled: bool = True
    #: Chain time until which a close that we signed may still be executed.
    closing_until_s: int = 0


@dataclass(slots=True)
class LaneTill:
    """The provider's lanes, over all escrows."""

    lanes: dict[tuple[bytes, int], SoldLane] = field(default_factory=dict)

    def record(self, fact: LaneEntered | VoucherKept | LaneLeft | CloseSigned) -> None:
        """Take a fact of record; append it to the journal before its consequences leave."""
        match fact:
            case LaneEntered(escrow, lane, requester, lease, ceiling):
                found = self.lanes.setdefault((escrow, lane), SoldLane(escrow, lane, requester))
                if found.lease != lease:                # else it is opened again, and stands where it stood
                    found.head = found.opening = fact.opening
                found.lease, found.reserved_nanoton = lease, ceiling
                found.lease_over = found.settled = False
            case VoucherKept(escrow, lane, packed, signature):
                found = self.lane(escrow, lane)
                voucher = Voucher.unpack(packed)
                if found.voucher is None or voucher.seq > found.voucher.seq:
                    found.voucher, found.signature = voucher, signature
                    found.head = Head(voucher.seq, ReceiptHash(voucher.head), voucher.total_nanoton)
            case LaneLeft(escrow, lane, lease, settled, skipped):
                found = self.lane(escrow, lane)
                if found.lease == lease:
                    found.lease_over, found.settled = True, settled
                    found.head = replace(found.head, skipped=skipped)
                    if settled:
                        found.reserved_nanoton = 0
            case CloseSigned(escrow, lane, _, valid_until_s):
                found = self.lane(escrow, lane)
                found.closing_until_s = max(found.closing_until_s, valid_until_s)

    def enter(
        self, terms: LeaseTerms, voucher: bytes, signature: bytes, *, now_s: int, known: bool = False
    ) -> tuple[LaneEntered | VoucherKept, ...]:
        """The facts to record before a lease on its lane is countersigned, or opened again (LAN-8, LAN-11).

        The first is the ``LaneEntered`` that says where its receipts begin.

        Args:
            voucher, signature: Of ``LeaseOpen``; empty if the requester has none.
            now_s: Chain time.
            known: We countersigned this very lease before.

        Raises:
            LaneBusy: another lease is open on the lane.
            Replayed: an old lease, and the lane has had another since.
            LaneClosing: we signed a close that may still be executed.
            BadSignature, WrongField: the voucher is not the lane's newest (``wrong_head``),
                or of another lane (``wrong_network_id``, ``wrong_escrow``, ``wrong_lane``),
                or the lane is another requester's (``wrong_requester``).
        """
        shown = shown_voucher(terms, voucher, signature)
        found = self.lanes.get((terms.escrow, terms.lane))
        if found is None:
            found = SoldLane(terms.escrow, terms.lane, terms.requester)
        if found.requester != terms.requester:
            raise wrong("requester", f"lane {terms.lane} belongs to another requester")
        if now_s < found.closing_until_s:
            raise LaneClosing(f"a close of lane {terms.lane} is signed and may still be executed")
        if found.lease == terms.lease:
            return (_entered(terms, found.opening),)
        if known:
            raise Replayed(f"this lease is over, and lane {terms.lane} has had another since")
        if found.lease is not None and not found.lease_over:
            raise LaneBusy(f"lane {terms.lane} has an open lease")
        if shown is not None and shown.seq > found.head.seq:
            # Lost on the way, or with our disk; it is money, and the last word on the lease before.
            used = found.head.seq + found.head.skipped
            head = Head(shown.seq, ReceiptHash(shown.head), shown.total_nanoton, max(0, used - shown.seq))
            return _entered(terms, head), VoucherKept(terms.escrow, terms.lane, voucher, signature)
        if shown != found.voucher:
            stands = f"receipt {found.head.seq}, total {found.head.total_nanoton}"
            raise wrong("head", f"lane {terms.lane} stands at {stands}; the lease begins at another voucher")
        return (_entered(terms, found.head),)

    def unsettled(self, escrow: bytes, lane: int) -> LeaseId | None:
        """The lease that ended with unpaid runs on this lane; a newer voucher is for its issuer first (LAN-11)."""
        found = self.lanes.get((escrow, lane))
        return found.lease if found is not None and found.lease_over and not found.settled else None

    def open_leases(self) -> tuple[SoldLane, ...]:
        """Lanes whose lease is not over; after a restart each is to be left, or resumed."""
        return tuple(lane for lane in self.lanes.values() if lane.lease is not None and not lane.lease_over)

    def lane(self, escrow: bytes, lane: int) -> SoldLane:
        """What is known of a lane that was entered."""
        if (escrow, lane) not in self.lanes:
            raise UsageError(f"lane {lane} of escrow {escrow.hex()[:16]} was never entered")
        return self.lanes[escrow, lane]


def check_lane(
    state: LaneState | None, terms: LeaseTerms, head: Head, *, payout: bytes, provider_key: bytes, until_s: int,
    least_cap_nanoton: int,
) -> None:
    """Return if the proven lane covers the lease (LAN-9).

    Args:
        state: From ``EscrowState.lanes``; None if the lane is not there.
        head: Where the lane's receipts stood when the lease began.
        payout, provider_key: Our own.
        until_s: End of the lease in chain time, and the claim margin.

    Raises:
        WrongField: ``wrong_lane``, ``wrong_payout``, ``wrong_provider_key``, ``wrong_cap`` or ``wrong_expiry``.
    """
    if state is None:
        raise wrong("lane", f"the escrow has no lane {terms.lane}")
    if state.payout != payout:
        raise wrong("payout", f"lane {terms.lane} pays {state.payout.hex()[:16]}, not us")
    if state.provider_key != provider_key:
        raise wrong("provider_key", f"lane {terms.lane} names another provider key")
    if state.cap_nanoton < least_cap_nanoton:
        raise wrong("cap", f"lane {terms.lane} holds {state.cap_nanoton} nanoton, the least is {least_cap_nanoton}")
    free = state.cap_nanoton - max(head.total_nanoton, state.paid_nanoton)
    if free < terms.ceiling_nanoton:
        raise wrong("cap", f"{free} nanoton are free on lane {terms.lane}, the ceiling is {terms.ceiling_nanoton}")
    if state.expires_s < until_s:
        raise wrong("expiry", f"lane {terms.lane} expires at {state.expires_s}, needed is {until_s}")


def check_network(terms: LeaseTerms, *, network_tag: int, close_delay_s: int) -> None:
    """Return if the lease's escrow is of this network; else ``wrong_network_id`` or ``wrong_escrow``."""
    if terms.network_tag != network_tag:
        raise wrong("network_id", f"the escrow is of network {terms.network_tag:08x}, not {network_tag:08x}")
    if terms.close_delay_s != close_delay_s:
        raise wrong("escrow", f"the escrow closes after {terms.close_delay_s} s, here it is {close_delay_s} s")


def _entered(terms: LeaseTerms, head: Head) -> LaneEntered:
    ids = (terms.escrow, terms.lane, terms.requester, terms.lease, terms.ceiling_nanoton)
    return LaneEntered(*ids, head.seq, head.digest, head.total_nanoton, head.skipped)
