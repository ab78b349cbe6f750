"""The till: a provider's lanes over all escrows that pay it, and what a lease on one must show.

Whoever names a lane must hold its lane key: a lease shows the lane's newest
voucher or, where there is none yet, a voucher for nothing that names the lease.
Else anybody could take leases on a stranger's escrow, and keep its owner out.

Invariants
    One lease is open on a lane at a time, so its receipts are one chain.
    The newest voucher of a lane never promises less than one before it.
    No lease begins on a lane whose close was signed and may still be executed.

Purity: pure; chain time and chain state come as arguments.
Spec: docs/spec/lanes.md, rules LAN-2, LAN-3 and LAN-8 to LAN-14.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cocoon.core.errors import LaneBusy, LaneClosing, Replayed, UsageError, wrong
from cocoon.core.ids import LeaseId, PeerKey, ReceiptHash
from cocoon.core.machine import Event
from cocoon.core.values import replace
from cocoon.ledger.escrow import LaneState
from cocoon.ledger.facts import FactBook
from cocoon.ledger.tab import Head, shown_voucher
from cocoon.ledger.terms import LeaseTerms
from cocoon.wire.judged import Voucher


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


class VoucherKept(Event):
    """A voucher of this lane was accepted: what a claim will show. ``voucher`` is the packed cell."""

    escrow: bytes
    lane: int
    voucher: bytes
    signature: bytes


class LaneLeft(Event):
    """The lease is over; ``settled`` says that nothing of it waits for a voucher (``ReceiptIssuer.parting``)."""

    escrow: bytes
    lane: int
    lease: LeaseId
    settled: bool
    skipped: int


class CloseSigned(Event):
    """We agreed to close this lane at ``total_nanoton``; the order is void after ``valid_until_s``."""

    escrow: bytes
    lane: int
    total_nanoton: int
    valid_until_s: int


class LaneGone(Event):
    """The lane was seen on chain and is there no more; nothing can be claimed from it."""

    escrow: bytes
    lane: int


TillFact = LaneEntered | VoucherKept | LaneLeft | CloseSigned | LaneGone
TILL_FACTS = FactBook(LaneEntered, VoucherKept, LaneLeft, CloseSigned, LaneGone)


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
    #: Chain time until which a close that we signed may still be executed, and the highest total of one.
    closing_until_s: int = 0
    closing_nanoton: int | None = None
    gone: bool = False


@dataclass(slots=True)
class LaneTill:
    """The provider's lanes, over all escrows."""

    lanes: dict[tuple[bytes, int], SoldLane] = field(default_factory=dict)

    def record(self, fact: TillFact) -> None:
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
            case CloseSigned(escrow, lane, total, valid_until_s):
                found = self.lane(escrow, lane)
                found.closing_until_s = max(found.closing_until_s, valid_until_s)
                found.closing_nanoton = max(found.closing_nanoton or 0, total)
            case LaneGone(escrow, lane):
                self.lane(escrow, lane).gone = True

    def enter(
        self, terms: LeaseTerms, voucher: bytes, signature: bytes, *, now_s: int, known: bool = False
    ) -> tuple[LaneEntered | VoucherKept, ...]:
        """The facts to record before a lease on its lane is countersigned, or opened again (LAN-8, LAN-11).

        The first is the ``LaneEntered`` that says where its receipts begin.

        Args:
            voucher, signature: Of ``LeaseOpen``: the newest of the lane or, where there is none, ``proof_of_lane``.
            now_s: Chain time.
            known: We countersigned this very lease before.

        Raises:
            LaneBusy: another lease is open on the lane.
            Replayed: an old lease, and the lane has had another since.
            LaneClosing: we signed a close that may still be executed, or the lane is gone.
            BadSignature, WrongField: the voucher is not the lane's newest (``wrong_head``),
                or of another lane (``wrong_network_id``, ``wrong_escrow``, ``wrong_lane``),
                or promises less than one before it (``wrong_total``), or more than numbers hold (``wrong_seq``),
                or the lane key did not sign for this lease (``wrong_lane_key``),
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
        if found.gone:
            raise LaneClosing(f"lane {terms.lane} is gone from the escrow")
        if found.lease == terms.lease:
            return (_entered(terms, found.opening),)
        if known:
            raise Replayed(f"this lease is over, and lane {terms.lane} has had another since")
        if found.lease is not None and not found.lease_over:
            raise LaneBusy(f"lane {terms.lane} has an open lease")
        if shown is not None and shown.seq > found.head.seq:
            # Lost on the way, or with our disk; it is money, and the last word on the lease before.
            head = _newer_head(found.head, shown, terms)
            return _entered(terms, head), VoucherKept(terms.escrow, terms.lane, voucher, signature)
        if found.voucher is None:
            _check_proof(shown, terms)
        elif shown != found.voucher:
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


def proof_of_lane(network_tag: int, escrow: bytes, lane: int, lease: LeaseId) -> Voucher:
    """What a lease shows on a lane without a voucher, signed by the lane key: it promises nothing and names the lease.

    No contract pays for it, and nobody can use it for another lease.
    """
    return Voucher(network_tag, escrow, lane, 0, 0, lease)


def _check_proof(shown: Voucher | None, terms: LeaseTerms) -> None:
    if shown != proof_of_lane(terms.network_tag, terms.escrow, terms.lane, terms.lease):
        raise wrong("lane_key", f"the lane key of lane {terms.lane} did not sign for this lease")


def _newer_head(known: Head, shown: Voucher, terms: LeaseTerms) -> Head:
    """Where a lease begins that shows a newer voucher than we know."""
    if shown.total_nanoton < known.total_nanoton:
        raise wrong("total", f"voucher {shown.seq} promises {shown.total_nanoton}, one before it {known.total_nanoton}")
    if shown.total_nanoton + terms.ceiling_nanoton >= 1 << 64:
        raise wrong("total", f"voucher {shown.seq} promises {shown.total_nanoton}; no receipt could follow it")
    head = Head(shown.seq, ReceiptHash(shown.head), shown.total_nanoton, max(0, known.seq + known.skipped - shown.seq))
    if head.seq + head.skipped + terms.max_runs >= 1 << 32:
        raise wrong("seq", f"voucher {shown.seq} is too near the last number for {terms.max_runs} runs")
    return head


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
