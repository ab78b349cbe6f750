"""Kinds, versions and fields: known ones only, and room for those of newer peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cocoon.core import limits
from cocoon.core.errors import (
    PEER_CODES,
    BadSignature,
    Malformed,
    NonCanonical,
    TooLarge,
    UnknownKind,
    UnknownVersion,
    UsageError,
    WrongField,
    all_errors,
    for_peer,
)
from cocoon.core.values import replace
from cocoon.wire import messages as m
from cocoon.wire import types as t
from cocoon.wire.bundle import Alike, Bundle
from cocoon.wire.codec import Reader
from cocoon.wire.declarations import ENDS
from cocoon.wire.schema import (
    Message,
    body_bytes,
    digest,
    field,
    kinds,
    message,
    pack,
    pack_pieces,
    packed_digest,
    unpack,
    unpack_body,
)
from cocoon.wire.signing import open_signed, sign, to_be_signed
from tests.vectors import samples
from tests.vectors.spelling import canonical


@message(kind=60_001, version=2, name="test_newer")
class Newer(Message):
    """A message of a newer peer: one more, optional, field."""

    seq: int = field(1, t.U64)
    hint: int | None = field(64, t.U8, default=None)


def _beat(**body: Any) -> bytes:
    return canonical([2, 1, {int(key.strip("k")): value for key, value in body.items()}])


def test_unpack_returns_whichever_expected_kind_came() -> None:
    assert unpack(pack(m.Beat(seq=7)), m.Hello, m.Beat) == m.Beat(seq=7)


@pytest.mark.parametrize("kind", [0, 1, 3, 19, 65_535])
def test_any_other_kind_is_unknown_here(kind: int) -> None:
    with pytest.raises(UnknownKind) as caught:
        unpack(canonical([kind, 1, {1: 7}]), m.Beat)
    assert caught.value.code == "unknown_kind"


@pytest.mark.parametrize("version", [0, 2, 127, 65_535])
def test_another_version_of_a_known_kind_is_unknown(version: int) -> None:
    with pytest.raises(UnknownVersion) as caught:
        unpack(canonical([2, version, {1: 7}]), m.Beat)
    assert caught.value.code == "unknown_version"


@pytest.mark.parametrize("name", [n for n, msg in samples.MESSAGES.items() if msg.shape.signed_by])
def test_kind_and_version_of_a_signed_message_are_checked_before_its_signature(name: str) -> None:
    msg = samples.MESSAGES[name]
    signed = samples.signed(msg)
    rest = [signed.body, signed.signer, signed.signature]
    with pytest.raises(UnknownKind):
        open_signed(canonical([999, 1, *rest]), type(msg))
    with pytest.raises(UnknownVersion):
        open_signed(canonical([msg.shape.kind, msg.shape.version + 1, *rest]), type(msg))


@pytest.mark.parametrize("key", [0, 2, 63])
def test_an_unknown_required_key_is_refused(key: int) -> None:
    with pytest.raises(Malformed, match=f"unknown key {key}"):
        unpack(_beat(**dict(sorted({"k1": 7, f"k{key}": 0}.items(), key=lambda i: int(i[0][1:])))), m.Beat)


@pytest.mark.parametrize("value", [0, "text", b"bytes", [1, [2]], {1: {2: 3}}, True])
def test_an_unknown_optional_key_is_skipped(value: object) -> None:
    assert unpack(_beat(k1=7, k64=value, k1000=value), m.Beat) == m.Beat(seq=7)


def test_an_unknown_optional_key_must_be_canonical_and_small() -> None:
    with pytest.raises(NonCanonical):
        unpack(b"\x93\x02\x01\x82\x01\x07\x40\xcc\x00", m.Beat)
    with pytest.raises(NonCanonical):
        unpack(_beat(k1=7, k65=0, k64=0), m.Beat)
    with pytest.raises(TooLarge):
        unpack(_beat(k1=7, k64=bytes(limits.EXTRA_FIELDS_BYTES + 1)), m.Beat)
    with pytest.raises(Malformed):
        unpack(b"\x93\x02\x01\x82\x01\x07\x40\xc0", m.Beat)


def test_an_unknown_optional_key_stays_under_the_signature() -> None:
    receipt = samples.MESSAGES["receipt"]
    body = bytearray(body_bytes(receipt))
    body[0] += 1
    extended = bytes(body) + canonical(64) + canonical("new")
    signature = samples.PROVIDER.sign(to_be_signed(receipt.shape, extended))
    data = canonical([30, 1, extended, samples.PROVIDER.key, signature])
    opened = open_signed(data, m.Receipt)
    assert opened.message == receipt
    assert opened.pack() == data
    assert opened.digest != digest(receipt)
    with pytest.raises(BadSignature):
        open_signed(data.replace(b"new", b"NEW"), m.Receipt)


def test_an_optional_field_travels_only_if_it_is_set() -> None:
    assert pack(Newer(seq=1, hint=None)) == canonical([60_001, 2, {1: 1}])
    assert pack(Newer(seq=1, hint=2)) == canonical([60_001, 2, {1: 1, 64: 2}])
    assert unpack(pack(Newer(seq=1, hint=2)), Newer).hint == 2
    assert unpack(pack(Newer(seq=1, hint=None)), Newer).hint is None


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
def test_an_array_of_another_length_is_no_message(count: int) -> None:
    with pytest.raises(Malformed):
        unpack(canonical([2, 1, {1: 7}, 0, 0][:count]), m.Beat)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xa0", b"\x07", b"\xc4\x00"])
def test_what_is_no_array_is_no_message(data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(data, m.Beat)
    with pytest.raises(Malformed):
        open_signed(data, m.Offer)


def test_the_limit_is_that_of_the_kind_not_of_the_largest_expected_one() -> None:
    data = canonical([2, 1, {1: 7, 64: bytes(900), 65: bytes(900)}])
    with pytest.raises(TooLarge):
        unpack(data, m.Beat, m.Chunk)


def test_a_kind_that_travels_signed_is_never_packed_or_read_unsigned() -> None:
    offer = samples.MESSAGES["offer"]
    with pytest.raises(UsageError):
        pack(offer)
    with pytest.raises(UsageError):
        unpack(canonical([6, 1, {}]), m.Offer)
    with pytest.raises(UsageError):
        sign(m.Beat(seq=1), samples.PROVIDER)
    with pytest.raises(UsageError):
        open_signed(b"", m.Beat)


def test_a_lease_signed_by_somebody_it_does_not_name_is_refused_even_if_nobody_asked() -> None:
    forged = sign(samples.MESSAGES["lease"], samples.STRANGER).pack()
    with pytest.raises(WrongField) as caught:
        open_signed(forged, m.Lease)
    assert caught.value.code == "wrong_requester"


@pytest.mark.parametrize(
    "declare",
    [
        lambda: message(kind=2, version=1, name="fresh_name"),
        lambda: message(kind=60_002, version=1, name="beat"),
    ],
    ids=["same_kind_and_version", "same_name"],
)
def test_two_messages_cannot_share_a_number_or_a_name(declare: Any) -> None:
    with pytest.raises(UsageError, match="twice"):

        @declare()
        class Again(Message):
            seq: int = field(1, t.U64)


@pytest.mark.parametrize(("key", "default"), [(1, {"default": None}), (64, {}), (0, {})])
def test_keys_below_64_are_required_and_above_optional(key: int, default: dict[str, None]) -> None:
    with pytest.raises(UsageError, match="key"):

        @message(kind=60_003, version=1, name="fresh_name")
        class Wrong(Message):
            seq: int | None = field(key, t.U64, **default)


def test_bounds_cover_the_largest_message_of_each_kind() -> None:
    """What one field allows fails on the size of the whole only where many long names share MANIFEST_BYTES."""
    for cls in set(kinds()) - {Alike, Bundle}:          # which are bounded as a whole
        for item in cls.shape.fields:
            if item.wire is not ENDS:
                assert item.wire.max_bytes < cls.shape.max_bytes, (cls, item)
    assert m.RunResult.shape.max_bytes <= limits.MESSAGE_BYTES
    assert m.RunRequest.shape.max_bytes <= limits.MESSAGE_BYTES
    assert m.OfferReply.shape.max_bytes <= limits.CONTROL_FRAME_BYTES
    assert m.LeaseOpen.shape.max_bytes <= limits.CONTROL_FRAME_BYTES


def test_digest_of_packed_bytes_is_that_of_the_message_with_its_unknown_fields() -> None:
    profile = samples.MESSAGES["profile"]
    assert packed_digest(pack(profile)) == digest(profile)
    assert packed_digest(_beat(k1=7, k64=1)) != packed_digest(_beat(k1=7))


def test_messages_are_frozen_values_without_a_dict() -> None:
    beat = m.Beat(seq=1)
    with pytest.raises(AttributeError):
        beat.seq = 2  # type: ignore[misc]
    assert not hasattr(beat, "__dict__")
    assert replace(beat, seq=2) == m.Beat(seq=2) != beat
    assert len({beat, m.Beat(seq=1), m.Hello}) == 2


def test_the_text_of_a_message_shows_no_bytes() -> None:
    """What is logged by accident is a length."""
    text = repr(m.RunRequest(number=3, salt=b"s" * 16, inputs=b"secret"))
    assert text == "RunRequest(number=3, salt=<16 B>, inputs=<6 B>)"


def test_a_body_is_read_like_the_whole() -> None:
    assert unpack_body(m.Beat, canonical({1: 7})) == m.Beat(seq=7)
    for data in (canonical({1: 7}) + b"\0", b"\x81\x01\xcc\x07", b"", bytes(10_000)):
        with pytest.raises(Malformed):
            unpack_body(m.Beat, data)


OUTSIDE: list[tuple[Any, list[object]]] = [
    (t.U8, [-1, 256, True, 1.0, "1", None]),
    (t.U16, [65_536]),
    (t.U32, [1 << 32]),
    (t.U64, [1 << 64]),
    (t.Flag(), [0, 1, None]),
    (t.Exactly(4), [b"123", b"12345", "1234", bytearray(4)]),
    (t.UpTo(4, step=2), [b"123", b"123456", None]),
    (t.Line(4), ["12345", "a\n", "a\x1b", "a\u202e", "\ud800", b"a", "a\0"]),
    (t.Word(4), ["", "abcde", "A", "a b", "é", b"a"]),
    (t.Each(t.U8, most=2, least=1), [(), (1, 2, 3), (256,), 5, "ab"]),
    (t.Row(t.U8, t.Flag()), [(1,), (1, True, 2), (1, 2), "ab"]),
]


@pytest.mark.parametrize(("wire", "values"), OUTSIDE, ids=lambda v: type(v).__name__)
def test_a_value_outside_its_type_is_never_written(wire: Any, values: list[object]) -> None:
    for value in values:
        with pytest.raises(UsageError):
            wire.write(value)


@pytest.mark.parametrize(("wire", "values"), OUTSIDE, ids=lambda v: type(v).__name__)
def test_a_value_outside_its_type_is_never_read(wire: Any, values: list[object]) -> None:
    for value in values:
        if value is None or isinstance(value, float | bytearray) or value == "\ud800" or value == 1 << 64:
            continue
        if isinstance(value, tuple):
            value = list(value)
        with pytest.raises(Malformed):
            wire.read(Reader(canonical(value), 100))


def test_line_cleans_whatever_it_is_given() -> None:
    assert t.line("two\n lines\x1b[31m", 100) == "two lines?[31m"
    assert t.line("x" * 600, 512) == "x" * 512
    assert t.line("\ud800", 9) == "?"


def test_every_error_can_be_refused_with() -> None:
    """All codes fit the field, whatever the text; those that are no peer's business are not told."""
    for cls in all_errors():
        error = cls("bad \x1b[0m\n" + "x" * 1_000)
        refusal = m.refusal(error)
        assert unpack(pack(m.run_failure(7, error)), m.RunFailure).text == refusal.text
        assert unpack(pack(refusal), m.Refusal).code == for_peer(error).code in PEER_CODES


