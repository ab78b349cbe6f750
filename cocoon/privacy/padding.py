"""Padding: sizes on the wire say a class, not a length.

A payload gets its true length (u32, big-endian) in front and zeros behind, up
to the next multiple of an eighth of its leading power of two, at least 1 KiB.
Eight classes per doubling cost at most 12.5 % and tell an observer 3 bits
beyond the order of magnitude. Every class of large ones is a little wider: tensors
have the sizes of powers of two, and the message around one would put it into the next.

Purity: pure. Spec: docs/spec/sealing.md, rules SEA-4 and SEA-5.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.errors import NonCanonical, UsageError
from cocoon.core.limits import PADDING_FLOOR_BYTES, PADDING_MARGIN_BYTES
from cocoon.core.pieces import Piece

#: The true length in front of every padded payload.
PREFIX_BYTES = 4
_CLASSES_PER_DOUBLING = 8
#: Longer ones have the margin: it is less than a sixtieth of them.
_LARGE_BYTES = 64 * PADDING_MARGIN_BYTES


def padded_bytes(length: int) -> int:
    """Size of a payload of ``length`` bytes on the wire, prefix included; ``length`` below 4 GiB.

    Raises:
        UsageError: the length does not fit its prefix.
    """
    if not 0 <= length < 1 << 32:
        raise UsageError(f"{length} bytes cannot be padded; a payload has less than 4 GiB")
    needed = max(length + PREFIX_BYTES, PADDING_FLOOR_BYTES)
    margin = PADDING_MARGIN_BYTES if needed > _LARGE_BYTES else 0
    held = needed - margin
    step = (1 << (held.bit_length() - 1)) // _CLASSES_PER_DOUBLING
    return -(-held // step) * step + margin


def padded(pieces: Sequence[Piece]) -> list[Piece]:
    """Prefix, payload and zeros, in pieces; copies nothing."""
    length = sum(map(len, pieces))
    zeros = bytes(padded_bytes(length) - PREFIX_BYTES - length)
    return [length.to_bytes(PREFIX_BYTES, "big"), *pieces, zeros]


def pad(payload: Piece) -> bytes:
    """Prefix, payload and zeros; copies the payload once."""
    return b"".join(padded([payload]))


def declared_bytes(padded: Piece) -> int:
    """The true length that the first bytes of a padded payload claim; at least 4 bytes are needed."""
    if len(padded) < PREFIX_BYTES:
        raise NonCanonical(f"{len(padded)} bytes hold no length prefix of {PREFIX_BYTES}")
    return int.from_bytes(padded[:PREFIX_BYTES], "big")


def unpadded(data: memoryview, start: int, length: int) -> memoryview:
    """What ``data``, which stands at ``start`` of a padded payload, has of its ``length`` bytes; no copy.

    Raises:
        NonCanonical: padding that is not zero (a hidden channel, and a second spelling of one payload).
    """
    begin, end = max(PREFIX_BYTES - start, 0), max(PREFIX_BYTES + length - start, 0)
    # Slices compare by memcmp; memoryviews compare item by item.
    if bytes(zeros := data[end:]) != bytes(len(zeros)):
        raise NonCanonical("padding holds something")
    return data[begin:end]


def unpad(padded: Piece) -> bytes:
    """Return the payload of ``pad``; every other spelling is refused.

    Raises:
        NonCanonical: not the size of its class, or padding that is not zero.
    """
    length = declared_bytes(padded)
    if len(padded) != padded_bytes(length):
        raise NonCanonical(f"{len(padded)} padded bytes for a payload of {length}")
    return bytes(unpadded(memoryview(padded), 0, length))
