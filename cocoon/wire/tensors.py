"""The canonical form of named tensors: what a run's inputs and outputs are as bytes.

A canonical msgpack array with one ``[name, dtype, shape, raw]`` per tensor, names
strictly ascending. ``raw`` is little-endian in C order; of a string tensor it
is, item by item, a u32 little-endian length and UTF-8, so a trailing NUL
survives and nothing is ever pickled.

The only module of ``wire`` that imports numpy.

Purity: pure. Spec: docs/spec/tensors.md, rules TEN-1 to TEN-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoon.core.errors import DtypeUnsupported, LimitExceeded, Malformed, NonCanonical, TooLarge, UsageError
from cocoon.core.limits import (
    PAYLOAD_BYTES,
    STRING_ITEM_BYTES,
    STRING_ITEMS,
    TENSOR_NAME_CHARS,
    TENSOR_RANK,
    TENSORS,
)
from cocoon.core.pieces import Piece
from cocoon.core.values import Value
from cocoon.wire.codec import Reader, array_header, bytes_header, checked_utf8, pack_plain
from cocoon.wire.layout import Heads

Array = NDArray[Any]

STRING = "string"
#: Name on the wire -> little-endian numpy dtype.
NUMERIC: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
}
#: Back again; a dtype computes its own name anew each time.
DTYPE_NAMES = {dtype: name for name, dtype in NUMERIC.items()}
_DTYPE_CHARS = 16
_LENGTH_BYTES = 4
#: Product of the non-zero dimensions; an empty tensor may not name a shape that numpy cannot hold.
_ELEMENTS_MAX = PAYLOAD_BYTES


def encode_tensors(tensors: Mapping[str, Array]) -> bytes:
    """The canonical bytes of named arrays; the order of the mapping does not matter.

    Args:
        tensors: Arrays of any layout and byte order. Text is an object array of
            ``str`` or a ``U`` array (which has lost its trailing NULs already).

    Raises:
        DtypeUnsupported: bfloat16, float8, complex, bytes, objects that are not str...
        LimitExceeded: more than ``PAYLOAD_BYTES``, or too many tensors, dimensions, strings.
        UsageError: an impossible name.
    """
    return b"".join(tensor_pieces(tensors))


def tensor_pieces(tensors: Mapping[str, Array]) -> list[bytes | memoryview]:
    """What ``encode_tensors`` returns, in pieces: what stands before a tensor's raw bytes, and these where they lie.

    Raises:
        As ``encode_tensors``.
    """
    if len(tensors) > TENSORS:
        raise LimitExceeded(f"{len(tensors)} tensors where at most {TENSORS} are allowed")
    pieces: list[bytes | memoryview] = [array_header(len(tensors))]
    for name in sorted(tensors, key=_checked_name):
        array = np.asarray(tensors[name])
        dtype, raw = _raw(name, array)
        pieces += (_head(name, dtype, array.shape, len(raw)), raw)
    if (size := sum(map(len, pieces))) > PAYLOAD_BYTES:
        raise LimitExceeded(f"tensors of {size} bytes where at most {PAYLOAD_BYTES} are allowed")
    return pieces


def raw_offsets(forms: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[dict[str, int], int]:
    """Where raw bytes begin in the canonical form of numeric tensors of these dtypes and shapes, and its length."""
    offsets: dict[str, int] = {}
    at = len(array_header(len(forms)))
    for name in sorted(forms, key=_checked_name):
        dtype, shape = forms[name]
        size_bytes = math.prod(shape) * _numeric(name, dtype).itemsize
        offsets[name] = at + len(_head(name, dtype, shape, size_bytes))
        at = offsets[name] + size_bytes
    return offsets, at


def decode_tensors(data: Piece, *, copied: bool = False) -> dict[str, Array]:
    """Named arrays from their canonical bytes, names ascending.

    Args:
        copied: None is a view of ``data``, which may change later.

    Returns:
        Read-only arrays in native byte order, views of ``data`` where alignment
        allows; text as object arrays of ``str``.

    Raises:
        TooLarge, NonCanonical, Malformed: no canonical tensors.
        DtypeUnsupported: a dtype that is none of ours.
    """
    return _arrays(_places(data), memoryview(data), copied)


class TensorDecoder:
    """``decode_tensors`` for many payloads of one form, whose heads are read once.

    What stands before the raw bytes says all about the form; so two payloads with
    the same heads at the same places, and of the same length, are laid out alike.
    """

    def __init__(self) -> None:
        """Nothing was read yet."""
        #: How often heads were read: while it stays, payloads are of one form.
        self.reads = 0
        self._places: list[_Place] = []
        self._heads: Heads | None = None

    def decode(self, data: Piece, *, copied: bool = False) -> dict[str, Array]:
        """As ``decode_tensors``."""
        data = memoryview(data)
        if self._heads is None or not self._heads.fit(data):
            self._heads = None
            self.reads += 1
            self._places = _places(data)
            self._heads = Heads(data, [(place.at, place.end) for place in self._places])
        return _arrays(self._places, data, copied)


class _Place(Value):
    """One tensor, and where its raw bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    at: int
    end: int


