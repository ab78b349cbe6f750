"""What a lease stands on, and the words of a lease: the same in a peer and in a simulated one.

Purity: pure. Spec: docs/spec/leases.md, rule LEA-1; lanes.md.
"""

from __future__ import annotations

from cocoon.core.ids import ModelId, NetworkId, PeerKey
from cocoon.core.limits import LEASE_DURATION_S, RUNS_PER_LEASE
from cocoon.core.values import Value, replace
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.tab import Head
from cocoon.scheduler.selection import Quote, affordable_runs
from cocoon.wire.judged import NO_ESCROW
from cocoon.wire.messages import Lease


class Footing(Value):
    """What a paid lease stands on; it may cost no more than what is free on the lane."""

    lane: int
    head: Head
    free_nanoton: int


def free_lease(
    quote: Quote, *, network: NetworkId, nonce: bytes, requester: PeerKey, model: ModelId, private: bool, kind: str,
    ceiling_nanoton: int,
) -> Lease:
    """The lease under this quote, on no lane."""
    return Lease(
        network=network, nonce=nonce, requester=requester, provider=quote.provider, bid=quote.digest, model=model,
        private=private, kind=kind, setup_nanoton=quote.asked.setup_nanoton, prices=quote.asked.prices,
        ceiling_nanoton=ceiling_nanoton, max_runs=RUNS_PER_LEASE, duration_s=LEASE_DURATION_S, escrow=NO_ESCROW,
        lane=0, run_ms=quote.offer.max_run_ms, tranche_nanoton=0, owner=bytes(32), lane_key=bytes(32), index=0,
        close_delay_s=0, network_tag=0,
    )


def on_lane(
    lease: Lease, quote: Quote, footing: Footing, birth: EscrowBirth, escrow: bytes, tranche_nanoton: int
) -> Lease:
    """The same on a lane of the escrow at this address: it costs what is free there, and takes what runs that pays."""
    return replace(
        lease, ceiling_nanoton=footing.free_nanoton, max_runs=affordable_runs(quote.terms, footing.free_nanoton),
        escrow=escrow, lane=footing.lane, tranche_nanoton=tranche_nanoton, owner=birth.owner,
        lane_key=birth.lane_key, index=birth.index, close_delay_s=birth.close_delay_s, network_tag=birth.network_tag,
    )
