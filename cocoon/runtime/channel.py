"""The peer's end of a worker's socket: frames and descriptors, on trio.

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-4 and RUN-5.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from cocoon.core.limits import WORKER_HEADER_BYTES
from cocoon.wire.framing import FrameParser, frame

#: Most answers are shorter, so one is received at once.
_RECEIVED_BYTES = 65_536
#: The other end is gone, or another task closed ours.
_CLOSED = (OSError, trio.ClosedResourceError)


class ChannelClosed(Exception):
    """The worker closed its end, mostly by dying. Never leaves this package."""


def pair() -> tuple[Channel, socket.socket]:
    """A connected channel and the socket that the worker inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return Channel(ours), theirs


@dataclass(slots=True)
class Channel:
    """One sender and one receiver at a time; after a cancelled ``send`` it is unusable.

    A plain socket with trio's ``wait_readable``: its own sockets would pass the loop twice per call.
    """

    _socket: socket.socket
    _frames: FrameParser = field(default_factory=lambda: FrameParser(WORKER_HEADER_BYTES))
    _waiting: list[bytes] = field(default_factory=list)

    async def send(self, header: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one frame, with descriptors beside its first byte.

        Raises:
            ChannelClosed: the worker is gone.
        """
        framed = memoryview(frame(header))
        try:
            if descriptors:
                framed = framed[socket.send_fds(self._socket, [framed[:1]], list(descriptors)) :]
            while framed:
                try:
                    framed = framed[self._socket.send(framed) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket.fileno())
        except _CLOSED:
            raise ChannelClosed from None

    async def receive(self) -> bytes:
        """The next frame; a length above the limit is refused before it is read.

        Raises:
            ChannelClosed: the worker is gone.
            TooLarge: it announces more than a header may have.
        """
        while not self._waiting:
            if (descriptor := self._socket.fileno()) < 0:       # closed since the order was sent
                raise ChannelClosed
            try:
                await trio.lowlevel.wait_readable(descriptor)
                data = self._socket.recv(_RECEIVED_BYTES)
            except BlockingIOError:
                continue
            except _CLOSED:
                raise ChannelClosed from None
            if not data:
                raise ChannelClosed
            self._waiting += self._frames.feed(data)
        return self._waiting.pop(0)

    def close(self) -> None:
        """Close our end; an idle worker reads that and ends."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()
