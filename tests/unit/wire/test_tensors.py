"""Tensors travel bit for bit, and what numpy would do badly is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import (
    CocoonError,
    DtypeUnsupported,
    LimitExceeded,
    Malformed,
    NonCanonical,
    TooLarge,
    UsageError,
)
from cocoon.core.limits import PAYLOAD_BYTES, STRING_ITEM_BYTES, STRING_ITEMS, TENSOR_NAME_CHARS, TENSORS
from cocoon.wire import tensors as t
from cocoon.wire.layout import largest_raw
from cocoon.wire.tensors import NUMERIC, TensorDecoder, decode_tensors, encode_tensors
from tests.vectors import samples
from tests.vectors.spelling import canonical, misspellings


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Equal dtype, shape and bits; NaN and -0.0 included."""
    if left.dtype == object:
        return right.dtype == object and left.shape == right.shape and left.tolist() == right.tolist()
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def round_trip(array: Any) -> np.ndarray[Any, Any]:
    return decode_tensors(encode_tensors({"x": array}))["x"]


def one(dtype: str, shape: list[int], raw: bytes, name: str = "x") -> bytes:
    return canonical([[name, dtype, shape, raw]])


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 3), (0, 5), (2, 1, 3, 1)])
def test_every_numeric_dtype_and_rank_comes_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = np.frombuffer(samples.word(dtype, size), np.uint8)
    array = (array & 1 if dtype == "bool" else array).view(dtype).reshape(shape)
    assert same(round_trip(array), array)


@pytest.mark.parametrize("name", samples.TENSORS)
def test_sample_tensors_come_back(name: str) -> None:
    given = samples.TENSORS[name]
    found = decode_tensors(encode_tensors(given))
    assert list(found) == sorted(given)
    assert all(same(found[key], given[key]) for key in given)


def test_the_layout_is_name_dtype_shape_and_little_endian_bytes() -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype=">i2")
    assert encode_tensors({"x": array}) == one("int16", [2, 3], struct.pack("<6h", 1, 2, 3, 4, 5, 6))
    text = np.array(["a\0", "é"], dtype=object)
    assert encode_tensors({"x": text}) == one("string", [2], b"\2\0\0\0a\0\2\0\0\0\xc3\xa9")


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-1],
        lambda a: a[:, ::2],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[0], (3, 6)),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: a[1:1],
    ],
    ids=["transposed", "reversed", "strided", "fortran", "broadcast", "big_endian", "empty_slice"],
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
def test_the_layout_in_memory_does_not_matter(view: Any, dtype: str) -> None:
    array = view(np.arange(24).reshape(4, 6).astype(dtype))
    found = round_trip(array)
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, array)


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::-1, :1]])
def test_strings_in_any_layout_come_back(view: Any) -> None:
    array = view(np.array([["a", "b\0"], ["", "é"]], dtype=object))
    assert same(round_trip(array), np.array(array.tolist(), dtype=object))


def test_trailing_nuls_of_strings_survive() -> None:
    assert round_trip(np.array(["x\0\0", "\0", ""], dtype=object)).tolist() == ["x\0\0", "\0", ""]


def test_fixed_width_text_is_taken_as_strings() -> None:
    assert same(round_trip(np.array([["ab", "é"]])), np.array([["ab", "é"]], dtype=object))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_strings_of_unusual_shapes_come_back(shape: tuple[int, ...]) -> None:
    array = np.empty(shape, dtype=object)
    array.fill("s")
    assert same(round_trip(array), array)


def test_a_bool_made_of_any_byte_is_written_as_one() -> None:
    array = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert encode_tensors({"x": array}) == one("bool", [4], b"\0\1\1\1")


def test_decoded_arrays_are_aligned_and_read_only() -> None:
    """Whatever the names before them do to the offset."""
    for pad in range(9):
        given = {"a" * (pad + 1): np.arange(3.0), "z": np.array(["s"], object)}
        for array in decode_tensors(encode_tensors(given)).values():
            assert array.flags.aligned
            assert array.dtype.isnative
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[0]


