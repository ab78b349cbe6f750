"""The peer's end of a worker's socket: frames, bodies and one descriptor, on trio.

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-4 and RUN-5.
"""

from __future__ import annotations

import socket
from array import array
from dataclasses import dataclass

import trio

from cocoon.core.errors import TooLarge
from cocoon.core.limits import WORKER_HEADER_BYTES, WORKER_SOCKET_BYTES
from cocoon.wire.framing import frame


class ChannelClosed(Exception):
    """The worker closed its end, mostly by dying. Never leaves this package."""


def pair() -> tuple[Channel, socket.socket]:
    """A connected channel and the socket that the worker inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        # Room for a payload at once, where the system allows it: fewer turns of the loop.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WORKER_SOCKET_BYTES)
    return Channel(trio.socket.from_stdlib_socket(ours)), theirs


@dataclass(slots=True)
class Channel:
    """Not safe for two tasks at once; after a cancelled call it is unusable."""

    _socket: trio.socket.SocketType

    async def send(self, header: bytes, body: bytes = b"", descriptor: int | None = None) -> None:
        """Send one frame, its raw body, and a descriptor beside the first byte.

        Raises:
            ChannelClosed: the worker is gone.
        """
        framed = frame(header)
        try:
            if descriptor is not None:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]).tobytes())]
                sent = await self._socket.sendmsg([framed[:1]], rights)
                framed = framed[sent:]
            await self._send_all(framed)
            await self._send_all(body)
        except OSError:
            raise ChannelClosed from None

    async def receive(self) -> bytes:
        """The next frame; a length above the limit is refused before it is read.

        Raises:
            ChannelClosed: the worker is gone.
            TooLarge: it announces more than a header may have.
        """
        length = int.from_bytes(await self.body(4), "big")
        if length > WORKER_HEADER_BYTES:
            raise TooLarge(f"a worker announces {length} bytes, above {WORKER_HEADER_BYTES}")
        return await self.body(length)

    async def body(self, count: int) -> bytes:
        """Exactly ``count`` raw bytes; the caller has bounded ``count``."""
        room = bytearray(count)
        view, filled = memoryview(room), 0
        while filled < count:
            try:
                got = await self._socket.recv_into(view[filled:])
            except OSError:
                raise ChannelClosed from None
            if not got:
                raise ChannelClosed
            filled += got
        return bytes(room)

    def close(self) -> None:
        """Close our end; an idle worker reads that and ends."""
        self._socket.close()

    async def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._socket.send(view) :]
