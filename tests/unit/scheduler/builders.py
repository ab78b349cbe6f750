"""Offers, quotes and leases for tests, lawful unless a field is overridden."""

from __future__ import annotations

from typing import Any

from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.values import replace
from cocoon.scheduler.admission import NO_ESCROW
from cocoon.scheduler.selection import Quote
from cocoon.wire.market import NO_MODEL, Bid, Call
from cocoon.wire.messages import Lease, Offer, Profile

NETWORK = NetworkId(bytes([7]) * 32)
PROVIDER = PeerKey(bytes([1]) * 32)
REQUESTER = PeerKey(bytes([2]) * 32)
PROFILE = Profile(
    engine="onnxruntime 1", provider="CPUExecutionProvider", device="test", threads=1,
    optimisation="all", memory_bytes=1 << 30, platform="linux",
)


def offer(**changes: Any) -> Offer:
    """A free offer of infer runs."""
    lawful = Offer(
        network=NETWORK, boot_id=bytes(8), seq=1, ttl_s=180, keys_digest=bytes(32), profile_digest=bytes(32),
        kinds=("infer",), setup_nanoton=0, prices=((1, 0),), max_model_bytes=1_000, max_memory_bytes=1 << 30,
        max_run_ms=30_000, max_payload_bytes=1 << 20, queue=0,
        free_memory_bytes=1 << 30, warm=bytes(32),
    )
    return replace(lawful, **changes)


def quote(provider: PeerKey = PROVIDER, **changes: Any) -> Quote:
    """A verified quote of ``provider``."""
    return Quote(provider, bytes([9]) * 32, offer(**changes), bytes(1_216), bytes(32), bytes(32), PROFILE)


def bid(**changes: Any) -> Bid:
    """A bid of what the offer asks."""
    lawful = Bid(
        network=NETWORK, call=bytes([5]) * 32, offer=bytes([9]) * 32, setup_nanoton=0, prices=((1, 0),), start_ms=0,
        run_us=0, warm=False,
    )
    return replace(lawful, **changes)


def tender(provider: PeerKey = PROVIDER, setup_nanoton: int = 0, run_nanoton: int = 0, **changes: Any) -> Quote:
    """A verified bid of ``provider`` at its own asks; ``run_nanoton`` is the price of 1,000 runs."""
    prices = ((1, run_nanoton),)
    made = bid(setup_nanoton=setup_nanoton, prices=prices, **changes)
    offered = quote(provider, setup_nanoton=setup_nanoton, prices=prices)
    return replace(offered, bid=made, binds_until_ns=1 << 62)


def call(**changes: Any) -> Call:
    """A call for ten runs of a private model."""
    lawful = Call(
        network=NETWORK, nonce=bytes(16), kind="infer", model=NO_MODEL, model_bytes=1_000, units=10,
        deadline_ms=60_000, tier=0,
    )
    return replace(lawful, **changes)


def lease(**changes: Any) -> Lease:
    """A lease that the lawful offer admits."""
    lawful = Lease(
        network=NETWORK, nonce=bytes(16), requester=REQUESTER, provider=PROVIDER, bid=bytes([9]) * 32,
        model=bytes([3]) * 32, private=True, kind="infer", setup_nanoton=0, prices=((1, 0),), ceiling_nanoton=0,
        max_runs=100, duration_s=600, escrow=NO_ESCROW, lane=0, run_ms=30_000,
        tranche_nanoton=0, owner=bytes(32), lane_key=bytes(32), index=0, close_delay_s=0, network_tag=0,
    )
    return replace(lawful, **changes)