UNSUPPORTED = [
    np.zeros(1, np.complex64),
    np.zeros(1, np.longdouble),
    np.zeros(1, "S3"),
    np.zeros(1, "V2"),
    np.zeros(1, "M8[s]"),
    np.zeros(1, "m8[s]"),
    np.zeros(1, [("a", "f4")]),
    np.array([1, "a"], dtype=object),
    np.array([None], dtype=object),
    np.array([b"bytes"], dtype=object),
]


@pytest.mark.parametrize("array", UNSUPPORTED, ids=lambda a: f"{a.dtype.kind}-{a.dtype.name}")
def test_an_unsupported_dtype_is_refused_by_name(array: Any) -> None:
    with pytest.raises(DtypeUnsupported) as caught:
        encode_tensors({"x": array})
    assert caught.value.code == "dtype_unsupported"
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "object", "float128", "O", "", "int4", "<f4"],
)
def test_an_unsupported_dtype_name_is_refused_on_arrival(dtype: str) -> None:
    with pytest.raises(DtypeUnsupported):
        decode_tensors(one(dtype, [1], bytes(2)))


@pytest.mark.parametrize("name", ["", "x" * (TENSOR_NAME_CHARS + 1), 5, "\ud800"])
def test_an_impossible_name_is_our_own_mistake(name: Any) -> None:
    with pytest.raises(UsageError):
        encode_tensors({name: np.zeros(1)})


