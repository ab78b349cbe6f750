"""SEA-16 to SEA-18: a link goes on over another stream, and its messages come in order, each once."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cocoon.core.errors import BadSeal, StreamClosed
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import LINK_ACK_BYTES, LINK_KEPT_BYTES, LINK_RESUMES
from cocoon.core.units import MIB
from cocoon.node import carrier
from cocoon.node.carrier import Awaited, Carrier
from cocoon.node.link import WorkLink
from cocoon.p2p.sockets import SocketBytes
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import Frame, LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.wire.messages import LeaseClose, RunRequest, TrancheClose

PEER = PeerKey(bytes(32))
PATIENCE_S = 60
FRAME_BYTES = 1 << 20


def _kept_no_more(frame: Frame) -> None:
    """Nobody writes over it."""


class Wire:
    """Sockets between two sides: each stream in its turn, and a knife."""

    def __init__(self) -> None:
        self.connected = True
        self.raws: list[tuple[SocketBytes, SocketBytes]] = []
        self.changed = trio.Event()
        #: Told that a further stream has come, as its seller does.
        self.provider: WorkLink | None = None
        self.awaited = Awaited(lambda: self.connected, self.wait, self.greet)
        self.heard, self._greetings = trio.open_memory_channel[int](10)

    async def wait(self) -> None:
        await self.changed.wait()

    def lay(self) -> tuple[PeerStream, PeerStream]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = SocketBytes(socket.create_connection(listener.getsockname()))
            theirs = SocketBytes(listener.accept()[0])
        self.raws.append((ours, theirs))
        return PeerStream(PEER, ours), PeerStream(PEER, theirs)

    def cut(self) -> None:
        for raw in self.raws[-1]:
            try:
                raw._socket.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                assert error.errno == errno.ENOTCONN, error     # the cut at the other end has arrived

    def lose(self) -> None:
        """The peers are connected no more."""
        self.connected = False
        self.changed.set()

    async def greet(self, stream: PeerStream, received: int) -> None:
        await self.heard.send(received)

    async def renew(self, received: int) -> tuple[PeerStream, int]:
        """The requester's way to the next stream."""
        if not self.connected:
            raise StreamClosed("the provider is lost")
        ours, theirs = self.lay()
        await self.awaited.offer(theirs, received)
        if self.provider is not None:
            self.provider.replace()
        with trio.move_on_after(PATIENCE_S / 12):
            return ours, await self._greetings.receive()
        raise StreamClosed("the provider does not answer")


@asynccontextmanager
async def linked(wire: Wire) -> AsyncIterator[tuple[WorkLink, WorkLink]]:
    """A requester's and a provider's end, sending."""
    session = session_keys(LinkKeys.from_bytes(os.urandom(64)), bytes(32), LeaseId(bytes(32)))
    ours, theirs = wire.lay()
    one = WorkLink(ours, SealedWriter(session.to_provider), SealedReader(session.to_requester), wire.renew)
    other = WorkLink(theirs, SealedWriter(session.to_requester), SealedReader(session.to_provider), wire.awaited)
    wire.provider = other
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.keep_sending)
            nursery.start_soon(other.keep_sending)
            yield one, other
            nursery.cancel_scope.cancel()


async def ended(receiving: Awaitable[object]) -> bool:
    """Whether the link ends; it does not if nothing comes for long."""
    with trio.move_on_after(PATIENCE_S / 12):
        try:
            await receiving
        except StreamClosed:
            return True
    return False


async def test_a_transfer_of_64_mib_goes_on_where_its_stream_was_cut() -> None:
    wire, whole = Wire(), os.urandom(64 * MIB - 64)
    async with linked(wire) as (one, other), trio.open_nursery() as nursery:
        one.post(RunRequest(number=1, salt=bytes(16), inputs=whole))

        async def cut_at_half() -> None:
            while other._carrier._received * 256 * 1024 < len(whole) // 2:
                await trio.lowlevel.checkpoint()
            wire.cut()

        nursery.start_soon(cut_at_half)
        nursery.start_soon(one.receive, TrancheClose)   # as every link has a reader
        message = await other.receive(RunRequest)
        assert isinstance(message, RunRequest)
        assert hashlib.sha256(message.inputs).digest() == hashlib.sha256(whole).digest()
        assert len(wire.raws) == 2, "two streams, and not two transfers"
        while one._carrier._kept_bytes > 2 * LINK_ACK_BYTES:
            await trio.lowlevel.checkpoint()            # what was acknowledged is not kept
        nursery.cancel_scope.cancel()


