"""Every field of every signed message and judged cell: what a lie in it costs the liar.

A lie is one wrong field under a good signature of the right peer. ``FREE`` names
the fields in which any value is lawful, and why. ``test_matrix`` is red for a
field that is in neither table.

Purity: pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cocoon.core.limits import LEASE_DURATION_S, OFFER_TTL_S, RUNS_PER_LEASE
from cocoon.wire import judged, market, messages
from cocoon.wire.schema import kinds


@dataclass(frozen=True)
class Lie:
    """``message.field`` becomes ``twist(honest value)``; the honest side answers ``code``."""

    message: str
    field: str
    twist: Callable[[Any], Any]
    code: str
    #: The outer digest is computed over the lie, so that the inner check must find it.
    digest_follows: bool = False

    def __str__(self) -> str:
        return f"{self.message}.{self.field}-{self.code}"


def to(value: Any) -> Callable[[Any], Any]:
    """Any honest value becomes ``value``."""
    return lambda _: value


def flipped(value: bytes) -> bytes:
    """The lowest bit of the last byte flipped."""
    return value[:-1] + bytes([value[-1] ^ 1])


def more(value: int) -> int:
    """One more."""
    return value + 1


LIES = (
    Lie("offer", "network", flipped, "wrong_network_id"),
    Lie("offer", "boot_id", flipped, "wrong_boot"),
    Lie("offer", "ttl_s", to(0), "wrong_ttl"),
    Lie("offer", "ttl_s", to(OFFER_TTL_S + 1), "wrong_ttl"),
    Lie("offer", "keys_digest", flipped, "wrong_keys"),
    Lie("offer", "profile_digest", flipped, "wrong_profile"),
    Lie("offer", "kinds", to(("other",)), "wrong_kind"),
    Lie("offer", "setup_nanoton", more, "wrong_price"),
    Lie("offer", "prices", to(((1, 1),)), "wrong_price"),
    Lie("offer", "max_model_bytes", to(0), "no_provider"),

    Lie("key_bundle", "network", flipped, "wrong_network_id", digest_follows=True),
    Lie("key_bundle", "boot_id", flipped, "wrong_boot", digest_follows=True),
    Lie("key_bundle", "suite", to(2), "wrong_keys", digest_follows=True),
    Lie("key_bundle", "public", flipped, "wrong_keys"),
    Lie("key_bundle", "payout", flipped, "wrong_keys"),
    Lie("key_bundle", "provider_key", flipped, "wrong_keys"),

    Lie("bid", "network", flipped, "wrong_network_id"),
    Lie("bid", "call", flipped, "wrong_call"),
    Lie("bid", "offer", flipped, "wrong_offer"),
    Lie("bid", "setup_nanoton", more, "wrong_price"),
    Lie("bid", "prices", to(((1, 1),)), "wrong_price"),
    Lie("bid", "prices", to(()), "wrong_price"),
    Lie("bid", "prices", to(((1, 0), (5, 0))), "wrong_price"),

    Lie("lease", "network", flipped, "wrong_network_id"),
    Lie("lease", "requester", flipped, "wrong_requester"),
    Lie("lease", "provider", flipped, "wrong_provider"),
    Lie("lease", "bid", flipped, "bid_expired"),
    Lie("lease", "kind", to("other"), "kind_refused"),
    Lie("lease", "setup_nanoton", more, "wrong_price"),
    Lie("lease", "prices", to(((1, 1),)), "wrong_price"),
    Lie("lease", "prices", to(()), "wrong_price"),
    Lie("lease", "max_runs", to(0), "wrong_units"),
    Lie("lease", "max_runs", to(RUNS_PER_LEASE + 1), "wrong_units"),
    Lie("lease", "duration_s", to(0), "wrong_duration"),
    Lie("lease", "duration_s", to(LEASE_DURATION_S + 1), "wrong_duration"),
    Lie("lease", "escrow", flipped, "wrong_escrow"),
    Lie("lease", "lane", more, "wrong_lane"),
    Lie("lease", "run_ms", more, "limit_exceeded"),
    Lie("lease", "tranche_nanoton", more, "wrong_tranche"),
    Lie("lease", "owner", flipped, "wrong_escrow"),
    Lie("lease", "lane_key", flipped, "wrong_escrow"),
    Lie("lease", "index", more, "wrong_escrow"),
    Lie("lease", "close_delay_s", more, "wrong_escrow"),
    Lie("lease", "network_tag", more, "wrong_network_id"),
    # Found when the manifest comes: until then the provider cannot know what the id stands for.
    Lie("lease", "model", flipped, "wrong_model"),

    Lie("key_box", "lease", flipped, "wrong_lease"),
    Lie("key_box", "box", flipped, "bad_seal"),

    Lie("lease_accept", "lease", flipped, "wrong_lease"),
    Lie("lease_accept", "keybox", flipped, "wrong_keys"),
    Lie("lease_accept", "nonce", flipped, "bad_seal"),
    Lie("lease_accept", "resumed", to(True), "wrong_lease"),

    Lie("statement", "lease", flipped, "wrong_lease"),
    Lie("statement", "number", more, "wrong_number"),
    Lie("statement", "input_alg", lambda alg: 3 - alg, "wrong_input"),
    Lie("statement", "input", flipped, "wrong_input"),
    Lie("statement", "output_alg", lambda alg: 3 - alg, "wrong_output"),
    Lie("statement", "output", flipped, "wrong_output"),
    Lie("statement", "units", to(0), "wrong_units"),
    Lie("statement", "units", more, "wrong_units"),
    Lie("statement", "price_nanoton", more, "wrong_price"),

    Lie("receipt", "network", flipped, "wrong_network_id"),
    Lie("receipt", "lease", flipped, "wrong_lease"),
    Lie("receipt", "lane", more, "wrong_lane"),
    Lie("receipt", "seq", more, "wrong_seq"),
    Lie("receipt", "seq", to(0), "wrong_seq"),
    Lie("receipt", "previous", flipped, "wrong_previous"),
    Lie("receipt", "root", flipped, "wrong_root"),
    Lie("receipt", "first_number", more, "wrong_number"),
    Lie("receipt", "runs", more, "wrong_runs"),
    Lie("receipt", "runs", to(0), "wrong_runs"),
    Lie("receipt", "units", more, "wrong_units"),
    Lie("receipt", "total_nanoton", more, "wrong_total"),

    Lie("voucher", "network_tag", lambda tag: tag ^ 1, "wrong_network_id"),
    Lie("voucher", "escrow", flipped, "wrong_escrow"),
    Lie("voucher", "lane", more, "wrong_lane"),
    Lie("voucher", "seq", more, "wrong_seq"),
    Lie("voucher", "total_nanoton", more, "wrong_total"),
    Lie("voucher", "head", flipped, "wrong_head"),
)

FREE = {
    ("offer", "seq"): "orders a provider's own offers; nobody else counts them",
    ("offer", "max_memory_bytes"): "for people; the provider enforces it",
    ("offer", "max_run_ms"): "the lease repeats it, and the requester's own patience follows from it",
    ("offer", "max_payload_bytes"): "for people; the provider enforces it",
    ("offer", "queue"): "for people",
    ("bid", "start_ms"): "measured by the provider; a bad guess costs it the next auctions",
    ("bid", "run_us"): "the same",
    ("bid", "warm"): "the same",
    ("offer", "free_memory_bytes"): "for people; measured and not promised",
    ("offer", "warm"): "a list that comes with no bid; beside an offer that is asked for it must fit (wrong_warm)",
    ("lease", "nonce"): "only makes the lease another one",
    ("lease", "private"): "the requester's choice",
    ("lease_accept", "port"): "one that is not reached leaves the lease on its stream; what is said is sealed",
    ("lease_accept", "token"): "the same: who listens there decides whom it takes",
    ("lease_accept", "last_stated"): "a lower one forgoes the liar's own money, a higher one changes nothing (REC-26)",
    ("lease", "ceiling_nanoton"): "binds the requester alone; a price above it is ceiling_exceeded (test_admission)",
    ("statement", "queued_us"): "the provider's word; nothing is paid by it (REC-2)",
    ("statement", "joined"): "the provider's word; the same batch can be executed again (REC-4)",
    ("statement", "place"): "the same",
    ("statement", "ran_us"): "the provider's word; nothing is paid by it (REC-2)",
}


def lies(*names: str) -> list[Lie]:
    """The lies in messages of these names."""
    return [lie for lie in LIES if lie.message in names]


def signed_fields() -> Iterator[tuple[str, str]]:
    """(name, field) of everything that somebody signs, as ``cocoon.wire`` declares it."""
    assert {messages.Lease, market.Bid} <= set(kinds())
    for cls in kinds():
        if cls.shape.signed_by is not None:
            yield from ((cls.shape.name, item.name) for item in cls.shape.fields)
    for cell in vars(judged).values():
        if isinstance(cell, type) and cell.__module__ == judged.__name__ and hasattr(cell, "cell"):
            yield from ((cell.__name__.lower(), name) for name in cell.__struct_fields__)