def _places(data: Piece) -> list[_Place]:
    reader = Reader(data, PAYLOAD_BYTES)
    found: list[_Place] = []
    strings_left = STRING_ITEMS
    last = ""
    for _ in range(reader.array(TENSORS)):
        if reader.array(4) != 4:
            raise Malformed("a tensor is an array of name, dtype, shape and raw bytes")
        name = reader.text(TENSOR_NAME_CHARS)
        if name <= last:
            raise NonCanonical(f"tensor name {name!r:.40} is empty or does not ascend")
        dtype = reader.text(_DTYPE_CHARS)
        shape = _read_shape(reader)
        size_bytes = len(reader.view(PAYLOAD_BYTES))
        if dtype == STRING:
            strings_left -= math.prod(shape)
            if strings_left < 0:
                raise TooLarge(f"more than {STRING_ITEMS} strings")
        elif math.prod(shape) * _numeric(name, dtype).itemsize != size_bytes:
            raise Malformed(f"tensor {name!r:.40} of {dtype} {shape} in {size_bytes} bytes")
        found.append(_Place(name, dtype, shape, reader.position() - size_bytes, reader.position()))
        last = name
    reader.end()
    return found


def _arrays(places: Sequence[_Place], data: memoryview, copied: bool = False) -> dict[str, Array]:
    return {
        place.name: _strings(place, data[place.at : place.end]) if place.dtype == STRING
        else _numbers(place, data, copied)
        for place in places
    }


@lru_cache(maxsize=1_024)
def _head(name: str, dtype: str, shape: tuple[int, ...], size_bytes: int) -> bytes:
    """What stands before the raw bytes of a tensor; outputs of one model have the same again and again."""
    # The same three items in an array of four, whose header is one byte too.
    return array_header(4) + pack_plain([name, dtype, shape])[1:] + bytes_header(size_bytes)


def _raw(name: str, array: Array) -> tuple[str, bytes | memoryview]:
    """Dtype name and raw bytes."""
    elements = array.size or math.prod(max(d, 1) for d in array.shape)
    if array.ndim > TENSOR_RANK or elements > _ELEMENTS_MAX:
        raise LimitExceeded(f"tensor {name!r:.40} of shape {array.shape} is above the limits")
    dtype_name = DTYPE_NAMES.get(array.dtype)
    if dtype_name is None and array.dtype.kind in "OUT":
        return STRING, _string_bytes(name, array)
    if dtype_name is None or not array.flags.c_contiguous:
        dtype_name = dtype_name or array.dtype.name
        array = np.ascontiguousarray(array, dtype=_numeric(name, dtype_name))
    if dtype_name == "bool":
        # A bool that was made by a cast of memory may hold any byte; numpy reads it as true.
        array = array.view(np.uint8) != 0
    return dtype_name, array.data.cast("B") if array.size else b""


def _numeric(name: str, dtype_name: str) -> np.dtype[Any]:
    if (dtype := NUMERIC.get(dtype_name)) is not None:
        return dtype
    carried = ", ".join((*NUMERIC, STRING))
    raise DtypeUnsupported(f"tensor {name!r:.40} is {dtype_name:.40}; carried are {carried}")


def _string_bytes(name: str, array: Array) -> bytes:
    if array.size > STRING_ITEMS:
        raise LimitExceeded(f"tensor {name!r:.40} has {array.size} strings, more than {STRING_ITEMS}")
    parts: list[bytes] = []
    for item in array.reshape(-1).tolist():
        if not isinstance(item, str):
            raise DtypeUnsupported(f"tensor {name!r:.40} holds a {type(item).__name__}, not only text")
        raw = checked_utf8(item)
        if len(raw) > STRING_ITEM_BYTES:
            raise LimitExceeded(f"a string of {len(raw)} bytes where at most {STRING_ITEM_BYTES} are allowed")
        parts += (len(raw).to_bytes(_LENGTH_BYTES, "little"), raw)
    return b"".join(parts)


@lru_cache(maxsize=1_024)
def _checked_name(name: str) -> bytes:
    if not isinstance(name, str) or not 0 < len(name) <= TENSOR_NAME_CHARS:
        raise UsageError(f"a tensor's name has 1 to {TENSOR_NAME_CHARS} characters, unlike {name!r:.40}")
    return checked_utf8(name)


def _read_shape(reader: Reader) -> tuple[int, ...]:
    shape = tuple(reader.uint(_ELEMENTS_MAX) for _ in range(reader.array(TENSOR_RANK)))
    if math.prod(max(d, 1) for d in shape) > _ELEMENTS_MAX:
        raise TooLarge(f"a tensor of shape {shape} has more than {_ELEMENTS_MAX} elements")
    return shape


def _numbers(place: _Place, data: memoryview, copied: bool) -> Array:
    dtype = NUMERIC[place.dtype]
    array: Array = np.ndarray(place.shape, dtype, data, place.at)
    if dtype.kind == "b" and array.size and int(array.view(np.uint8).max()) > 1:
        raise NonCanonical(f"tensor {place.name!r:.40} holds a boolean that is neither 0 nor 1")
    if not array.flags.aligned or not dtype.isnative:
        # Engines compute on these arrays and may use aligned loads.
        array = array.astype(dtype.newbyteorder("="))
    elif copied:
        array = array.copy()
    array.setflags(write=False)
    return array


def _strings(place: _Place, raw: memoryview) -> Array:
    name, count = place.name, math.prod(place.shape)
    if count * _LENGTH_BYTES > len(raw):
        raise Malformed(f"tensor {name!r:.40} of {count} strings in {len(raw)} bytes")
    array: Array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        length = int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        if length > STRING_ITEM_BYTES:
            raise TooLarge(f"a string of {length} bytes where at most {STRING_ITEM_BYTES} are allowed")
        if at + length > len(raw):
            raise Malformed(f"tensor {name!r:.40} ends inside a string")
        try:
            array[index] = str(raw[at : at + length], "utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"tensor {name!r:.40} holds text that is no UTF-8") from None
        at += length
    if at != len(raw):
        raise Malformed(f"tensor {name!r:.40} has {len(raw) - at} bytes after its last string")
    array.flags.writeable = False
    return array.reshape(place.shape)
