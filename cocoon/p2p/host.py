"""One libp2p host as plain objects: dial an address, open a stream, close a connection.

With ``compat``, ``swarm`` and ``dht`` the only place that knows libp2p. Errors
leave as ``Unreachable`` and ``StreamClosed``.

Purity: shell. Spec: docs/spec/p2p.md, rules P2P-2 and P2P-3.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from multiaddr import Multiaddr

from cocoon.core.errors import ListenFailed, StreamClosed, Unreachable, UsageError
from cocoon.core.ids import PeerKey, peer_id, peer_key
from cocoon.core.limits import CLOSE_GRACE_NS, HANDSHAKE_NS, STREAMS_IN_PER_PEER, STREAMS_OUT_PER_PEER
from cocoon.core.pieces import Piece
from cocoon.core.units import MIB, SECOND_NS
from cocoon.p2p import swarm as swarm_rules
from cocoon.p2p.addresses import Address, readable
from cocoon.p2p.waits import Waits

_HANDSHAKE_S = HANDSHAKE_NS // SECOND_NS
_CLOSE_LIMIT_S = 5.0
#: What is read before others go first: three milliseconds of decrypting and copying.
_SHARE_BYTES = MIB

#: Runs one handler; must not let an ``Exception`` out (``service`` owns it: the supervisor border).
Guard = Callable[[str, Callable[[], Awaitable[None]]], Awaitable[bool]]


def lib_id(peer: PeerKey) -> ID:
    """The library's id object of a peer."""
    return ID.from_base58(peer_id(peer))


class RawStream:
    """Bytes both ways over one Yamux stream."""

    def __init__(self, stream: NetStream, connection: Connection) -> None:
        self._stream = stream
        self.connection = connection
        self._waits = Waits()
        self._left_bytes = _SHARE_BYTES

    def wake(self) -> None:
        """Whoever waits, now or later, hears that the stream is closed; it is not."""
        self._waits.end()

    async def read(self, most: int) -> bytes:
        """The next bytes, at most so many; empty at the end of the stream.

        Raises:
            StreamClosed: reset, or the connection is gone.
        """
        if self._left_bytes <= 0:                       # a reader that keeps up must not have the loop to itself
            await trio.lowlevel.checkpoint()
            self._left_bytes = _SHARE_BYTES
        try:
            data = await self._waits.until(lambda: self._stream.read(most))
        except EOFError:
            return b""
        except compat.TRANSPORT_ERRORS as error:
            raise StreamClosed(f"the stream was reset: {_said(error)}") from None
        self._left_bytes -= len(data)
        return data

    async def read_into(self, room: memoryview) -> int:
        """As ``read``, but the next bytes are written into ``room``; how many."""
        data = await self.read(len(room))
        room[: len(data)] = data
        return len(data)

    async def write(self, *pieces: Piece) -> None:
        """Send all of these, one behind the other. After a cancelled write the caller must reset the stream.

        Raises:
            StreamClosed: as for ``read``, or no credit for ``SEND_STALL_NS``.
        """
        try:
            await self._waits.until(lambda: self._stream.write(b"".join(pieces)))
        except compat.TRANSPORT_ERRORS as error:
            raise StreamClosed(f"the stream took no more: {_said(error)}") from None

    async def close(self) -> None:
        """End our direction and give the slot back; never raises for a dead connection."""
        self.connection.forget_stream(self)
        try:
            await self._stream.close()
        except compat.TRANSPORT_ERRORS:
            await self.reset()

    async def reset(self) -> None:
        """End both directions at once; never raises for a dead connection."""
        self.connection.forget_stream(self)
        try:
            await self._stream.reset()
        except compat.TRANSPORT_ERRORS:
            pass                        # the connection is gone, and the stream with it


