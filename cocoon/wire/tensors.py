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
from collections.abc import Mapping
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
from cocoon.wire.codec import Reader, checked_utf8, pack_plain

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
    if len(tensors) > TENSORS:
        raise LimitExceeded(f"{len(tensors)} tensors where at most {TENSORS} are allowed")
    rows = [_row(name, np.asarray(tensors[name])) for name in sorted(tensors, key=_checked_name)]
    if (size := sum(len(row[3]) for row in rows)) > PAYLOAD_BYTES:
        raise LimitExceeded(f"tensors of {size} bytes where at most {PAYLOAD_BYTES} are allowed")
    packed = pack_plain(rows)
    if len(packed) > PAYLOAD_BYTES:
        raise LimitExceeded(f"tensors of {len(packed)} bytes where at most {PAYLOAD_BYTES} are allowed")
    return packed


def decode_tensors(data: bytes) -> dict[str, Array]:
    """Named arrays from their canonical bytes, names ascending.

    Returns:
        Read-only arrays in native byte order, views of ``data`` where alignment
        allows; text as object arrays of ``str``.

    Raises:
        TooLarge, NonCanonical, Malformed: no canonical tensors.
        DtypeUnsupported: a dtype that is none of ours.
    """
    reader = Reader(data, PAYLOAD_BYTES)
    found: dict[str, Array] = {}
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
        raw = reader.view(PAYLOAD_BYTES)
        if dtype == STRING:
            strings_left -= math.prod(shape)
            if strings_left < 0:
                raise TooLarge(f"more than {STRING_ITEMS} strings")
            found[name] = _strings(name, shape, raw)
        else:
            found[name] = _numbers(name, dtype, shape, raw)
        last = name
    reader.end()
    return found


def _row(name: str, array: Array) -> list[Any]:
    if array.ndim > TENSOR_RANK or math.prod(max(d, 1) for d in array.shape) > _ELEMENTS_MAX:
        raise LimitExceeded(f"tensor {name!r:.40} of shape {array.shape} is above the limits")
    if array.dtype.kind in "OUT":
        return [name, STRING, list(array.shape), _string_bytes(name, array)]
    dtype = _numeric(name, array.dtype.name)
    flat = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)
    if array.dtype.kind == "b":
        # A bool that was made by a cast of memory may hold any byte; numpy reads it as true.
        flat = (flat != 0).view(np.uint8)
    return [name, array.dtype.name, list(array.shape), flat.data]


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


def _checked_name(name: str) -> bytes:
    if not isinstance(name, str) or not 0 < len(name) <= TENSOR_NAME_CHARS:
        raise UsageError(f"a tensor's name has 1 to {TENSOR_NAME_CHARS} characters, unlike {name!r:.40}")
    return checked_utf8(name)


def _read_shape(reader: Reader) -> tuple[int, ...]:
    shape = tuple(reader.uint(_ELEMENTS_MAX) for _ in range(reader.array(TENSOR_RANK)))
    if math.prod(max(d, 1) for d in shape) > _ELEMENTS_MAX:
        raise TooLarge(f"a tensor of shape {shape} has more than {_ELEMENTS_MAX} elements")
    return shape


def _numbers(name: str, dtype_name: str, shape: tuple[int, ...], raw: memoryview) -> Array:
    dtype = _numeric(name, dtype_name)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise Malformed(f"tensor {name!r:.40} of {dtype_name} {shape} in {len(raw)} bytes")
    array: Array = np.frombuffer(raw, dtype=dtype).reshape(shape)
    if dtype.kind == "b" and array.size and int(array.view(np.uint8).max()) > 1:
        raise NonCanonical(f"tensor {name!r:.40} holds a boolean that is neither 0 nor 1")
    if not array.flags.aligned or not dtype.isnative:
        # Engines compute on these arrays and may use aligned loads.
        array = array.astype(dtype.newbyteorder("="))
        array.flags.writeable = False
    return array


def _strings(name: str, shape: tuple[int, ...], raw: memoryview) -> Array:
    count = math.prod(shape)
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
    return array.reshape(shape)
