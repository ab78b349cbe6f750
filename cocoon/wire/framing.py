"""Frames on a byte stream: a u32 big-endian length, then that many bytes.

The length is compared with the limit before anything is kept, so a peer that
announces 2 GiB costs four bytes.

Purity: pure. Spec: docs/spec/wire.md, rules WIR-17 and WIR-18.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from cocoon.core.errors import Malformed, TooLarge, UsageError
from cocoon.core.limits import PAYLOAD_FIELDS_BYTES, TOGETHER_BYTES
from cocoon.core.pieces import P, Piece, coalesced
from cocoon.core.units import KIB

T = TypeVar("T")

PREFIX_BYTES = 4
_LENGTH_MAX = (1 << 32) - 1
#: Shorter pieces of a stream are put together as they come.
_SMALL_PIECE_BYTES = 4 * KIB
#: There is room for a frame of such a length as soon as its prefix has come.
_IN_PLACE_BYTES = range(64 * KIB, 512 * KIB)


def frame(payload: bytes) -> bytes:
    """``payload`` with its length in front.

    Raises:
        UsageError: 4 GiB or more.
    """
    if len(payload) > _LENGTH_MAX:
        raise UsageError(f"a frame of {len(payload)} bytes has no u32 length")
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def framed(pieces: Iterable[P]) -> list[P | bytes]:
    """The frame of what ``pieces`` are together, in pieces: what is large stays where it lies; raises as ``frame``."""
    parts: list[P | bytes] = [b"", *pieces]
    length = sum(map(len, parts))
    if length > _LENGTH_MAX:
        raise UsageError(f"a frame of {length} bytes has no u32 length")
    parts[0] = length.to_bytes(PREFIX_BYTES, "big")
    return coalesced(parts)


def frame_length(prefix: bytes, max_bytes: int) -> int:
    """The length that a 4-byte prefix announces, for shells that read exactly.

    Raises:
        TooLarge: above ``max_bytes``.
    """
    length = int.from_bytes(prefix, "big")
    if length > max_bytes:
        raise TooLarge(f"a frame of {length} bytes was announced where at most {max_bytes} are allowed")
    return length


def together(items: Iterable[T], size_bytes: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut into parts that travel as one frame of the control socket. No more is taken than what was given."""
    part: list[T] = []
    left_bytes = TOGETHER_BYTES
    for item in items:
        part.append(item)
        left_bytes -= size_bytes(item) + PAYLOAD_FIELDS_BYTES
        if left_bytes <= 0:
            yield part
            part, left_bytes = [], TOGETHER_BYTES
    if part:
        yield part


