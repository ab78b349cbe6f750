"""What lies where in the canonical form of tensors, for who moves tensors without numpy.

Purity: pure. Spec: docs/spec/tensors.md, rule TEN-1.
"""

from __future__ import annotations

from collections.abc import Iterator

from cocoon.core.limits import PAYLOAD_BYTES, TENSOR_NAME_CHARS, TENSOR_RANK, TENSORS
from cocoon.wire.codec import Reader

_DTYPE_CHARS = 16
#: Name, dtype, and the length of each axis.
Shape = tuple[str, str, tuple[int, ...]]


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


def _tensors(payload: bytes | memoryview) -> Iterator[tuple[Shape, int, int]]:
    """Each with the offsets where its raw bytes begin and end."""
    reader = Reader(payload, PAYLOAD_BYTES)
    for _ in range(reader.array(TENSORS)):
        reader.array(4)
        name, dtype = reader.text(TENSOR_NAME_CHARS), reader.text(_DTYPE_CHARS)
        lengths = tuple(reader.uint() for _ in range(reader.array(TENSOR_RANK)))
        size_bytes = len(reader.view(PAYLOAD_BYTES))
        yield (name, dtype, lengths), reader.position() - size_bytes, reader.position()