def test_the_messages_load_without_numpy_or_cryptography() -> None:
    """So that light programs stay light."""
    heavy = "{'numpy', 'nacl', 'blake3', 'trio'}"
    code = f"import sys, cocoon.wire.messages; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [0, 1, limits.SMALL_PAYLOAD_BYTES - 1, limits.SMALL_PAYLOAD_BYTES, 1 << 20])
def test_a_message_in_pieces_is_spelled_alike(size: int) -> None:
    request = m.RunRequest(number=1, salt=bytes(16), inputs=bytes(size))
    pieces = pack_pieces(request)
    assert b"".join(pieces) == pack(request)
    assert any(piece is request.inputs for piece in pieces) == (size >= limits.SMALL_PAYLOAD_BYTES)


def test_a_message_in_pieces_has_the_same_bounds() -> None:
    with pytest.raises(UsageError, match="inputs"):
        pack_pieces(m.RunRequest(number=1, salt=bytes(16), inputs=bytes(limits.PAYLOAD_BYTES + 1)))


@pytest.mark.parametrize("levels", [20, 600, 1_000, 1_020, 3_000])
@pytest.mark.parametrize("level", [b"\x91", b"\x81\x01"])
def test_levels_without_end_are_malformed_and_end_nobody(level: bytes, levels: int) -> None:
    """Each of them could be read, but not shown, nor packed again, without a thousand calls within each other."""
    deep = level * levels + b"\x01"
    messages = [b"\x93\x19\x01\x81\x01" + deep, b"\x93\x19\x01" + deep, deep]
    assert [_refused(lambda data=data: unpack(data, m.RunRequest)) for data in messages] == [True] * 3
    bodies = [deep, b"\x81\x01" + deep]
    assert [_refused(lambda body=body: unpack_body(m.RunRequest, body)) for body in bodies] == [True] * 2


def _refused(call: Callable[[], object]) -> bool:
    """Whether it says what is wrong; False if it falls over."""
    try:
        call()
    except Malformed:
        return True
    except RecursionError:
        return False
    raise AssertionError("it was read")