ROW = ["x", "uint8", [1], b"\0"]
MALFORMED: dict[str, Any] = {
    "no_array": {},
    "row_no_array": [5],
    "row_too_short": [ROW[:3]],
    "row_too_long": [[*ROW, 1]],
    "name_no_text": [[1, *ROW[1:]]],
    "name_too_long": [["x" * 257, *ROW[1:]]],
    "shape_no_array": [["x", "uint8", 1, b"\0"]],
    "dimension_negative": [["x", "uint8", [-1], b"\0"]],
    "dimension_text": [["x", "uint8", ["1"], b"\0"]],
    "rank_too_high": [["x", "uint8", [1] * 33, b"\0"]],
    "raw_text": [["x", "uint8", [1], "0"]],
    "raw_too_short": [["x", "uint8", [2], b"\0"]],
    "raw_too_long": [["x", "uint8", [1], b"\0\0"]],
    "raw_for_empty": [["x", "uint8", [0], b"\0"]],
    "raw_missing_for_scalar": [["x", "uint8", [], b""]],
    "huge_dimension": [["x", "uint8", [1 << 62], b""]],
    "huge_product": [["x", "uint8", [1 << 26, 1 << 26], b""]],
    "huge_dimension_of_nothing": [["x", "uint8", [0, 1 << 62], b""]],
    "huge_product_of_nothing": [["x", "uint8", [0, 1 << 26, 1 << 26, 1 << 26], b""]],
    "too_many": [[f"{i:04}", *ROW[1:]] for i in range(TENSORS + 1)],
    "string_length_cut": [["x", "string", [1], b"\0\0\0"]],
    "string_cut": [["x", "string", [1], b"\2\0\0\0a"]],
    "string_trailing": [["x", "string", [1], b"\1\0\0\0ab"]],
    "string_missing": [["x", "string", [2], b"\0\0\0\0"]],
    "string_for_none": [["x", "string", [0], b"\0\0\0\0"]],
    "string_too_long": [["x", "string", [1], struct.pack("<I", STRING_ITEM_BYTES + 1) + bytes(9)]],
    "string_huge": [["x", "string", [1], b"\xff\xff\xff\xff"]],
    "string_no_utf8": [["x", "string", [1], b"\1\0\0\0\xff"]],
    "string_surrogate": [["x", "string", [1], b"\3\0\0\0\xed\xa0\x80"]],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_tensors_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        decode_tensors(canonical(MALFORMED[name]))


@pytest.mark.parametrize(
    "rows",
    [
        [["b", *ROW[1:]], ["a", *ROW[1:]]],
        [ROW, ROW],
        [["", *ROW[1:]]],
        [["x", "bool", [1], b"\2"]],
        [["x", "bool", [2, 2], b"\0\1\xff\0"]],
    ],
    ids=["unsorted", "twice", "unnamed", "bool_2", "bool_255"],
)
def test_a_second_spelling_of_tensors_is_refused(rows: Any) -> None:
    with pytest.raises(NonCanonical):
        decode_tensors(canonical(rows))


def _spellings() -> list[Any]:
    value = [["a", "uint8", [1], b"\0"], ["b", "string", [], b"\1\0\0\0x"]]
    return [pytest.param(data, id=label) for label, data in misspellings(value)]


@pytest.mark.parametrize("data", _spellings())
def test_a_second_spelling_of_the_container_is_refused(data: bytes) -> None:
    with pytest.raises(NonCanonical):
        decode_tensors(data)


@pytest.mark.parametrize("name", samples.TENSORS)
def test_every_truncation_and_trailing_byte_is_refused(name: str) -> None:
    data = encode_tensors(samples.TENSORS[name])
    for other in (*(data[:length] for length in range(len(data))), data + b"\0"):
        with pytest.raises(Malformed):
            decode_tensors(other)


def test_what_is_above_a_limit_is_refused_before_it_is_packed() -> None:
    huge = np.broadcast_to(np.zeros(1, np.uint8), (PAYLOAD_BYTES + 1,))
    wide = np.broadcast_to(np.zeros(1, np.float64), (PAYLOAD_BYTES // 4,))
    many = np.broadcast_to(np.array("", object), (STRING_ITEMS + 1,))
    for tensors in (
        {"x": huge},
        {"x": wide},
        {"x": np.zeros((1 << 20, 0, 1 << 20))},
        {"x": many},
        {f"{i}": np.zeros(0) for i in range(TENSORS + 1)},
        {"x": np.array(["x" * (STRING_ITEM_BYTES + 1)], object)},
    ):
        with pytest.raises(LimitExceeded):
            encode_tensors(tensors)


def test_many_strings_over_many_tensors_end_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "STRING_ITEMS", 3)
    assert len(decode_tensors(canonical([["a", "string", [3], bytes(12)]]))) == 1
    with pytest.raises(TooLarge):
        decode_tensors(canonical([["a", "string", [2], bytes(8)], ["b", "string", [2], bytes(8)]]))


def _decoded(decode: Any, data: bytes) -> Any:
    try:
        found = decode(data)
    except CocoonError as error:
        return error.code, error.text
    return {name: (array.dtype, array.shape, array.tolist()) for name, array in found.items()}


_FORMS = [
    {"a": np.arange(4, dtype="i2")}, {"b": np.arange(4, dtype="i2")}, {"a": np.arange(4, dtype="u2")},
    {"a": np.arange(4, dtype="i2").reshape(2, 2)}, {"a": np.zeros(2, "i2"), "b": np.ones(1, "f4")},
    {"a": np.array(["x", "yz"], object)}, {"a": np.array(["xyz", ""], object)}, {"a": np.array([True])}, {},
]
_SENT = [*map(encode_tensors, _FORMS), one("bool", [1], b"\2", "a"), b"", b"\x91"]
#: A byte of one of them, changed: what is as long and not alike.
_flips = st.tuples(st.sampled_from(_SENT), st.integers(0, 40), st.integers(0, 255)).map(
    lambda flip: flip[0][: flip[1]] + bytes(flip[0][flip[1] : flip[1] + 1] and [flip[2]]) + flip[0][flip[1] + 1 :]
)


@given(st.lists(st.sampled_from(_SENT) | _flips, max_size=8))
@example([_SENT[0], _SENT[1], _SENT[2], _SENT[3]])
@example([_SENT[7], _SENT[9], _SENT[7]])
def test_a_decoder_that_remembers_a_form_reads_what_one_without_memory_reads(payloads: list[bytes]) -> None:
    decoder = TensorDecoder()
    for payload in payloads:
        assert _decoded(lambda data: decoder.decode(memoryview(data)), payload) == _decoded(decode_tensors, payload)


def test_the_largest_raw_bytes_are_found_without_numpy() -> None:
    tensors = {"a": np.arange(2, dtype="u1"), "b": np.arange(300, dtype="u2"), "c": np.array(["text"], object)}
    payload = encode_tensors(tensors)
    assert payload[largest_raw(payload) :].startswith(tensors["b"].tobytes())
    assert largest_raw(encode_tensors({})) == 0
    with pytest.raises(Malformed):
        largest_raw(payload[:-1])
