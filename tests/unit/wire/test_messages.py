"""What is impossible in a message itself is refused, on the way out and on the way in."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import BadSignature, Malformed, UsageError
from cocoon.core.limits import CONTROL_FRAME_BYTES, OFFER_BYTES
from cocoon.core.values import replace
from cocoon.wire import messages as m
from cocoon.wire.schema import FIRST_OPTIONAL_KEY, Message, body_bytes, kinds, unpack_body
from cocoon.wire.signing import claimed, open_signed
from tests.vectors import samples
from tests.vectors.spelling import canonical

NUMBERS = {
    "hello": 1, "beat": 2, "refusal": 3, "offer_request": 4, "offer_reply": 5, "offer": 6, "key_bundle": 7,
    "profile": 8, "lease_open": 9, "lease": 10, "key_box": 11, "lease_accept": 12,
    "close_ask": 13, "close_agree": 14, "warm_models": 15, "link_resume": 16, "link_resumed": 17, "model_offer": 20,
    "model_want": 21, "chunk_hashes": 22, "chunk": 23, "model_ready": 24, "run_request": 25, "run_result": 26,
    "run_failure": 27, "tranche_close": 28, "receipt_issued": 29, "receipt": 30, "countersign": 31,
    "lease_close": 32, "bundle": 33, "run_token": 34, "run_cancel": 35, "alike": 36,
    "manifest_request": 40, "manifest_reply": 41, "chunk_request": 42, "manifest": 50,
    "call": 70, "bid": 71, "bid_reply": 72, "decline": 73, "call_result": 74,
    "interest": 60, "offer_digest": 61, "offer_delta": 62, "offer_want": 63, "offer_summary": 64,
}  # fmt: skip
SIGNED_BY = {
    "offer": "provider", "key_bundle": "provider", "lease_accept": "provider", "receipt": "provider",
    "lease": "requester", "key_box": "requester", "bid": "provider",
}  # fmt: skip


def test_names_numbers_and_signers_are_the_specified_ones() -> None:
    ours = [cls for cls in kinds() if cls.__module__.startswith("cocoon.")]
    assert {cls.shape.name: cls.shape.kind for cls in ours} == NUMBERS
    assert {cls.shape.name: cls.shape.signed_by for cls in ours if cls.shape.signed_by} == SIGNED_BY
    assert {cls.shape.version for cls in ours} == {1}


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_keys_follow_the_order_of_the_fields(name: str) -> None:
    fields = samples.MESSAGES[name].shape.fields
    required = [item.key for item in fields if item.required]
    optional = [item.key for item in fields if not item.required]
    assert required == list(range(1, len(required) + 1))
    assert optional == list(range(FIRST_OPTIONAL_KEY, FIRST_OPTIONAL_KEY + len(optional)))



IMPOSSIBLE: list[tuple[str, str, Any]] = [
    ("offer", "kinds", ()),
    ("offer", "kinds", ("infer", "embed")),
    ("offer", "kinds", ("infer", "infer")),
    ("offer", "kinds", ("a", "b", "c", "d", "e")),
    ("offer", "kinds", ("x" * 17,)),
    ("offer", "prices", ((2, 1), (1, 1))),
    ("offer", "prices", ((1, 1), (1, 2))),
    ("offer", "prices", ((0, 1),)),
    ("offer", "prices", ((6, 1),)),
    ("offer", "prices", ((1, -1),)),
    ("offer", "prices", ((1,),)),
    ("offer", "prices", ((1, 2, 3),)),
    ("offer", "prices", tuple((i, 1) for i in range(1, 7))),
    ("offer", "network", bytes(31)),
    ("offer", "boot_id", bytes(9)),
    ("offer", "ttl_s", 1 << 32),
    ("offer", "warm", bytes(31)),
    ("offer", "free_memory_bytes", -1),
    ("key_bundle", "public", bytes(1_215)),
    ("key_bundle", "public", bytes(2_049)),
    ("key_bundle", "suite", 256),
    ("lease", "provider", samples.REQUESTER.key),
    ("lease", "prices", ((2, 1), (1, 1))),
    ("lease", "nonce", bytes(15)),
    ("lease", "kind", "Infer"),
    ("lease", "private", 1),
    ("key_box", "box", bytes(2_049)),
    ("model_want", "file", 64),
    ("model_want", "first", 2_048),
    ("model_want", "count", (1 << 32) - 1),
    ("chunk_request", "count", 2_049),
    ("chunk_hashes", "file", 64),
    ("chunk", "index", 2_048),
    ("chunk", "data", bytes((1 << 20) + 1)),
    ("chunk_hashes", "hashes", bytes(33)),
    ("chunk_hashes", "hashes", bytes(32 * 2_049)),
    ("close_ask", "order", bytes(62)),
    ("close_ask", "order", bytes(64)),
    ("run_result", "statement", bytes(126)),
    ("countersign", "voucher", bytes(91)),
    ("run_request", "salt", bytes(17)),
    ("run_request", "number", 1 << 32),
    ("hello", "agent", "a" * 65),
    ("hello", "agent", "a\x1b[2J"),
    ("refusal", "code", "No Code"),
    ("refusal", "code", ""),
    ("refusal", "text", "x" * 513),
    ("refusal", "text", "two\nlines"),
    ("interest", "kinds", ("infer", "embed")),
    ("interest", "kinds", tuple(f"kind{i:02}" for i in range(17))),
    ("offer_digest", "first", bytes([255]) * 32),
    ("offer_digest", "last", bytes(32)),
    ("offer_digest", "held", ((bytes([2]) * 32, bytes(8), 1, 1), (bytes([1]) * 32, bytes(8), 1, 1))),
    ("offer_digest", "held", ((bytes([1]) * 32, bytes(8), 1, 1),) * 2),
    ("offer_digest", "held", ((bytes([1]) * 32, bytes(8), 1, 1 << 32),)),
    ("offer_digest", "held", tuple((i.to_bytes(32, "big"), bytes(8), 1, 1) for i in range(257))),
    ("offer_delta", "offers", ()),
    ("offer_delta", "offers", ((0, bytes(m.Offer.shape.max_bytes + 1)),)),
    ("offer_delta", "offers", ((0, b""),) * 129),
    ("offer_want", "providers", ()),
    ("offer_want", "providers", (bytes(31),)),
    ("offer_want", "providers", (bytes(32),) * 129),
]


@pytest.mark.parametrize(
    ("name", "field_name", "value"), IMPOSSIBLE, ids=lambda v: v[:20] if isinstance(v, str) else None
)
def test_an_impossible_field_is_neither_written_nor_read(name: str, field_name: str, value: Any) -> None:
    msg: Any = samples.MESSAGES[name]
    changed: Message = replace(msg, **{field_name: value})
    with pytest.raises(UsageError, match=name):
        body_bytes(changed)
    body = {item.key: _body_value(getattr(changed, item.name)) for item in msg.shape.fields}
    with pytest.raises(Malformed):
        unpack_body(type(msg), canonical(body))


def _body_value(value: Any) -> Any:
    return [_body_value(item) for item in value] if isinstance(value, tuple) else value


def test_a_key_of_a_suite_that_we_do_not_know_passes_the_border() -> None:
    """Whoever opens it decides; the message itself is possible."""
    msg = replace(samples.KEYS, suite=2, public=b"other")
    assert unpack_body(m.KeyBundle, body_bytes(msg)) == msg


def test_the_largest_offer_fits_400_bytes() -> None:
    u64 = ("seq", "setup_nanoton", "max_model_bytes", "max_memory_bytes", "max_payload_bytes", "free_memory_bytes")
    biggest = replace(
        samples.MESSAGES["offer"],  # type: ignore[type-var]
        kinds=tuple("abcd"[i] * 16 for i in range(4)),
        prices=tuple((i, (1 << 64) - 1) for i in range(1, 6)),
        **dict.fromkeys(u64, (1 << 64) - 1),
        **dict.fromkeys(("ttl_s", "max_run_ms", "queue"), (1 << 32) - 1),
    )
    assert len(body_bytes(biggest)) <= OFFER_BYTES


def test_no_offer_body_above_400_bytes_is_read() -> None:
    body = body_bytes(samples.MESSAGES["offer"])
    assert body[:3] == b"\xde\x00\x10", "a map of sixteen, with one more to come"
    room = OFFER_BYTES - len(body) - 3
    header = b"\xde\x00\x11"
    fits = header + body[3:] + canonical(64) + canonical(bytes(room))
    assert len(fits) == OFFER_BYTES
    assert unpack_body(m.Offer, fits) == samples.MESSAGES["offer"]
    with pytest.raises(Malformed) as caught:
        unpack_body(m.Offer, header + body[3:] + canonical(64) + canonical(bytes(room + 1)))
    assert caught.value.code == "too_large"


def test_every_frame_of_the_gossip_fits_a_control_frame_however_full_it_is() -> None:
    assert {cls.shape.name for cls in kinds() if cls.shape.max_bytes > CONTROL_FRAME_BYTES} & {
        "interest", "offer_digest", "offer_delta", "offer_want",
    } == set()


def test_what_an_envelope_claims_is_read_without_a_look_at_its_signature() -> None:
    """For who decides whether a check is worth while; ``open_signed`` alone says that a claim is true."""
    good = samples.signed(samples.OFFER).pack()
    forged = good[:-1] + bytes([good[-1] ^ 1])
    assert claimed(forged, m.Offer) == claimed(good, m.Offer) == (samples.PROVIDER.key, samples.OFFER)
    with pytest.raises(BadSignature):
        open_signed(forged, m.Offer)
    with pytest.raises(Malformed):
        claimed(good[:-1], m.Offer)