class Arrived:
    """Bytes of a stream that came and were not taken yet, in the pieces in which they came.

    A frame in several pieces is copied once, when it is whole; what is written into its ``room``, not even once.
    """

    __slots__ = ("_pieces", "_at", "_size_bytes", "_begun", "_written", "_spare")

    def __init__(self) -> None:
        """Nothing came."""
        self._pieces: deque[bytes | bytearray] = deque()
        #: How much of the first piece was taken.
        self._at = 0
        self._size_bytes = 0
        #: The frame that has room of its own, and how much of it came.
        self._begun: bytearray | None = None
        #: Memory of such a frame that nobody reads any more.
        self._spare: bytearray | None = None
        self._written = 0

    def __len__(self) -> int:
        """Bytes that may be taken, or will be."""
        return self._size_bytes + self._written

    def room(self) -> memoryview | None:
        """Where what comes next may be written, which ``wrote`` tells then; None where it has to be added."""
        return None if self._begun is None else memoryview(self._begun)[self._written :]

    def wrote(self, count: int) -> None:
        """So much was written into ``room``."""
        self._written += count

    def add(self, data: bytes) -> None:
        """More came."""
        if (room := self.room()) is not None:
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.wrote(count)
            data = bytes(data[count:])
        self._size_bytes += len(data)
        if self._pieces and len(data) < _SMALL_PIECE_BYTES and len(last := self._pieces[-1]) < _SMALL_PIECE_BYTES:
            # Each piece of its own would let a stranger who sends byte by byte take forty times what he sends.
            self._pieces[-1] = last if isinstance(last, bytearray) else bytearray(last)
            self._pieces[-1] += data
        elif data:
            self._pieces.append(data)

    def frame(self, max_bytes: int) -> bytes | bytearray | None:
        """Take the next frame if it is whole.

        Raises:
            TooLarge: it is announced longer than ``max_bytes``; nothing was taken.
        """
        if self._begun is not None:
            frame_length(len(self._begun).to_bytes(PREFIX_BYTES, "big"), max_bytes)     # it may be less than it was
            return self._finished(self._begun)
        if self._size_bytes < PREFIX_BYTES:
            return None
        length = frame_length(self._peek(PREFIX_BYTES), max_bytes)
        if self._size_bytes < PREFIX_BYTES + length:
            if length in _IN_PLACE_BYTES:
                self._begin(length)
            return None
        self._drop(PREFIX_BYTES)
        data = self._peek(length)
        self._drop(length)
        return data

    def give_back(self, frame: Piece) -> None:
        """Nobody reads this frame any more: the next one of its length may come to where it lies."""
        if isinstance(frame, bytearray):
            self._spare = frame

    def clear(self) -> None:
        """Forget it all."""
        self._pieces.clear()
        self._at = self._size_bytes = self._written = 0
        self._begun = None

    def _begin(self, length: int) -> None:
        self._drop(PREFIX_BYTES)
        came, spare, self._spare = self._size_bytes, self._spare, None
        self._begun = spare if spare is not None and len(spare) == length else bytearray(length)
        self._begun[:came] = self._peek(came)
        self._drop(came)
        self._written = came

    def _finished(self, begun: bytearray) -> bytearray | None:
        if self._written < len(begun):
            return None
        self._begun, self._written = None, 0
        return begun

    def _peek(self, count: int) -> bytes:
        """The first ``count`` bytes, which are there."""
        if not count:
            return b""
        begin, first = self._at, self._pieces[0]
        if begin + count <= len(first):
            return bytes(first[begin : begin + count])
        parts, left = [memoryview(first)[begin:]], count - (len(first) - begin)
        for piece in islice(self._pieces, 1, None):
            parts.append(memoryview(piece)[:left])
            left -= len(parts[-1])
            if not left:
                break
        return b"".join(parts)

    def _drop(self, count: int) -> None:
        self._size_bytes -= count
        self._at += count
        while self._pieces and self._at >= len(self._pieces[0]):
            self._at -= len(self._pieces.popleft())


class FrameParser:
    """Cuts an incoming byte stream into frames, however the bytes arrive.

    Holds less than one frame between calls. After a ``TooLarge`` the stream has
    no meaning any more and every further call raises again.
    """

    __slots__ = ("_max_bytes", "_arrived")

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: longest payload accepted."""
        self._max_bytes = max_bytes
        self._arrived = Arrived()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the payloads that they complete, in order.

        Raises:
            TooLarge: a frame above ``max_bytes`` was announced; drop the stream.
        """
        complete: list[bytes] = []
        if not self._arrived:                           # mostly a read brings whole frames
            at = 0
            while (begin := at + PREFIX_BYTES) <= len(data):
                length = int.from_bytes(data[at:begin], "big")
                if length > self._max_bytes or begin + length > len(data):
                    break
                at = begin + length
                complete.append(data[begin:at])
            if at == len(data):
                return complete
            data = data[at:]
        self._arrived.add(data)
        while (payload := self._arrived.frame(self._max_bytes)) is not None:
            complete.append(bytes(payload))
        return complete

    def end(self) -> None:
        """The stream has ended; refuse if it was inside a frame.

        Raises:
            Malformed: truncated frame.
        """
        if self._arrived:
            raise Malformed(f"the stream ended inside a frame, after {len(self._arrived)} of its bytes")
