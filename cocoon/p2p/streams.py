"""Framed streams: what every protocol of Cocoon speaks over.

``close``, ``reset`` and the loss of the peer wake a blocked ``receive`` or
``send`` at once; in py-libp2p a local close leaves a local reader asleep.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-7.
"""

from __future__ import annotations

import math
from typing import Protocol

import trio

from cocoon.core.errors import StreamClosed, TooLarge, Unreachable
from cocoon.core.ids import PeerKey
from cocoon.core.limits import CONTROL_FRAME_BYTES
from cocoon.core.turns import Turn
from cocoon.core.units import SECOND_NS
from cocoon.wire.framing import Arrived, framed

#: Taken before others get a turn: what comes of them may cost 0.1 ms each.
_FRAMES_AT_A_TIME = 16


class Bytes(Protocol):
    """A byte stream, as ``host.RawStream`` is one."""

    async def read(self) -> bytes: ...
    async def write(self, *pieces: bytes) -> None: ...
    async def close(self) -> None: ...
    async def reset(self) -> None: ...


class PeerStream:
    """Frames to and from ``peer``. One reader and any number of writers at a time."""

    def __init__(self, peer: PeerKey, raw: Bytes) -> None:
        self.peer = peer
        self._raw = raw
        self._arrived = Arrived()
        #: Frames since others could go first.
        self._taken = 0
        self._ended: str | None = None
        self._released = False
        self._waiting: set[trio.CancelScope] = set()
        self._send_turn = Turn()
        self._first_ns, self._first_due_s = 0, math.inf

    @property
    def ended(self) -> bool:
        """Closed or reset by us, or its peer was lost."""
        return self._ended is not None

    def expect_first(self, patience_ns: int) -> None:
        """The first frame must come, whole, within ``patience_ns`` of the first ``receive``."""
        self._first_ns = patience_ns

    async def send(self, payload: bytes) -> None:
        """Send one frame, whole. If this is cancelled or fails, the stream is reset.

        Raises:
            StreamClosed: closed, reset, the peer is lost, or it took nothing for ``SEND_STALL_NS``.
        """
        async with self._send_turn:
            self._check_open()
            sent = False
            try:
                with trio.CancelScope() as scope:
                    self._waiting.add(scope)
                    await self._raw.write(*framed([payload]))
                    sent = True
            finally:
                self._waiting.discard(scope)
                if not sent:
                    # Half a frame may be out; whatever followed could not be understood.
                    await self._end("a frame could not be sent whole", reset=True)
        if not sent:
            raise StreamClosed(self._ended or "the stream was closed")

    async def receive(self, max_bytes: int = CONTROL_FRAME_BYTES) -> bytes:
        """The next frame. May be cancelled at any time without losing a byte.

        Args:
            max_bytes: Longest payload accepted; a longer one is refused before it is read.

        Raises:
            StreamClosed: the stream ended, was reset, or the peer is lost.
            TooLarge: the announced length is above ``max_bytes``; the stream is reset.
            Unreachable: the first frame did not come in time (``expect_first``), and never will.
        """
        if self._first_ns and self._first_due_s == math.inf:
            self._first_due_s = trio.current_time() + self._first_ns / SECOND_NS
        with trio.CancelScope(deadline=self._first_due_s):
            payload = await self._next(max_bytes)
            self._first_ns, self._first_due_s = 0, math.inf
            return payload
        raise Unreachable(f"nothing was said within {self._first_ns / SECOND_NS:g} s on a stream that was opened to us")

    async def until_heard(self) -> None:
        """Wait until the other side has said anything; nothing is taken. Raises as ``receive``."""
        if not self._arrived:
            await self._fill()

    async def _next(self, max_bytes: int) -> bytes:
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
        return payload

    async def _fill(self) -> None:
        """Wait for more bytes."""
        self._check_open()
        chunk: bytes | None = None
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                chunk = await self._raw.read()
                self._arrived.add(chunk)
            finally:
                self._waiting.discard(scope)
        if chunk is None:
            raise StreamClosed(self._ended or "the stream was closed")
        if not chunk:
            inside = f", inside a frame after {len(self._arrived)} bytes" if self._arrived else ""
            raise StreamClosed(f"the other side ended the stream{inside}")

    def _check_open(self) -> None:
        if self._ended is not None:
            raise StreamClosed(self._ended)

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
        for scope in list(self._waiting):
            scope.cancel()

    async def _end(self, reason: str, *, reset: bool) -> None:
        self.wake(reason)
        if not self._released:
            self._released = True
            await (self._raw.reset() if reset else self._raw.close())