async def test_messages_both_ways_come_in_order_each_once_however_often_the_stream_is_cut() -> None:
    wire, count = Wire(), 60
    heard: dict[str, list[int]] = {"one": [], "other": []}
    async with linked(wire) as ends, trio.open_nursery() as nursery:

        async def listen(name: str, link: WorkLink) -> None:
            while len(heard[name]) < count:
                try:
                    message = await link.receive(RunRequest)
                except BadSeal:
                    break                               # a frame is missing, or came twice
                assert isinstance(message, RunRequest)
                heard[name].append(message.number)

        async def speak(link: WorkLink) -> None:
            for number in range(1, count + 1):
                link.post(RunRequest(number=number, salt=bytes(16), inputs=bytes(number * 4_001)))
                await trio.lowlevel.checkpoint()

        for name, link in zip(heard, ends, strict=True):
            nursery.start_soon(listen, name, link)
            nursery.start_soon(speak, link)
        for cuts in range(1, LINK_RESUMES + 1):
            with trio.move_on_after(PATIENCE_S / 12):
                while len(heard["one"]) < cuts * count // 10:
                    await trio.lowlevel.checkpoint()
                wire.cut()
                while len(wire.raws) == cuts:
                    await trio.lowlevel.checkpoint()
    assert heard == {name: list(range(1, count + 1)) for name in heard}


async def test_a_stream_that_only_the_other_side_gave_up_is_replaced() -> None:
    wire = Wire()
    async with linked(wire) as (one, other):
        one.replace()
        one.post(TrancheClose(through=1))
        assert await other.receive(TrancheClose) == TrancheClose(through=1)
        assert len(wire.raws) == 2


@pytest.mark.parametrize("how", ["lost", "last word said", "last word heard", "too often"])
async def test_a_link_whose_peer_is_lost_or_that_has_ended_does_not_go_on(how: str) -> None:
    wire = Wire()
    async with linked(wire) as (one, other):
        if how == "lost":
            wire.lose()
        if how == "last word said":
            one.post(LeaseClose(code="done"))
        if how == "last word heard":
            other.post(LeaseClose(code="done"))
            assert await one.receive(LeaseClose) == LeaseClose(code="done")
        if how == "too often":
            one._carrier._resumes_left = 0
        wire.cut()
        assert await ended(one.receive(TrancheClose))
        one.post(TrancheClose(through=1))
        await one.flush()                               # changes nothing
        assert len(wire.raws) == 1


async def test_a_provider_waits_only_so_long_and_only_for_who_is_connected(
    autojump_clock: trio.testing.MockClock
) -> None:
    wire = Wire()
    began = trio.current_time()
    with pytest.raises(StreamClosed):
        await wire.awaited(0)
    assert trio.current_time() - began == carrier.RESUME_NS / 1e9
    wire.lose()
    with pytest.raises(StreamClosed):
        await wire.awaited(0)
    assert trio.current_time() - began == carrier.RESUME_NS / 1e9


async def test_what_is_kept_is_bounded_and_who_lacks_more_is_given_up() -> None:
    taken: list[bytes] = []

    class Deaf:
        """Takes every frame; nothing is heard of it."""

        def __init__(self) -> None:
            self.ended = False

        async def send(self, *frames: bytes) -> None:
            await trio.lowlevel.checkpoint()
            taken.extend(frames)

        async def take(self, max_bytes: int) -> bytes:
            raise StreamClosed("cut")

        def wake(self, reason: str) -> None: ...

        async def reset(self) -> None:
            self.ended = True

    fresh = Deaf()

    async def renew(received: int) -> tuple[Deaf, int]:
        return fresh, 1

    link = Carrier(Deaf(), renew, lambda: None, _kept_no_more)  # type: ignore[arg-type]
    frames = LINK_KEPT_BYTES // FRAME_BYTES + 5
    for _ in range(frames):
        await link.send(bytes(FRAME_BYTES))
    assert len(taken) == frames and link._kept_bytes <= LINK_KEPT_BYTES
    with pytest.raises(StreamClosed) as raised:
        await link.receive(10)
    assert "kept are" in raised.value.text and fresh.ended


