"""The schemaless codec: canonical both ways, and bounded."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, NonCanonical, TooLarge, UsageError
from cocoon.core.limits import CODEC_DEPTH, CODEC_ITEMS, SMALL_PAYLOAD_BYTES
from cocoon.wire.codec import SHORT_BYTES, Reader, bytes_header, decode, encode, encode_pieces
from tests.vectors.spelling import canonical, forms, misspellings

BIG = 1 << 20

INTEGERS = [
    0, 1, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1,
    -1, -32, -33, -128, -129, -32_768, -32_769, -(1 << 31), -(1 << 31) - 1, -(1 << 63),
]  # fmt: skip
LENGTHS = [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536]


@pytest.mark.parametrize("value", INTEGERS)
def test_an_integer_has_its_shortest_form_and_no_other(value: int) -> None:
    assert encode(value) == msgpack.packb(value) == canonical(value)
    assert decode(encode(value), max_bytes=16) == value
    for _, data in misspellings(value):
        with pytest.raises(NonCanonical):
            decode(data, max_bytes=16)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("one", ["x", b"x", [0]], ids=["text", "bytes", "array"])
def test_a_length_has_its_shortest_form_and_no_other(one: Any, length: int) -> None:
    value = one * min(length, CODEC_ITEMS - 1)
    (_, shortest), *longer = forms(value)
    assert encode(value) == shortest
    assert decode(shortest, max_bytes=BIG) == value
    for _, data in longer:
        with pytest.raises(NonCanonical):
            decode(data, max_bytes=BIG)


@pytest.mark.parametrize("value", [None, 1.5, 1 << 64, -(1 << 63) - 1, {1}, object(), bytearray(1), "\ud800"])
def test_what_has_no_canonical_form_is_our_own_mistake(value: object) -> None:
    with pytest.raises(UsageError):
        encode(value)
    with pytest.raises(UsageError):
        encode([value])


@pytest.mark.parametrize(
    ("value", "keys"),
    [({"a": 1}, "int"), ({1: 1}, "str"), ({-1: 1}, "int"), ({True: 1}, "int"), ({1 << 64: 1}, "int")],
)
def test_a_key_of_another_kind_is_our_own_mistake(value: object, keys: Any) -> None:
    with pytest.raises(UsageError):
        encode(value, keys=keys)


@pytest.mark.parametrize(
    "value", [{"b": 1, "a": [True, {"z": b"", "é": "é"}]}, {"done": {}}, {chr(0xFFFF): 1, chr(0x10000): 2}]
)
def test_a_control_value_comes_back_however_it_is_spelled_while_it_is_short(value: Any) -> None:
    data = encode(value, keys="str")
    assert decode(data, max_bytes=BIG, keys="str") == value
    assert b"".join(encode_pieces(value, keys="str")) == msgpack.packb(value), "nobody sorts what nobody signs"
    with pytest.raises(Malformed):
        decode(data, max_bytes=BIG)
    long = bytes(SHORT_BYTES)
    for _, other in misspellings(msgpack.unpackb(data)):
        assert decode(other, max_bytes=BIG, keys="str") == value
        with pytest.raises(NonCanonical):
            decode(b"\x92" + other + bytes_header(len(long)) + long, max_bytes=BIG, keys="str")


def test_a_long_control_value_is_canonical_in_pieces() -> None:
    for value in ({"z": bytes(SHORT_BYTES), "a": 1}, {"z": ["word"] * 20_000, "a": 1}):
        assert b"".join(encode_pieces(value, keys="str")) == encode(value, keys="str")
        assert decode(encode(value, keys="str"), max_bytes=BIG, keys="str") == value


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": 1 << 64}, {"a": object()}, {1: 2}, {"a": {2: b""}}])
def test_what_has_no_form_is_our_own_mistake_on_the_control_socket_too(value: Any) -> None:
    with pytest.raises(UsageError):
        encode_pieces({"long": bytes(SHORT_BYTES), **value}, keys="str")


def test_the_order_of_a_dict_does_not_change_its_bytes() -> None:
    assert encode({300: 1, 2: 2}) == encode({2: 2, 300: 1})


@pytest.mark.parametrize(
    "data",
    [b"\xc0", b"\xc1", b"\xca" + bytes(4), b"\xcb" + bytes(8), b"\xd4\0\0", b"\xc7\x01\0\0", b""],
)
def test_a_type_that_we_do_not_have_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data, max_bytes=16)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
def test_text_that_is_no_utf8_is_malformed(raw: bytes) -> None:
    """Overlong forms and surrogates included."""
    with pytest.raises(Malformed):
        decode(bytes([0xA0 | len(raw)]) + raw, max_bytes=16)


def test_nesting_ends_at_the_limit() -> None:
    value: object = 0
    for _ in range(CODEC_DEPTH):
        value = [value]
    assert decode(encode(value), max_bytes=BIG) == value
    with pytest.raises(UsageError):
        encode([value])
    with pytest.raises(Malformed, match="levels"):
        decode(b"\x91" + encode(value), max_bytes=BIG)
    with pytest.raises(Malformed, match="levels"):
        decode(b"\x91" * BIG, max_bytes=BIG)


@pytest.mark.parametrize("header", [b"\xdd", b"\xdf", b"\xc6", b"\xdb"], ids=["array", "map", "blob", "text"])
def test_a_huge_announced_length_allocates_nothing(header: bytes) -> None:
    data = header + b"\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decode(data, max_bytes=BIG)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_many_small_items_end_at_the_limit() -> None:
    inner = b"\xdc\xff\xff" + b"\x80" * 65_535
    with pytest.raises(TooLarge):
        decode(b"\x92" + inner + inner, max_bytes=BIG)


def test_input_above_the_limit_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        decode(bytes(17), max_bytes=16)


def test_reader_limits_hold_to_the_byte() -> None:
    assert Reader(b"\xc4\x03abc", 9).blob(3) == b"abc"
    assert bytes(Reader(b"\xc4\x03abc", 9).view(3)) == b"abc"
    for take in (lambda r: r.blob(2), lambda r: r.view(2)):
        with pytest.raises(TooLarge):
            take(Reader(b"\xc4\x03abc", 9))
    assert Reader(b"\xa6\xc3\xa9\xc3\xa9\xc3\xa9", 9).text(3) == "ééé"
    with pytest.raises(TooLarge):
        Reader(b"\xa6\xc3\xa9\xc3\xa9\xc3\xa9", 9).text(2)
    with pytest.raises(Malformed):
        Reader(b"\x05", 9).uint(4)


def test_a_bytearray_is_read_like_bytes() -> None:
    found = decode(bytearray(b"\xc4\x01x"), max_bytes=9)  # type: ignore[arg-type]
    assert type(found) is bytes


@given(cuts=st.lists(st.integers(0, 2_000), max_size=12), lost=st.integers(0, 3))
def test_what_came_in_pieces_is_read_as_if_it_were_whole(cuts: list[int], lost: int) -> None:
    value = {1: [b"x" * 700, "text", -7, True], 2: {3: b"y" * 300, 1 << 40: []}, 9: "é" * 40}
    spelled = encode(value)
    data = spelled[: len(spelled) - lost]
    ends = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    reader = Reader([memoryview(piece) for piece in pieces], len(spelled))
    if lost:
        with pytest.raises(Malformed, match="truncated"):
            reader.value()
        return
    assert reader.value() == value
    assert reader.position() == reader.size_bytes == len(spelled)
    reader.end()


def test_pieces_together_are_no_longer_than_the_limit() -> None:
    with pytest.raises(TooLarge):
        Reader([b"\xc4\x03", b"abc"], 4)
    with pytest.raises(Malformed, match="1 bytes after"):
        read = Reader([b"\xc4\x01a", b"b"], 4)
        read.blob(1)
        read.end()
    assert bytes(Reader([b"\xc4\x03a", b"bc"], 9).view(3)) == b"abc"


@pytest.mark.parametrize("around", [0, 1, 15, 16, 300])
def test_a_value_in_pieces_is_spelled_alike_and_what_is_large_stays_where_it_lies(around: int) -> None:
    large = bytes(SMALL_PAYLOAD_BYTES)
    value = {1: [b"x"] * around, 2: {number: -number for number in range(around)}, 3: [[large, "z"], large, True]}
    pieces = encode_pieces(value)
    assert b"".join(pieces) == encode(value)
    assert [piece is large for piece in pieces] == [False, True, False, True, False]


def test_a_value_that_is_small_is_one_piece() -> None:
    assert encode_pieces([b"x" * (SMALL_PAYLOAD_BYTES - 1)]) == [encode([b"x" * (SMALL_PAYLOAD_BYTES - 1)])]
