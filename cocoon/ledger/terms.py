"""What a signed lease means in money: one price, one lane, one key that signs vouchers.

Purity: pure. Spec: docs/spec/money.md, rules MON-4 to MON-8.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.errors import UsageError, wrong
from cocoon.core.ids import LeaseId, NetworkId, PeerKey
from cocoon.core.units import bill_nanoton
from cocoon.wire.judged import NO_ESCROW
from cocoon.wire.messages import UNIT_RUN, Lease
from cocoon.wire.signing import Signed


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """The part of a lease that statements, receipts and vouchers depend on."""

    network: NetworkId
    lease: LeaseId
    requester: PeerKey
    provider: PeerKey
    #: Signs vouchers: the requester's peer key on price-0 leases, the lane key on others.
    voucher_key: PeerKey
    escrow: bytes
    lane: int
    unit_kind: int
    #: Once a lease, with its first unit.
    setup_nanoton: int
    #: Per 1,000 units of ``unit_kind``.
    price_nanoton: int
    ceiling_nanoton: int
    max_runs: int

    def bill_nanoton(self, units: int) -> int:
        """What the first ``units`` units of the lease cost together (MON-4)."""
        return self.setup_nanoton + bill_nanoton(units, self.price_nanoton) if units else 0


def terms_of(lease: Signed[Lease], *, lane_key: PeerKey | None = None) -> LeaseTerms:
    """The terms of a lease whose signature was checked.

    Args:
        lane_key: Signs the vouchers of the lane; None on price-0 leases, where
            the requester's peer key stands in for it.

    Raises:
        WrongField: a price without a lane (``wrong_price``), a lane without an
            escrow or the reverse (``wrong_escrow``), a lane whose key is not
            known here (``wrong_lane``), more than one kind of unit (``wrong_price``).
    """
    body = lease.message
    prices = body.prices or ((UNIT_RUN, 0),)
    if len(prices) > 1:
        raise wrong("price", f"the lease prices {len(prices)} kinds of unit; one is billed")
    if (body.lane == 0) != (body.escrow == NO_ESCROW):
        raise wrong("escrow", f"lane {body.lane} and escrow {body.escrow.hex()[:16]} do not go together")
    unit_kind, price_nanoton = prices[0]
    if body.lane == 0 and (price_nanoton or body.setup_nanoton):
        raise wrong("price", f"set-up {body.setup_nanoton} and price {price_nanoton} nanoton without a lane")
    if body.lane == 0 and lane_key is not None:
        raise UsageError("a lease without a lane has no lane key")
    if body.lane != 0 and lane_key is None:
        raise wrong("lane", f"lane {body.lane} cannot be judged without its key")
    return LeaseTerms(
        network=NetworkId(body.network),
        lease=LeaseId(lease.digest),
        requester=PeerKey(body.requester),
        provider=PeerKey(body.provider),
        voucher_key=lane_key or PeerKey(body.requester),
        escrow=body.escrow,
        lane=body.lane,
        unit_kind=unit_kind,
        setup_nanoton=body.setup_nanoton,
        price_nanoton=price_nanoton,
        ceiling_nanoton=body.ceiling_nanoton,
        max_runs=body.max_runs,
    )