class Connection:
    """One authenticated connection to ``peer``."""

    def __init__(self, host: Host, conn: SwarmConn, peer: PeerKey) -> None:
        self._host = host
        self._conn = conn
        self._muxed: Any = conn.muxed_conn
        self._streams_out: set[RawStream] = set()
        self.streams_in = 0
        self.peer = peer
        self.inbound = not self._muxed.is_initiator
        self.closed: trio.Event = conn.muxed_conn.event_closed  # type: ignore[attr-defined]

    @property
    def remote_ip(self) -> str | None:
        """IP text of the other end, or None if the socket is already gone."""
        raw = self._raw_socket()
        try:
            return str(raw.getpeername()[0]) if raw is not None else None
        except OSError:
            return None

    async def open(self, protocol: str) -> RawStream:
        """Open a stream and agree on ``protocol`` within ``HANDSHAKE_NS``.

        Raises:
            Unreachable: the peer does not speak it, or did not answer in time.
        """
        if len(self._streams_out) >= STREAMS_OUT_PER_PEER:
            raise Unreachable(f"{STREAMS_OUT_PER_PEER} streams to this peer are open already")
        stream: NetStream | None = None
        agreed = False
        try:
            with trio.move_on_after(_HANDSHAKE_S):
                stream = await self._conn.new_stream()
                await self._host.negotiate(stream, protocol)
                agreed = True
        except compat.TRANSPORT_ERRORS as error:
            raise Unreachable(f"{peer_id(self.peer)} did not open {protocol}: {_said(error)}") from None
        finally:
            if stream is not None and not agreed:
                await stream.reset()
        if stream is None or not agreed:
            raise Unreachable(f"{peer_id(self.peer)} did not answer on {protocol} within {_HANDSHAKE_S} s")
        opened = RawStream(stream, self)
        self._streams_out.add(opened)
        return opened

    def forget_stream(self, stream: RawStream) -> None:
        """A stream of ours was closed."""
        self._streams_out.discard(stream)

    async def close(self, *, gentle: bool = True) -> None:
        """Close; cannot be cancelled, takes at most a few seconds even if the peer is frozen.

        Args:
            gentle: End our direction first and wait ``CLOSE_GRACE_NS`` for the
                other side, so that what we sent last is read and not reset.
        """
        with compat.shielded(_CLOSE_LIMIT_S):
            if gentle and not self.closed.is_set():
                self._end_sending()
                with trio.move_on_after(CLOSE_GRACE_NS / SECOND_NS):
                    await self.closed.wait()
            # The socket goes first: the library would wait for a frozen peer to take a last frame.
            await self._muxed.secured_conn.close()
            await self._conn.close()

    def _end_sending(self) -> None:
        raw = self._raw_socket()
        try:
            if raw is not None:
                raw.shutdown(socket.SHUT_WR)
        except OSError:
            pass                        # it is gone already

    def _raw_socket(self) -> Any:
        """The socket below Noise; None if the library's layers changed or it is closed."""
        layer: Any = self._muxed.secured_conn
        for name in ("conn", "read_writer", "read_write_closer", "stream", "stream", "socket"):
            layer = getattr(layer, name, None)
        return layer


