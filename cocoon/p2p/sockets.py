"""Bytes both ways over one connected socket, with few passes of the event loop.

trio's own sockets pass the loop at each call, and so did these while they waited
before each one: a payload of 4 MiB passed it forty times, which took as long as
to seal and hash it.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-10.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from collections.abc import Callable
from typing import TypeVar

import trio

from cocoon.core.errors import StreamClosed
from cocoon.core.limits import SEND_STALL_NS
from cocoon.core.pieces import PIECES, Piece, unsent
from cocoon.core.units import KIB, MIB, SECOND_NS

T = TypeVar("T")

#: What is read or written before others go first: about half a millisecond of copying, opening and hashing.
_SHARE_BYTES = MIB
#: A call of the system counts as so much at least.
_CALL_BYTES = 64 * KIB
#: Of what a descriptor travels as.
_DESCRIPTOR_BYTES = 4
#: Linux's; elsewhere a moment passes before the interpreter could do it, and nobody shares memory there.
_UNINHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: Closing then discards what is under way, and tells the other side at once.
_NO_LINGER = struct.pack("ii", 1, 0)
_GONE = (OSError, trio.ClosedResourceError)


class SocketBytes:
    """A ``streams.Bytes``. One reader and one writer at a time."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        connected.setblocking(False)
        self._socket = connected
        self._read_left = self._write_left = _SHARE_BYTES
        self._woken = False

    def wake(self) -> None:
        """Whoever waits, now or later, hears that the stream is closed; it is not."""
        self._woken = True
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())

    async def read(self, most: int) -> bytes:
        """The next bytes, at most so many; empty at the end of the stream. Cancelled, it has taken none.

        Raises:
            StreamClosed: reset.
        """
        data = await self._received(lambda: self._socket.recv(most))
        self._read_left -= max(len(data), _CALL_BYTES)
        return data

    async def read_into(self, room: memoryview) -> int:
        """As ``read``, but the next bytes are written into ``room``; how many."""
        count = await self._received(lambda: self._socket.recv_into(room))
        self._read_left -= max(count, _CALL_BYTES)
        return count

    async def read_passed(self, most: int) -> tuple[bytes, int | None]:
        """As ``read``, and the descriptor that came beside these bytes: at most one, not inherited by processes."""
        data, beside, _, _ = await self._received(
            lambda: self._socket.recvmsg(most, socket.CMSG_LEN(_DESCRIPTOR_BYTES), _UNINHERITED)
        )
        self._read_left -= max(len(data), _CALL_BYTES)
        passed = [value for level, kind, value in beside if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
        return data, int.from_bytes(passed[0], sys.byteorder) if passed and passed[0] else None

    async def _received(self, call: Callable[[], T]) -> T:
        try:
            if self._read_left <= 0:                    # a reader that keeps up must not have the loop to itself
                await trio.lowlevel.checkpoint()
                self._read_left = _SHARE_BYTES
            while True:
                try:
                    return call()
                except BlockingIOError:
                    self._check_asleep()
                    await trio.lowlevel.wait_readable(self._socket.fileno())
                    self._read_left = _SHARE_BYTES
        except _GONE as error:
            raise StreamClosed(f"the connection was reset: {error}") from None

    async def write(self, *pieces: Piece) -> None:
        """Send all of these, one behind the other. After a cancelled write the caller must reset the stream.

        Raises:
            StreamClosed: reset, or nothing was taken for ``SEND_STALL_NS``.
        """
        left = [memoryview(piece) for piece in pieces]
        while left:
            left = await self.write_some(left, SEND_STALL_NS / SECOND_NS)

    async def write_some(self, pieces: list[memoryview], patience_s: float = math.inf) -> list[memoryview]:
        """Send some of these, at least a byte; what is left. Cancelled, it has sent none.

        Raises:
            StreamClosed: reset, or nothing was taken for ``patience_s``.
        """
        try:
            if self._write_left <= 0:
                await trio.lowlevel.checkpoint()
                self._write_left = _SHARE_BYTES
            while True:
                try:
                    sent_bytes = self._socket.sendmsg(pieces[:PIECES])
                except BlockingIOError:
                    self._check_asleep()
                    await self._until_writable(patience_s)
                    self._write_left = _SHARE_BYTES
                    continue
                self._write_left -= max(sent_bytes, _CALL_BYTES)
                return unsent(pieces, sent_bytes)
        except _GONE as error:
            raise StreamClosed(f"the connection took no more: {error}") from None

    def _check_asleep(self) -> None:
        if self._woken:
            raise StreamClosed("the connection is given up")

    async def _until_writable(self, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await trio.lowlevel.wait_writable(self._socket.fileno())
            return
        raise StreamClosed(f"the connection took nothing for {patience_s:g} s")

    async def close(self) -> None:
        """End both directions; what was written is still delivered."""
        self.shut()

    def shut(self) -> None:
        """As ``close``."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()

    async def reset(self) -> None:
        """End both directions and discard what is under way."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.shut()
