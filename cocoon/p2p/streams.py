"""Framed streams: what every protocol of Cocoon speaks over.

``close``, ``reset`` and the loss of the peer wake a blocked ``receive`` or
``send`` at once; in py-libp2p a local close leaves a local reader asleep.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-7.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Protocol

import trio

from cocoon.core.errors import StreamClosed, TooLarge, Unreachable
from cocoon.core.ids import PeerKey
from cocoon.core.limits import CONTROL_FRAME_BYTES, SMALL_PAYLOAD_BYTES
from cocoon.core.pieces import Piece, whole
from cocoon.core.turns import Turn
from cocoon.core.units import KIB, SECOND_NS
from cocoon.wire.framing import Arrived, framed

#: Read at once: a whole sealed frame of the largest size, if it is there. And behind a long frame, because the next one
#: may have room of its own: what says how long that is.
_READ_BYTES, _GLANCE_BYTES = 257 * KIB, 4 * KIB
#: Taken before others get a turn: what comes of them may cost 0.1 ms each.
_FRAMES_AT_A_TIME = 16


class Bytes(Protocol):
    """A byte stream, as ``host.RawStream`` is one. ``wake`` ends what waits there, now or later, with StreamClosed."""

    async def read(self, most: int) -> bytes: ...
    async def read_into(self, room: memoryview) -> int: ...
    def wake(self) -> None: ...
    async def write(self, *pieces: Piece) -> None: ...
    async def close(self) -> None: ...
    async def reset(self) -> None: ...


class PeerStream:
    """Frames to and from ``peer``. One reader and any number of writers at a time."""

    def __init__(self, peer: PeerKey, raw: Bytes) -> None:
        self.peer = peer
        self._raw = raw
        self._arrived = Arrived()
        self._read_bytes = _READ_BYTES
        #: Frames since others could go first.
        self._taken = 0
        self._ended: str | None = None
        self._released = False
        self._send_turn = Turn()
        self._first_ns, self._first_due_s = 0, math.inf

    @property
    def ended(self) -> bool:
        """Closed or reset by us, or its peer was lost."""
        return self._ended is not None

    def expect_first(self, patience_ns: int) -> None:
        """The first frame must come, whole, within ``patience_ns`` of the first ``receive``."""
        self._first_ns = patience_ns

    async def send(self, *payloads: bytes | bytearray) -> None:
        """Send a frame of each, whole, one behind the other. If this is cancelled or fails, the stream is reset.

        Raises:
            StreamClosed: closed, reset, the peer is lost, or it took nothing for ``SEND_STALL_NS``.
        """
        async with self._send_turn:
            self._check_open()
            sent = False
            try:
                await self._raw.write(*chain.from_iterable(framed([payload]) for payload in payloads))
                sent = True
            except StreamClosed as error:
                raise self._why(error) from None
            finally:
                if not sent:
                    # Half a frame may be out; whatever followed could not be understood.
                    await self._end("a frame could not be sent whole", reset=True)

    async def receive(self, max_bytes: int = CONTROL_FRAME_BYTES) -> bytes:
        """As ``take``; a long frame is copied once more."""
        return whole(await self.take(max_bytes))

    async def take(self, max_bytes: int) -> bytes | bytearray:
        """The next frame. May be cancelled at any time without losing a byte.

        Args:
            max_bytes: Longest payload accepted; a longer one is refused before it is read.

        Raises:
            StreamClosed: the stream ended, was reset, or the peer is lost.
            TooLarge: the announced length is above ``max_bytes``; the stream is reset.
            Unreachable: the first frame did not come in time (``expect_first``), and never will.
        """
        if not self._first_ns:
            return await self._next(max_bytes)
        if self._first_due_s == math.inf:
            self._first_due_s = trio.current_time() + self._first_ns / SECOND_NS
        with trio.CancelScope(deadline=self._first_due_s):
            payload = await self._next(max_bytes)
            self._first_ns, self._first_due_s = 0, math.inf
            return payload
        raise Unreachable(f"nothing was said within {self._first_ns / SECOND_NS:g} s on a stream that was opened to us")

    def give_back(self, frame: Piece) -> None:
        """Nobody reads this frame of ``take`` any more: the memory of a long one is used again."""
        self._arrived.give_back(frame)

    async def until_heard(self) -> None:
        """Wait until the other side has said anything; nothing is taken. Raises as ``receive``."""
        if not self._arrived:
            await self._fill()

    async def _next(self, max_bytes: int) -> bytes | bytearray:
        if self._taken >= _FRAMES_AT_A_TIME:            # a thousand small ones may lie here
            self._taken = 0
            await trio.lowlevel.checkpoint()
        try:
            while (payload := self._arrived.frame(max_bytes)) is None:
                await self._fill()
        except TooLarge:
            self._arrived.clear()       # nothing after it can be understood
            await self._end("a frame was too large", reset=True)
            raise
        self._taken += 1
        self._read_bytes = _GLANCE_BYTES if len(payload) >= SMALL_PAYLOAD_BYTES else _READ_BYTES
        return payload

    async def _fill(self) -> None:
        """Wait for more bytes."""
        self._check_open()
        try:
            came = await self._read()
        except StreamClosed as error:
            raise self._why(error) from None
        if not came:
            inside = f", inside a frame after {len(self._arrived)} bytes" if self._arrived else ""
            raise StreamClosed(f"the other side ended the stream{inside}")

    async def _read(self) -> int:
        """How many bytes came; a long frame is read to where it stays."""
        if (room := self._arrived.room()) is None:
            self._arrived.add(data := await self._raw.read(self._read_bytes))
            return len(data)
        self._arrived.wrote(came := await self._raw.read_into(room))
        return came

    def _check_open(self) -> None:
        if self._ended is not None:
            raise StreamClosed(self._ended)

    def _why(self, error: StreamClosed) -> StreamClosed:
        """Why the stream ended, if this side said so first."""
        return error if self._ended is None else StreamClosed(self._ended)

    async def close(self) -> None:
        """End the stream. What was sent is still delivered; blocked calls wake with ``StreamClosed``."""
        await self._end("the stream was closed here", reset=False)

    async def reset(self) -> None:
        """End the stream and discard what is under way."""
        await self._end("the stream was reset here", reset=True)

    def wake(self, reason: str) -> None:
        """The peer is lost: mark the stream ended and wake whoever waits; closes nothing."""
        if self._ended is None:
            self._ended = reason
        self._raw.wake()

    async def _end(self, reason: str, *, reset: bool) -> None:
        self.wake(reason)
        if not self._released:
            self._released = True
            await (self._raw.reset() if reset else self._raw.close())