class Host:
    """The library's host. Callbacks and handlers are set before ``run``."""

    def __init__(self, seed: bytes, guard: Guard) -> None:
        self.lib, self._swarm = swarm_rules.build(seed)
        self._guard = guard
        self._connections: dict[int, Connection] = {}
        self.peer = peer_key(str(self.lib.get_id()))
        self.on_connection: Callable[[Connection], None] = lambda _connection: None
        self._swarm.on_connection = self._connected
        self._swarm.set_stream_handler(self._handle_stream)

    def on_refused(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(reason)`` for every connection that a limit refused."""
        self._swarm.on_refused = callback

    @asynccontextmanager
    async def run(self, listen: tuple[str, ...]) -> AsyncIterator[None]:
        """Listen, and close everything at the end.

        Raises:
            ListenFailed: one of the addresses could not be bound.
        """
        async with self.lib.run(listen_addrs=[Multiaddr(text) for text in listen]):
            try:
                if len(self._swarm.listeners) < len(set(listen)):
                    raise ListenFailed(f"cannot listen on {', '.join(listen)}; does another peer run there?")
                yield
            finally:
                # Leaving the library's context without this leaks descriptors and tasks.
                with trio.CancelScope(shield=True):
                    # Nobody who is told goodbye may come straight back. (Closing the listeners first
                    # would cut every inbound connection, for the library keeps them in one nursery.)
                    self._swarm.leaving = True
                    await self._close_all()
                    await self.lib.close()

    async def _close_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for connection in list(self._connections.values()):
                nursery.start_soon(connection.close)

    def listening(self) -> list[Address]:
        """The bound addresses, with the real port where 0 was asked for."""
        return readable(str(a) for a in self.lib.get_transport_addrs())

    def connections(self) -> list[Connection]:
        """All open connections, also those that have not said Hello."""
        return [c for c in self._connections.values() if not c.closed.is_set()]

    def set_handler(self, protocol: str, handler: Callable[[RawStream], Awaitable[None]]) -> None:
        """Serve ``protocol``; the handler owns the stream and is guarded."""

        async def handle(stream: Any) -> None:
            connection = self._of(stream)
            if connection is not None:
                await handler(RawStream(stream, connection))

        self.lib.set_stream_handler(TProtocol(protocol), handle)

    async def dial(self, peer: PeerKey, address: Address) -> Connection:
        """Connect to one address of ``peer`` within ``HANDSHAKE_NS``; the peer must prove its key.

        Raises:
            Unreachable: nobody there, not that peer, or not our protocols.
        """
        if peer == self.peer:
            raise UsageError("a peer does not dial itself")
        conn = None
        try:
            with trio.move_on_after(_HANDSHAKE_S):
                conn = await self._swarm._dial_addr_single_attempt(Multiaddr(address.text), lib_id(peer))
        except (*compat.TRANSPORT_ERRORS, ValueError) as error:
            raise Unreachable(f"{address.of(peer)} cannot be reached: {_said(error)}") from None
        if conn is None:
            raise Unreachable(f"{address.of(peer)} did not answer within {_HANDSHAKE_S} s")
        found = self._connections.get(id(conn))
        if found is None:
            raise Unreachable(f"{address.of(peer)} closed the connection at once")
        return found

    async def negotiate(self, stream: NetStream, protocol: str) -> None:
        """Run multistream-select as the opener of ``stream``."""
        communicator = MultiselectCommunicator(stream)
        await self.lib.multiselect_client.select_one_of([TProtocol(protocol)], communicator, _HANDSHAKE_S)
        stream.set_protocol(TProtocol(protocol))

    def _connected(self, conn: SwarmConn) -> Connection | None:
        """The connection object of ``conn``, made when the library first names it; None for foreign keys."""
        if (known := self._connections.get(id(conn))) is not None:
            return known
        try:
            peer = peer_key(str(conn.muxed_conn.peer_id))
        except UsageError:
            return None                 # an RSA or secp256k1 identity: not one of us
        connection = self._connections[id(conn)] = Connection(self, conn, peer)
        self.on_connection(connection)
        return connection

    def gone(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._connections.pop(id(connection._conn), None)

    def _of(self, stream: Any) -> Connection | None:
        # The first stream can come before the library has reported its connection.
        return self._connected(stream.swarm_conn)

    async def _handle_stream(self, stream: Any) -> None:
        """Every inbound stream, also of the library's own protocols, runs below the guard."""
        connection = self._of(stream)
        if connection is None or connection.streams_in >= STREAMS_IN_PER_PEER:
            await stream.reset()
            return
        connection.streams_in += 1
        try:
            if not await self._guard("stream", lambda: self.lib._swarm_stream_handler(stream)):
                await stream.reset()
        finally:
            connection.streams_in -= 1


def basic_host(host: Host) -> BasicHost:
    """The library's host, for ``dht`` only."""
    return host.lib


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
