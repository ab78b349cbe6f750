"""One client of the liteserver: handshake, packets in, answers out, all bounded.

A client that breaks the protocol, stalls or floods costs its own connection.

Purity: shell (sockets). Spec: docs/spec/devnet.md, rules DEV-28 and DEV-29.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import trio

from cocoon.core.errors import LimitExceeded, Malformed, PeerFault
from cocoon.core.groups import single_error
from cocoon.core.limits import (
    DEVNET_CLIENTS,
    DEVNET_HANDSHAKE_NS,
    DEVNET_HANDSHAKES,
    DEVNET_QUERIES,
    DEVNET_QUERY_BYTES,
    DEVNET_SILENCE_NS,
    DEVNET_STALL_NS,
    DEVNET_UNSENT_BYTES,
)
from cocoon.core.units import KIB, SECOND_NS
from cocoon.devnet import tl
from cocoon.devnet.adnl import HANDSHAKE_BYTES, LENGTH_BYTES, ServerKey, Session
from cocoon.devnet.queries import failure

#: Answers a liteserver query; every failure is an answer too.
Ask = Callable[[bytes], Awaitable[bytes]]

_PIECE_BYTES = 64 * KIB


class _Gone(Exception):
    """The client closed its connection, fell silent, or stalled."""


class _Unsent:
    """Bytes of the answers that no client has taken yet, over all clients."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """So many more bytes count while inside.

        Raises:
            LimitExceeded: that would be above ``DEVNET_UNSENT_BYTES``.
        """
        if self._bytes + size > DEVNET_UNSENT_BYTES:
            raise LimitExceeded(f"answers of {self._bytes} bytes wait to be taken already; try again")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size


class Hall:
    """Where connections come in; bounded, and strangers do not keep others out.

    Connections without a handshake have few places of their own, and the oldest
    of them makes room for a new one. A client behind its handshake keeps its place.
    """

    def __init__(self, key: ServerKey, ask: Ask, arrive: Callable[[], AbstractContextManager[None]]) -> None:
        """``arrive``: entered while a client is served."""
        self._key = key
        self._ask = ask
        self._arrive = arrive
        self._strangers: OrderedDict[int, trio.CancelScope] = OrderedDict()
        self._clients = 0
        self._unsent = _Unsent()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it ends, for whatever reason; closes it."""
        expected = (_Gone, PeerFault, trio.BrokenResourceError, trio.ClosedResourceError)
        async with stream:
            with suppress(*expected), single_error():
                client = await self._shake_hands(stream)
                if client is None or self._clients >= DEVNET_CLIENTS:
                    return
                self._clients += 1
                try:
                    with self._arrive():
                        await client.serve()
                finally:
                    self._clients -= 1

    async def _shake_hands(self, stream: trio.SocketStream) -> _Client | None:
        """A client, or None if it took too long or had to make room."""
        with trio.move_on_after(DEVNET_HANDSHAKE_NS / SECOND_NS) as scope:
            if len(self._strangers) >= DEVNET_HANDSHAKES:
                _, oldest = self._strangers.popitem(last=False)
                oldest.cancel()
            self._strangers[id(scope)] = scope
            try:
                session = Session(self._key, await _exactly(stream, HANDSHAKE_BYTES), DEVNET_QUERY_BYTES)
                client = _Client(stream, session, self._ask, self._unsent)
                await client.greet()
                return client
            finally:
                self._strangers.pop(id(scope), None)
        return None


class _Client:
    """A client behind its handshake."""

    def __init__(self, stream: trio.SocketStream, session: Session, ask: Ask, unsent: _Unsent) -> None:
        self._stream = stream
        self._session = session
        self._ask = ask
        self._unsent = unsent
        self._sending = trio.Lock()
        self._places = trio.Semaphore(DEVNET_QUERIES)

    async def greet(self) -> None:
        """Show that we hold the key: an empty packet."""
        await self._send(b"")

    async def serve(self) -> None:
        """Read packets and answer them, several at a time."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._places.acquire()
                payload = await self._receive()
                nursery.start_soon(self._packet, payload)

    async def _packet(self, payload: bytes) -> None:
        try:
            name, values = tl.decode_whole(payload)
            if name == "tcp.ping":
                await self._send(tl.encode("tcp.pong", random_id=values["random_id"]))
            elif name == "adnl.message.query":
                await self._answer(values["query_id"], values["query"])
            else:
                raise Malformed(f"no client sends {name}")
        finally:
            self._places.release()

    async def _answer(self, query_id: bytes, query: bytes) -> None:
        # In its envelope at once, so that an answer that waits for its turn is in memory once.
        packet = _enveloped(query_id, await self._ask(query))
        try:
            with self._unsent.room_for(len(packet)):
                return await self._send(packet)
        except LimitExceeded as error:
            packet = _enveloped(query_id, failure(error))
        await self._send(packet)

    async def _receive(self) -> bytes:
        with trio.move_on_after(DEVNET_SILENCE_NS / SECOND_NS):
            length = self._session.length(await _exactly(self._stream, LENGTH_BYTES))
            return self._session.open(await _exactly(self._stream, length))
        raise _Gone

    async def _send(self, payload: bytes) -> None:
        async with self._sending:
            packet = memoryview(self._session.seal(payload))
            for start in range(0, len(packet), _PIECE_BYTES):
                with trio.move_on_after(DEVNET_STALL_NS / SECOND_NS) as patience:
                    await self._stream.send_all(packet[start : start + _PIECE_BYTES])
                if patience.cancelled_caught:
                    raise _Gone


def _enveloped(query_id: bytes, answer: bytes) -> bytes:
    return tl.encode("adnl.message.answer", query_id=query_id, answer=answer)


async def _exactly(stream: trio.SocketStream, length: int) -> bytes:
    """The next ``length`` bytes; what was not sent is not allocated."""
    data = bytearray()
    while len(data) < length:
        piece = await stream.receive_some(min(length - len(data), _PIECE_BYTES))
        if not piece:
            raise _Gone
        data += piece
    return bytes(data)

