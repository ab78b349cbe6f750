"""What a signed lease means in money: one price, one lane, one key that signs vouchers.

Purity: pure. Spec: docs/spec/money.md, rules MON-4 to MON-12.
"""

from __future__ import annotations

from cocoon.core.errors import wrong
from cocoon.core.ids import LeaseId, NetworkId, PeerKey, network_tag
from cocoon.core.units import bill_nanoton, unit_of
from cocoon.core.values import Value
from cocoon.ledger.escrow import EscrowBirth
from cocoon.wire.judged import NO_ESCROW
from cocoon.wire.messages import Lease
from cocoon.wire.signing import Signed

#: Keys and addresses of leases without a lane.
_NOBODY = bytes(32)


class LeaseTerms(Value):
    """The part of a lease that statements, receipts and vouchers depend on."""

    network: NetworkId
    #: In vouchers: of the chain's genesis on paid leases, of the network id on others.
    network_tag: int
    lease: LeaseId
    requester: PeerKey
    provider: PeerKey
    #: Signs vouchers: the requester's peer key on price-0 leases, the lane key on others.
    voucher_key: PeerKey
    escrow: bytes
    lane: int
    close_delay_s: int
    unit_kind: int
    #: Once a lease, with its first unit.
    setup_nanoton: int
    #: Per 1,000 units of ``unit_kind``.
    price_nanoton: int
    #: Delivered and without a voucher at most; 0 on price-0 leases.
    tranche_nanoton: int
    ceiling_nanoton: int
    max_runs: int

    def bill_nanoton(self, units: int) -> int:
        """What the first ``units`` units of the lease cost together (MON-4)."""
        return self.setup_nanoton + bill_nanoton(units, self.price_nanoton) if units else 0


def terms_of(lease: Signed[Lease]) -> LeaseTerms:
    """The terms of a lease whose signature was checked.

    A paid lease brings the birth of its escrow with it: if the escrow's address
    follows from it, the lane key is the one that the contract will ask.

    Raises:
        WrongField: a price without a lane (``wrong_price``), a lane without an
            escrow or the reverse, or an escrow that was not born so (``wrong_escrow``),
            a lane without a tranche or the reverse (``wrong_tranche``), other
            units than its kind is billed by (``wrong_price``).
    """
    body = lease.message
    unit = unit_of(body.kind)
    prices = body.prices or ((int(unit), 0),)
    if (priced := [kind for kind, _ in prices]) != [unit]:
        raise wrong("price", f"the lease prices units of the kinds {priced}; {body.kind!r} is billed by kind {unit}")
    if (body.lane == 0) != (body.escrow == NO_ESCROW):
        raise wrong("escrow", f"lane {body.lane} and escrow {body.escrow.hex()[:16]} do not go together")
    if (body.lane == 0) != (body.tranche_nanoton == 0):
        raise wrong("tranche", f"lane {body.lane} and a tranche of {body.tranche_nanoton} nanoton do not go together")
    unit_kind, price_nanoton = prices[0]
    if body.lane == 0:
        _check_free(body, price_nanoton)
    else:
        _check_birth(body)
    return LeaseTerms(
        network=NetworkId(body.network),
        network_tag=body.network_tag if body.lane else network_tag(NetworkId(body.network)),
        lease=LeaseId(lease.digest),
        requester=PeerKey(body.requester),
        provider=PeerKey(body.provider),
        voucher_key=PeerKey(body.lane_key if body.lane else body.requester),
        escrow=body.escrow,
        lane=body.lane,
        close_delay_s=body.close_delay_s,
        unit_kind=unit_kind,
        setup_nanoton=body.setup_nanoton,
        price_nanoton=price_nanoton,
        tranche_nanoton=body.tranche_nanoton,
        ceiling_nanoton=body.ceiling_nanoton,
        max_runs=body.max_runs,
    )


def _check_free(body: Lease, price_nanoton: int) -> None:
    if price_nanoton or body.setup_nanoton:
        raise wrong("price", f"set-up {body.setup_nanoton} and price {price_nanoton} nanoton without a lane")
    if body.owner != _NOBODY or body.lane_key != _NOBODY or body.index or body.close_delay_s:
        raise wrong("escrow", "the birth of an escrow without a lane in it")
    if body.network_tag:
        raise wrong("network_id", f"chain {body.network_tag:08x} on a lease without a lane")


def _check_birth(body: Lease) -> None:
    birth = EscrowBirth(body.owner, body.lane_key, body.network_tag, body.index, body.close_delay_s)
    if birth.address() != body.escrow:
        raise wrong("escrow", f"{body.escrow.hex()[:16]} is not the address of the escrow that the lease describes")
