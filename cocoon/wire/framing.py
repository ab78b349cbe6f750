"""Frames on a byte stream: a u32 big-endian length, then that many bytes.

The length is compared with the limit before anything is kept, so a peer that
announces 2 GiB costs four bytes.

Purity: pure. Spec: docs/spec/wire.md, rules WIR-17 and WIR-18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cocoon.core.errors import Malformed, TooLarge, UsageError
from cocoon.core.limits import PAYLOAD_FIELDS_BYTES, TOGETHER_BYTES

T = TypeVar("T")

PREFIX_BYTES = 4
_LENGTH_MAX = (1 << 32) - 1


def frame(payload: bytes) -> bytes:
    """``payload`` with its length in front.

    Raises:
        UsageError: 4 GiB or more.
    """
    if len(payload) > _LENGTH_MAX:
        raise UsageError(f"a frame of {len(payload)} bytes has no u32 length")
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def frame_length(prefix: bytes, max_bytes: int) -> int:
    """The length that a 4-byte prefix announces, for shells that read exactly.

    Raises:
        TooLarge: above ``max_bytes``.
    """
    length = int.from_bytes(prefix, "big")
    if length > max_bytes:
        raise TooLarge(f"a frame of {length} bytes was announced where at most {max_bytes} are allowed")
    return length


def together(items: Iterable[T], payload: Callable[[T], bytes]) -> Iterator[list[T]]:
    """Cut into parts that travel as one frame of the control socket. No more is taken than what was given."""
    part: list[T] = []
    left_bytes = TOGETHER_BYTES
    for item in items:
        part.append(item)
        left_bytes -= len(payload(item)) + PAYLOAD_FIELDS_BYTES
        if left_bytes <= 0:
            yield part
            part, left_bytes = [], TOGETHER_BYTES
    if part:
        yield part


class FrameParser:
    """Cuts an incoming byte stream into frames, however the bytes arrive.

    Holds less than one frame between calls. After a ``TooLarge`` the stream has
    no meaning any more and every further call raises again.
    """

    __slots__ = ("_max_bytes", "_kept", "_length")

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: longest payload accepted."""
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the payloads that they complete, in order.

        Raises:
            TooLarge: a frame above ``max_bytes`` was announced; drop the stream.
        """
        self._kept += data
        complete: list[bytes] = []
        at = 0
        while (end := self._end_of_frame(at)) is not None:
            complete.append(bytes(self._kept[at + PREFIX_BYTES : end]))
            self._length = None
            at = end
        del self._kept[:at]
        return complete

    def end(self) -> None:
        """The stream has ended; refuse if it was inside a frame.

        Raises:
            Malformed: truncated frame.
        """
        if self._kept:
            raise Malformed(f"the stream ended inside a frame, after {len(self._kept)} of its bytes")

    def _end_of_frame(self, at: int) -> int | None:
        """Offset behind the frame that begins at ``at``; None while it is incomplete."""
        if self._length is None:
            if len(self._kept) - at < PREFIX_BYTES:
                return None
            self._length = frame_length(bytes(self._kept[at : at + PREFIX_BYTES]), self._max_bytes)
        end = at + PREFIX_BYTES + self._length
        return end if len(self._kept) >= end else None
