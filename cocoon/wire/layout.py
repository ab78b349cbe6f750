"""What lies where in the canonical form of tensors, for who moves tensors without numpy.

Purity: pure. Spec: docs/spec/tensors.md, rule TEN-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from struct import calcsize, unpack_from

from cocoon.core.errors import Malformed
from cocoon.core.limits import PAYLOAD_BYTES, TENSOR_NAME_CHARS, TENSOR_RANK, TENSORS
from cocoon.core.pieces import Piece
from cocoon.wire.codec import Reader

_DTYPE_CHARS = 16
#: Dtypes of whole numbers, as ``struct`` names them.
_WHOLE = dict(zip(
    ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"), "bhiqBHIQ", strict=True
))
#: Name, dtype, and the length of each axis.
Shape = tuple[str, str, tuple[int, ...]]


class Heads:
    """All of a payload but its raw bytes: another one that fits has the same names, dtypes and lengths."""

    __slots__ = ("_size_bytes", "_parts")

    def __init__(self, payload: Piece, raws: Iterable[tuple[int, int]]) -> None:
        """``raws``: where raw bytes begin and end, ascending."""
        self._size_bytes = len(payload)
        self._parts: list[tuple[int, int, bytes]] = []
        at = 0
        for begin, end in (*raws, (len(payload), len(payload))):
            if at < begin:
                self._parts.append((at, begin, bytes(payload[at:begin])))
            at = end

    def fit(self, payload: Piece) -> bool:
        """Whether all of this one but its raw bytes is the same."""
        if len(payload) != self._size_bytes:
            return False
        for at, end, head in self._parts:               # noqa: SIM110 (a generator costs more than the comparison)
            if payload[at:end] != head:
                return False
        return True


def largest_raw(payload: bytes | memoryview) -> int:
    """Offset of the longest raw bytes; 0 if there are none.

    Raises:
        TooLarge, NonCanonical, Malformed: no canonical tensors; not all of these are noticed.
    """
    found, longest = 0, 0
    for _, begin, end in _tensors(payload):
        if end - begin > longest:
            found, longest = begin, end - begin
    return found


def shapes(payload: bytes | memoryview) -> list[Shape]:
    """Of each tensor, in their order; raises as ``largest_raw``."""
    return [shape for shape, _, _ in _tensors(payload)]


def laid_out(payload: bytes | memoryview) -> tuple[list[Shape], Heads]:
    """The same, and what tells other payloads of these shapes; raises as ``largest_raw``."""
    found = list(_tensors(payload))
    return [shape for shape, _, _ in found], Heads(payload, [(begin, end) for _, begin, end in found])


def numbers(payload: bytes, most: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The items of these tensors of whole numbers, in their order, at most so many of each.

    A name that is not there, or is no tensor of whole numbers, is left out. Raises as ``largest_raw``.
    """
    found: dict[str, tuple[int, ...]] = {}
    for (name, dtype, lengths), begin, end in _tensors(payload):
        form = _WHOLE.get(dtype)
        if form is None or name not in most or len(lengths) > 1:
            continue
        count = prod(lengths)
        if count > most[name] or count * calcsize(f"<{form}") != end - begin:
            raise Malformed(f"tensor {name!r:.40} of {dtype} {lengths} in {end - begin} bytes")
        found[name] = unpack_from(f"<{count}{form}", payload, begin)
    return found


def _tensors(payload: bytes | memoryview) -> Iterator[tuple[Shape, int, int]]:
    """Each with the offsets where its raw bytes begin and end."""
    reader = Reader(payload, PAYLOAD_BYTES)
    for _ in range(reader.array(TENSORS)):
        reader.array(4)
        name, dtype = reader.text(TENSOR_NAME_CHARS), reader.text(_DTYPE_CHARS)
        lengths = tuple(reader.uint() for _ in range(reader.array(TENSOR_RANK)))
        size_bytes = len(reader.view(PAYLOAD_BYTES))
        yield (name, dtype, lengths), reader.position() - size_bytes, reader.position()
