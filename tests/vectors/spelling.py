"""Every other way to spell a canonical value: an encoder that can be told to be wrong in one place.

Independent of ``cocoon.wire.codec``, so that it can judge it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

#: Header codes by length of the length: text, bytes, array, map.
_TEXT = {1: 0xD9, 2: 0xDA, 4: 0xDB}
_BYTES = {1: 0xC4, 2: 0xC5, 4: 0xC6}
_ARRAY = {2: 0xDC, 4: 0xDD}
_MAP = {2: 0xDE, 4: 0xDF}
_UINT = {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}
_INT = {1: 0xD0, 2: 0xD1, 4: 0xD2, 8: 0xD3}


def kind_of(data: bytes) -> int:
    """The kind number of a packed message, signed or not."""
    return int(msgpack.unpackb(data, strict_map_key=False)[0])


def canonical(value: Any) -> bytes:
    """The shortest spelling; maps in the order given."""
    return forms(value)[0][1]


def forms(value: Any) -> list[tuple[str, bytes]]:
    """All spellings of the outermost header of ``value``, shortest first, its parts canonical."""
    if value is True or value is False:
        return [("bool", b"\xc3" if value else b"\xc2")]
    if isinstance(value, int):
        return _integer_forms(value)
    if isinstance(value, str):
        raw = value.encode()
        return _length_forms("text", len(raw), 0xA0, 31, _TEXT, raw)
    if isinstance(value, bytes):
        return _length_forms("bytes", len(value), 0, -1, _BYTES, value)
    if isinstance(value, list):
        return _length_forms("array", len(value), 0x90, 15, _ARRAY, b"".join(map(canonical, value)))
    pairs = b"".join(canonical(k) + canonical(v) for k, v in value.items())
    return _length_forms("map", len(value), 0x80, 15, _MAP, pairs)


def _integer_forms(value: int) -> list[tuple[str, bytes]]:
    found = [("fix", struct.pack("b", value))] if -32 <= value < 128 else []
    for width, code in _UINT.items():
        if 0 <= value < 1 << (8 * width):
            found.append((f"uint{8 * width}", bytes([code]) + value.to_bytes(width, "big")))
    for width, code in _INT.items():
        if -(1 << (8 * width - 1)) <= value < 1 << (8 * width - 1):
            found.append((f"int{8 * width}", bytes([code]) + value.to_bytes(width, "big", signed=True)))
    return found


def _length_forms(
    name: str, length: int, fix: int, fix_max: int, codes: dict[int, int], rest: bytes
) -> list[tuple[str, bytes]]:
    found = [(f"fix{name}", bytes([fix | length]) + rest)] if length <= fix_max else []
    for width, code in codes.items():
        if length < 1 << (8 * width):
            found.append((f"{name}{8 * width}", bytes([code]) + length.to_bytes(width, "big") + rest))
    return found


def misspellings(value: Any, at: str = "") -> Iterator[tuple[str, bytes]]:
    """Every spelling of ``value`` with exactly one part in a form that is not canonical, with a label."""
    for label, data in forms(value)[1:]:
        yield f"{at or 'all'}:{label}", data
    if isinstance(value, list):
        for index, item in enumerate(value):
            for label, data in misspellings(item, f"{at}/{index}"):
                yield label, _spliced([canonical(v) for v in value], index, data, _array_header(len(value)))
    if isinstance(value, dict):
        yield from _map_misspellings(value, at)


def _map_misspellings(value: dict[Any, Any], at: str) -> Iterator[tuple[str, bytes]]:
    parts = [part for pair in value.items() for part in map(canonical, pair)]
    header = _map_header(len(value))
    for index, (key, item) in enumerate(value.items()):
        for label, data in misspellings(key, f"{at}/key{key}"):
            yield label, _spliced(parts, 2 * index, data, header)
        for label, data in misspellings(item, f"{at}/{key}"):
            yield label, _spliced(parts, 2 * index + 1, data, header)
        pair = parts[2 * index : 2 * index + 2]
        yield f"{at}/{key}:duplicated", _map_header(len(value) + 1) + b"".join(
            parts[: 2 * index] + pair + parts[2 * index :]
        )
        if index:
            before, previous = parts[: 2 * index - 2], parts[2 * index - 2 : 2 * index]
            swapped = before + pair + previous + parts[2 * index + 2 :]
            yield f"{at}/{key}:swapped", header + b"".join(swapped)


def _array_header(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def _map_header(count: int) -> bytes:
    return bytes([0x80 | count]) if count < 16 else b"\xde" + count.to_bytes(2, "big")


def _spliced(parts: list[bytes], index: int, data: bytes, header: bytes) -> bytes:
    return header + b"".join(parts[:index]) + data + b"".join(parts[index + 1 :])
