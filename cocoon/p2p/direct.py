"""Bare TCP connections of leases, beside the libp2p ones: the same frames for a fraction of the CPU.

A provider that accepts a lease names a port and a token that is good for one
connection. Who shows it hears one byte that says so, and has a stream; what
travels on it is sealed end to end like on any other. Where no connection comes
about, the libp2p stream serves.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-10.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from cocoon.core.errors import ListenFailed, StreamClosed, Unreachable
from cocoon.core.limits import (
    DIRECT_DIAL_NS,
    DIRECT_TOKEN_BYTES,
    HANDSHAKE_NS,
    HANDSHAKES_TRANSIENT,
)
from cocoon.core.units import SECOND_NS
from cocoon.p2p.addresses import parse
from cocoon.p2p.sockets import SocketBytes

#: What a provider says to who showed the token that it waits for.
_WELCOME = b"\1"
#: The machine has no room for one more connection; the same call succeeds when something was closed.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
#: As long as ``trio.serve_listeners`` waits then.
_NO_ROOM_PAUSE_S = 0.1


def tcp_bytes(connected: socket.socket) -> SocketBytes:
    """Bytes over a TCP connection that is ours from now on."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketBytes(connected)


@dataclass(slots=True, eq=False)
class Ticket:
    """A connection that is awaited."""

    token: bytes
    arrived: trio.Event = field(default_factory=trio.Event)
    raw: SocketBytes | None = None

    def take(self) -> SocketBytes | None:
        """What has arrived is the caller's now."""
        raw, self.raw = self.raw, None
        return raw


class DirectPort:
    """Listens, and gives each connection to who waits for its token; any other is closed."""

    def __init__(self, listener: socket.socket) -> None:
        """Take over a listening socket."""
        self._listener = trio.socket.from_stdlib_socket(listener)
        self.port: int = listener.getsockname()[1]
        self._awaited: dict[bytes, Ticket] = {}
        self._silent = 0

    @contextmanager
    def expect(self) -> Iterator[Ticket]:
        """Await one connection until the block ends; one that came and was not taken is closed then."""
        ticket = Ticket(os.urandom(DIRECT_TOKEN_BYTES))
        self._awaited[ticket.token] = ticket
        try:
            yield ticket
        finally:
            self._awaited.pop(ticket.token, None)
            if (raw := ticket.take()) is not None:
                raw.shut()

    async def serve(self) -> None:
        """Accept connections until cancelled."""
        async with trio.open_nursery() as nursery:
            with self._listener:
                while True:
                    accepted = await self._next()
                    if self._silent >= HANDSHAKES_TRANSIENT:
                        accepted.close()
                    else:
                        nursery.start_soon(self._admit, accepted)

    async def _next(self) -> trio.socket.SocketType:
        """The next connection. That one cannot be had, whosesoever fault it is, does not end the listening."""
        while True:
            try:
                return (await self._listener.accept())[0]
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise                               # our own mistake: closed under us
                if error.errno in _NO_ROOM:
                    await trio.sleep(_NO_ROOM_PAUSE_S)

    async def _admit(self, accepted: trio.socket.SocketType) -> None:
        """Read the token, within ``HANDSHAKE_NS``; whoever shows another one learns nothing."""
        self._silent += 1
        try:
            token = b""
            with trio.move_on_after(HANDSHAKE_NS / SECOND_NS):
                while left := DIRECT_TOKEN_BYTES - len(token):
                    if not (more := await accepted.recv(left)):
                        break
                    token += more
            if (ticket := self._awaited.pop(token, None)) is not None:
                ticket.raw = tcp_bytes(socket.socket(fileno=accepted.detach()))
                await ticket.raw.write(_WELCOME)
                ticket.arrived.set()
        except (OSError, StreamClosed):
            pass                                        # it hung up: nobody is told, nobody waits for it
        finally:
            self._silent -= 1
            accepted.close()                            # does nothing after ``detach``


def listen_direct(address: str, port: int) -> DirectPort:
    """Listen on the host of this multiaddress of ours; port 0 takes a free one.

    Raises:
        ListenFailed: it cannot be bound.
    """
    host = parse(address)[0].host
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(HANDSHAKES_TRANSIENT)
    except OSError as error:
        listener.close()
        raise ListenFailed(f"port {port} of {host} cannot be bound for leases: {error.strerror}") from None
    listener.setblocking(False)
    return DirectPort(listener)


async def dial_direct(host: str | None, port: int, token: bytes) -> SocketBytes:
    """Connect to a provider that told port and token.

    Raises:
        Unreachable: there is no way within ``DIRECT_DIAL_NS``, or no ``host``.
    """
    if host is None:
        raise Unreachable("the peer is not connected any more")
    dialled = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        with trio.move_on_after(DIRECT_DIAL_NS / SECOND_NS):
            await dialled.connect((host, port))
            await dialled.send(token)
            if await dialled.recv(len(_WELCOME)) != _WELCOME:
                raise Unreachable(f"port {port} of {host} takes no connection with this token")
            return tcp_bytes(socket.socket(fileno=dialled.detach()))
    except OSError as error:
        raise Unreachable(f"port {port} of {host} cannot be reached: {error}") from None
    finally:
        dialled.close()
    raise Unreachable(f"port {port} of {host} did not answer within {DIRECT_DIAL_NS // SECOND_NS} s")
