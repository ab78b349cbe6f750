"""Admission: does this provider sign this lease?

Every field of a lease is compared with what the provider itself offered. A
lease that contradicts the offer is a fault of its sender (``wrong_<field>``);
one that is lawful but does not fit now is a refusal.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-8 to SCH-10.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.errors import CeilingExceeded, KindRefused, LimitExceeded, ProviderBusy, wrong
from cocoon.core.ids import NetworkId, PeerKey, peer_id
from cocoon.core.limits import LEASE_DURATION_S, RUNS_PER_LEASE
from cocoon.scheduler.selection import expected_cost_nanoton
from cocoon.wire.messages import Lease, Offer

#: The escrow field of a lease on a network without a ledger.
NO_ESCROW = bytes(32)


@dataclass(frozen=True, slots=True)
class House:
    """The provider as it stands when a lease is proposed."""

    network: NetworkId
    provider: PeerKey
    offer: Offer
    leases_open: int
    leases_of_requester: int
    leases_max: int
    leases_max_of_requester: int


def admit(lease: Lease, signer: PeerKey, offer_honoured: bool, house: House) -> None:
    """Return if the lease may be countersigned.

    Args:
        lease: Body of a message whose signature was checked.
        signer: Who signed it.
        offer_honoured: Whether ``lease.offer`` names an offer still stood by.
        house: The provider's own view.

    Raises:
        WrongField: the lease contradicts the offer or names other parties.
        CeilingExceeded, KindRefused, LimitExceeded, ProviderBusy: lawful, but refused.
    """
    _check_parties(lease, signer, house)
    if not offer_honoured:
        raise wrong("offer", "the lease names an offer that this provider does not stand by; ask for a new one")
    _check_terms(lease, house.offer)
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


def _check_terms(lease: Lease, offer: Offer) -> None:
    if lease.kind not in offer.kinds:
        raise KindRefused(f"{lease.kind!r} is not sold here")
    if lease.setup_nanoton != offer.setup_nanoton or lease.prices != offer.prices:
        raise wrong("price", "the prices of the lease are not the offered ones")
    _check_lane(lease)
    if not 1 <= lease.duration_s <= LEASE_DURATION_S:
        raise wrong("duration", f"{lease.duration_s} s is outside 1 to {LEASE_DURATION_S} s")
    if not 1 <= lease.max_runs <= RUNS_PER_LEASE:
        raise wrong("units", f"{lease.max_runs} runs is outside 1 to {RUNS_PER_LEASE}")
    if lease.run_ms > offer.max_run_ms:
        raise LimitExceeded(f"a run may take {offer.max_run_ms} ms here, not {lease.run_ms} ms")
    # The ceiling is a total, and a lease is open-ended: one run must fit, later ones stop at it.
    if expected_cost_nanoton(offer, 1) > lease.ceiling_nanoton:
        least = expected_cost_nanoton(offer, 1)
        raise CeilingExceeded(f"one run costs {least} nanoton, the ceiling is {lease.ceiling_nanoton}")


def _check_lane(lease: Lease) -> None:
    """A lease has a lane exactly if it costs something; whether that lane is good is not seen here."""
    is_free = not lease.setup_nanoton and not any(price for _, price in lease.prices)
    if is_free and lease.escrow != NO_ESCROW:
        raise wrong("escrow", "a lease that costs nothing has no escrow")
    if is_free and lease.lane != 0:
        raise wrong("lane", "a lease that costs nothing has no lane")
    if not is_free and lease.lane == 0:
        raise wrong("lane", "a lease with a price needs a lane to be paid from")