async def test_what_a_stream_still_gives_while_it_is_replaced_is_not_taken_for_it_comes_again() -> None:
    """A sender finds the stream broken, and says how much was received; the reader has not read all of it yet."""
    told: list[int] = []

    class Scripted:
        """Gives one frame; ``sends`` says whether it takes any."""

        def __init__(self, frame: bytes, sends: bool) -> None:
            self._frame, self._sends = frame, sends

        async def send(self, *frames: bytes) -> None:
            await trio.lowlevel.checkpoint()
            if not self._sends:
                raise StreamClosed("cut")

        async def take(self, max_bytes: int) -> bytes:
            await trio.lowlevel.checkpoint()
            return self._frame

        def wake(self, reason: str) -> None: ...

        async def reset(self) -> None: ...

    replaced = trio.Event()

    async def renew(received: int) -> tuple[Scripted, int]:
        told.append(received)
        await replaced.wait()
        return Scripted(b"it comes again", sends=True), 0

    link = Carrier(Scripted(b"read too late", sends=False), renew, lambda: None, _kept_no_more)  # type: ignore[arg-type]
    got: list[bytes] = []

    async def read() -> None:
        got.append(await link.receive(100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [0] and got == []
        replaced.set()
    assert got == [b"it comes again"] and link._received == 1


async def test_a_frame_that_arrived_though_its_stream_broke_is_not_sent_again() -> None:
    """The reader finds the stream broken while a frame is on it; the other side has it, and says so."""
    delivered, replaced, taken = trio.Event(), trio.Event(), list[bytes]()

    class Scripted:
        """Delivers a frame when it is told to, and gives none."""

        async def send(self, *frames: bytes) -> None:
            await delivered.wait()
            taken.extend(frames)

        async def take(self, max_bytes: int) -> bytes:
            raise StreamClosed("cut")

        def wake(self, reason: str) -> None: ...

        async def reset(self) -> None: ...

    fresh, theirs = Wire().lay()

    async def renew(received: int) -> tuple[PeerStream, int]:
        await replaced.wait()
        return fresh, 1

    link = Carrier(Scripted(), renew, lambda: None, _kept_no_more)  # type: ignore[arg-type]
    ends: list[bool] = []

    async def watched(work: Awaitable[object]) -> None:
        ends.append(await ended(work))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched, link.send(b"first"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(watched, link.receive(100))
            await trio.testing.wait_all_tasks_blocked()
            delivered.set()
            await trio.testing.wait_all_tasks_blocked()
            replaced.set()
            await trio.testing.wait_all_tasks_blocked()
            assert ends == [False], "it was sent, and the link did not end"
            await link.send(b"second")
            assert await theirs.receive() == b"second" and taken == [b"first"]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("theirs", [1, 1 << 40])
async def test_who_acknowledges_what_was_never_sent_is_given_up(theirs: int) -> None:
    wire = Wire()
    ours, theirs_end = wire.lay()
    link = Carrier(ours, wire.renew, lambda: None, _kept_no_more)
    await theirs_end.send(theirs.to_bytes(8, "big"))
    assert await ended(link.receive(10))


async def test_a_link_that_ends_while_a_frame_still_leaves_ends_without_a_fault() -> None:
    """Its reader hears of the end first; what is kept of it is forgotten then, also what is being sent."""
    sending, goes_on = trio.Event(), trio.Event()

    class Leaving:
        async def send(self, *frames: bytes) -> None:
            sending.set()
            await goes_on.wait()

        async def take(self, max_bytes: int) -> bytes:
            await sending.wait()
            raise StreamClosed("the other side is gone")

    link, faults = Carrier(Leaving(), None, lambda: None, _kept_no_more), list[Exception]()  # type: ignore[arg-type]

    async def send() -> None:
        try:
            await link.send(b"a frame")
        except IndexError as error:
            faults.append(error)

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with pytest.raises(StreamClosed):
                await link.receive(FRAME_BYTES)
            goes_on.set()
    assert not faults and not link.due


async def test_a_frame_may_be_written_over_once_the_other_side_has_it_and_not_before() -> None:
    wire, forgotten = Wire(), list[Frame]()
    ours, theirs = wire.lay()
    link, frames = Carrier(ours, wire.renew, lambda: None, forgotten.append), [bytes([byte]) * 9 for byte in (1, 2, 3)]
    with trio.fail_after(PATIENCE_S):
        await link.send(*frames)
        assert [await theirs.receive() for _ in frames] == frames and not forgotten
        await theirs.send((2).to_bytes(8, "big"))
        await theirs.send(b"what comes behind")
        await link.receive(100)
    assert forgotten == frames[:2]
