"""A link is a connection that said Hello: same network, alive, its streams woken when it dies.

The dialler opens ``/cocoon/beat/1`` and says Hello, the other side answers
with Hello or Refusal; then both beat every ``HEARTBEAT_NS``. A connection
without Hello within ``HANDSHAKE_NS`` is closed, whoever dialled it.

Purity: shell. Spec: docs/spec/p2p.md, rules P2P-3 and P2P-5.
"""

from __future__ import annotations

import trio

from cocoon.core.errors import (
    CocoonError,
    PeerFault,
    StreamClosed,
    Unavailable,
    Unreachable,
    WrongNetwork,
    from_peer,
)
from cocoon.core.groups import single_error
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import CLOSE_GRACE_NS, HANDSHAKE_NS, HEARTBEAT_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
from cocoon.p2p.heartbeat import Pulse
from cocoon.p2p.host import Connection, RawStream
from cocoon.p2p.streams import Bytes, PeerStream
from cocoon.wire.messages import Beat, Hello, Refusal, refusal
from cocoon.wire.schema import pack, unpack

BEAT_PROTOCOL = "/cocoon/beat/1"
_BEAT_FRAME_BYTES = 1024


class PeerLost(Value):
    """The last link to ``peer`` is gone. ``reason`` is for people; empty if it said goodbye."""

    peer: PeerKey
    reason: str


class Link:
    """One connection with its Hello, its heartbeat and its open streams."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self.connection = connection
        self.peer = connection.peer
        self.ready = trio.Event()
        self.error: CocoonError | None = None
        self.theirs: Hello | None = None
        self.reason = ""
        self._ours = hello
        self._streams: set[PeerStream] = set()
        self._beat_claimed = False
        self._stop = trio.CancelScope()

    @property
    def alive(self) -> bool:
        """Hello done and the connection open."""
        return self.theirs is not None and not self.connection.closed.is_set() and self.error is None

    async def wait_ready(self) -> None:
        """Until Hello is done.

        Raises:
            WrongNetwork, Unreachable: it will never be.
        """
        await self.ready.wait()
        if self.error is not None:
            raise self.error

    def adopt(self, raw: Bytes) -> PeerStream:
        """A framed stream that wakes when this link dies."""
        stream = PeerStream(self.peer, raw)
        self._streams.add(stream)
        return stream

    def release(self, stream: PeerStream) -> None:
        """The stream was closed."""
        self._streams.discard(stream)

    def prune_streams(self) -> None:
        """Forget streams that were closed without ``release``."""
        self._streams = {s for s in self._streams if not s.ended}

    async def run(self) -> None:
        """Live from connection to close; never raises for a peer's or the network's fault."""
        try:
            with self._stop:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_connection)
                    nursery.start_soon(self._require_hello)
                    if not self.connection.inbound:
                        await self._as_dialler()
                        self._stop.cancel()
        finally:
            self._fail(Unreachable(f"{peer_id(self.peer)} closed the connection before Hello"))
            for stream in list(self._streams):
                stream.wake(self.reason or "the peer closed the connection")
            await self.connection.close(gentle=not self.reason)

    async def serve_beat(self, raw: RawStream) -> None:
        """The other side opened the beat stream: answer its Hello and stay."""
        if self._beat_claimed or not self.connection.inbound:
            await raw.reset()
            return
        self._beat_claimed = True
        stream = PeerStream(self.peer, raw)
        try:
            await self._answer_hello(stream)
            await self._pulse(stream)
        except CocoonError as error:
            self._end(error)
        finally:
            await stream.close()

    def drop(self, reason: str) -> None:
        """Close this link from here; ``reason`` tells people why."""
        self.reason = self.reason or reason
        self._stop.cancel()

    async def _as_dialler(self) -> None:
        try:
            stream = PeerStream(self.peer, await self.connection.open(BEAT_PROTOCOL))
            await stream.send(pack(self._ours))
            answer = unpack(await stream.receive(_BEAT_FRAME_BYTES), Hello, Refusal)
            if isinstance(answer, Refusal):
                raise _refused(answer)
            self._check(answer)
            await self._pulse(stream)
        except CocoonError as error:
            self._end(error)

    async def _answer_hello(self, stream: PeerStream) -> None:
        hello = unpack(await stream.receive(_BEAT_FRAME_BYTES), Hello)
        try:
            _check_network(hello, self._ours)
        except WrongNetwork as error:
            await stream.send(pack(refusal(error)))
            with trio.move_on_after(CLOSE_GRACE_NS / SECOND_NS):    # until it is read
                await self.connection.closed.wait()
            raise
        await stream.send(pack(self._ours))
        self._check(hello)

    def _check(self, hello: Hello) -> None:
        _check_network(hello, self._ours)
        self.theirs = hello
        self.ready.set()

    async def _pulse(self, stream: PeerStream) -> None:
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_beats, stream)
                await self._hear_beats(stream)
                nursery.cancel_scope.cancel()

    async def _hear_beats(self, stream: PeerStream) -> None:
        """Return when the peer is lost or its stream ended."""
        pulse = Pulse()
        while True:
            frame: bytes | None = None
            try:
                with trio.move_on_after(HEARTBEAT_NS / SECOND_NS):
                    frame = await stream.receive(_BEAT_FRAME_BYTES)
            except StreamClosed:
                return
            if frame is not None:
                pulse.heard(unpack(frame, Beat).seq)
            elif pulse.silent():
                self.drop(f"{peer_id(self.peer)} missed its heartbeats")
                return

    async def _watch_connection(self) -> None:
        await self.connection.closed.wait()
        self._stop.cancel()

    async def _require_hello(self) -> None:
        with trio.move_on_after(HANDSHAKE_NS / SECOND_NS):
            await self.ready.wait()
            return
        self._fail(Unreachable(f"{peer_id(self.peer)} said no Hello within {HANDSHAKE_NS // SECOND_NS} s"))
        self.drop("no Hello in time")

    def _end(self, error: CocoonError) -> None:
        self._fail(error)
        self.drop("" if isinstance(error, Unavailable) else error.text)

    def _fail(self, error: CocoonError) -> None:
        if not self.ready.is_set():
            self.error = error
            self.ready.set()


async def _send_beats(stream: PeerStream) -> None:
    """Beat until the stream ends; its end is the reader's business."""
    seq = 0
    try:
        while True:
            seq += 1
            await stream.send(pack(Beat(seq=seq)))
            await trio.sleep(HEARTBEAT_NS / SECOND_NS)
    except StreamClosed:
        return


def _check_network(theirs: Hello, ours: Hello) -> None:
    if theirs.network != ours.network:
        there, here = theirs.network.hex()[:16], ours.network.hex()[:16]
        raise WrongNetwork(f"that peer is on network {there}, this one on {here}")


def _refused(answer: Refusal) -> CocoonError:
    error = from_peer(answer.code, answer.text)
    known = isinstance(error, WrongNetwork | Unavailable)
    return error if known else PeerFault(f"Hello was refused: {error.text}")
