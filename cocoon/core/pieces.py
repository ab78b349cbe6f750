"""Bytes in pieces: what is large is passed on where it lies, from the message it is in down to the system.

Purity: pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from cocoon.core.limits import SMALL_PAYLOAD_BYTES

#: Bytes wherever they lie.
Piece = bytes | bytearray | memoryview
#: A whole, or what it is in pieces.
Pieces = Piece | Sequence[Piece]
P = TypeVar("P", bound=Piece)

#: That one call of the system may be given; Linux takes 1,024.
PIECES = 64


def coalesced(pieces: Iterable[P]) -> list[P | bytes]:
    """The same bytes in fewer pieces: what is small is copied together, what is large is not copied."""
    found: list[P | bytes] = []
    waiting: list[P] = []
    for piece in pieces:
        if len(piece) < SMALL_PAYLOAD_BYTES:
            waiting.append(piece)
            continue
        if waiting:
            found.append(b"".join(waiting))
            waiting = []
        found.append(piece)
    if waiting:
        found.append(b"".join(waiting))
    return found


def whole(pieces: Pieces) -> bytes:
    """The same bytes in one piece; what is ``bytes`` already is not copied."""
    return bytes(pieces) if isinstance(pieces, bytes | bytearray | memoryview) else b"".join(pieces)


def unsent(pieces: Iterable[memoryview], sent_bytes: int) -> list[memoryview]:
    """What is left of ``pieces`` when so much of them was taken."""
    left: list[memoryview] = []
    for piece in pieces:
        if sent_bytes < len(piece):
            left.append(piece[sent_bytes:])
        sent_bytes = max(0, sent_bytes - len(piece))
    return left
