"""Admission: does this provider sign this lease?

Every field of a lease is compared with what the provider itself bid and
offered. A lease that contradicts them is a fault of its sender
(``wrong_<field>``); one that is lawful but does not fit now is a refusal.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-8 to SCH-10.
"""

from __future__ import annotations

from cocoon.core.errors import BidExpired, CeilingExceeded, KindRefused, LimitExceeded, ProviderBusy, wrong
from cocoon.core.ids import NetworkId, PeerKey, peer_id
from cocoon.core.limits import LEASE_DURATION_S, RUNS_PER_LEASE
from cocoon.core.units import bill_nanoton
from cocoon.core.values import Value
from cocoon.scheduler.bidding import StandingBid
from cocoon.wire.market import NO_MODEL
from cocoon.wire.messages import Lease, Offer

#: The escrow field of a lease on a network without a ledger.
NO_ESCROW = bytes(32)


class House(Value):
    """The provider as it stands when a lease is proposed."""

    network: NetworkId
    provider: PeerKey
    offer: Offer
    leases_open: int
    leases_of_requester: int
    leases_max: int
    leases_max_of_requester: int


def admit(lease: Lease, signer: PeerKey, bid: StandingBid | None, house: House) -> None:
    """Return if the lease may be countersigned.

    Args:
        lease: Body of a message whose signature was checked.
        signer: Who signed it.
        bid: What ``lease.bid`` names, if this provider still stands by it and made it to the signer.
        house: The provider's own view.

    Raises:
        WrongField: the lease contradicts the bid or the offer, or names other parties.
        BidExpired, CeilingExceeded, KindRefused, LimitExceeded, ProviderBusy: lawful, but refused.
    """
    _check_parties(lease, signer, house)
    if bid is None:
        raise BidExpired("this provider does not stand by the bid that the lease names")
    if lease.model != bid.model and bid.model != NO_MODEL:
        raise wrong("model", "the bid was for another model")
    if lease.private != (bid.model == NO_MODEL):
        raise wrong("model", "the bid was for a public model and the lease is for a private one, or the reverse")
    _check_terms(lease, bid, house.offer)
    if house.leases_of_requester >= house.leases_max_of_requester or house.leases_open >= house.leases_max:
        mine = f"{house.leases_of_requester} of {house.leases_max_of_requester} yours"
        raise ProviderBusy(f"{house.leases_open} of {house.leases_max} leases are open, {mine}")


def _check_parties(lease: Lease, signer: PeerKey, house: House) -> None:
    if lease.network != house.network:
        raise wrong("network_id", "the lease is for another network")
    if lease.provider != house.provider:
        raise wrong("provider", f"the lease is for {peer_id(lease.provider)}")
    if lease.requester != signer:
        raise wrong("requester", f"the lease names {peer_id(lease.requester)}, its signer is {peer_id(signer)}")


def _check_terms(lease: Lease, bid: StandingBid, offer: Offer) -> None:
    if lease.kind != bid.kind:
        raise KindRefused(f"the bid was for {bid.kind!r}, the lease is for {lease.kind!r}")
    if lease.setup_nanoton != bid.setup_nanoton or lease.prices != bid.prices:
        raise wrong("price", "the prices of the lease are not those of the bid")
    _check_lane(lease)
    if not 1 <= lease.duration_s <= LEASE_DURATION_S:
        raise wrong("duration", f"{lease.duration_s} s is outside 1 to {LEASE_DURATION_S} s")
    if not 1 <= lease.max_runs <= RUNS_PER_LEASE:
        raise wrong("units", f"{lease.max_runs} runs is outside 1 to {RUNS_PER_LEASE}")
    if lease.run_ms > offer.max_run_ms:
        raise LimitExceeded(f"a run may take {offer.max_run_ms} ms here, not {lease.run_ms} ms")
    # The ceiling is a total, and a lease is open-ended: one unit must fit, later ones stop at it.
    least = bid.setup_nanoton + sum(bill_nanoton(1, price_nanoton) for _, price_nanoton in bid.prices)
    if least > lease.ceiling_nanoton:
        raise CeilingExceeded(f"one unit costs {least} nanoton, the ceiling is {lease.ceiling_nanoton}")


def _check_lane(lease: Lease) -> None:
    """A lease has a lane exactly if it costs something; whether that lane is good is not seen here."""
    is_free = not lease.setup_nanoton and not any(price for _, price in lease.prices)
    if is_free and lease.escrow != NO_ESCROW:
        raise wrong("escrow", "a lease that costs nothing has no escrow")
    if is_free and lease.lane != 0:
        raise wrong("lane", "a lease that costs nothing has no lane")
    if not is_free and lease.lane == 0:
        raise wrong("lane", "a lease with a price needs a lane to be paid from")
