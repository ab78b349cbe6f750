"""What a provider sells with: its prices and limits.

Purity: pure.
"""

from __future__ import annotations

from cocoon.core.limits import (
    LEASE_IDLE_NS,
    LEASES_PER_REQUESTER,
    LEASES_SOLD,
    MEMORY_BYTES,
    MODEL_BYTES,
    PAYLOAD_BYTES,
    RUN_NS,
)
from cocoon.core.units import MILLISECOND_NS, UnitKind
from cocoon.core.values import Value


class Terms(Value):
    """The seller's side of every lease. Prices are per 1,000 of a unit, in nanoton."""

    setup_nanoton: int = 0
    prices: tuple[tuple[int, int], ...] = ((int(UnitKind.RUN), 0),)
    #: Of tasks, in ascending order; there is a price of each one's unit.
    kinds: tuple[str, ...] = ("infer",)
    max_model_bytes: int = MODEL_BYTES
    max_memory_bytes: int = MEMORY_BYTES
    max_run_ms: int = RUN_NS // MILLISECOND_NS
    max_payload_bytes: int = PAYLOAD_BYTES
    leases_max: int = LEASES_SOLD
    leases_max_of_requester: int = LEASES_PER_REQUESTER
    lease_idle_ns: int = LEASE_IDLE_NS
    #: Where lanes pay (hash part of an address) and the key that they name; zeros without a ledger.
    payout: bytes = bytes(32)
    provider_key: bytes = bytes(32)
