"""Sockets that do not pass the event loop at each call, and let others go first all the same."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from cocoon.core.errors import StreamClosed
from cocoon.core.ids import PeerKey
from cocoon.core.limits import SEND_STALL_NS
from cocoon.core.units import KIB, MIB, SECOND_NS
from cocoon.p2p.sockets import SocketBytes
from cocoon.p2p.streams import PeerStream
from cocoon.wire.framing import frame


def pair() -> tuple[SocketBytes, SocketBytes]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    return SocketBytes(ours), SocketBytes(theirs)


class Passes:
    """Counts passes of the loop while something else goes on."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


async def test_what_fits_the_buffers_does_not_pass_the_loop() -> None:
    ours, theirs = pair()
    passes = Passes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(passes.run)
        await trio.lowlevel.checkpoint()
        before = passes.count
        for _ in range(4):
            await ours.write(b"question")
            assert await theirs.read(MIB) == b"question"
        assert passes.count == before
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [100, 64 * KIB])
async def test_a_writer_and_a_reader_that_always_may_go_on_let_others_go_first(size: int) -> None:
    ours, theirs = pair()
    passes = Passes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(passes.run)
        for _ in range(100):
            await ours.write(bytes(size))
            left = size
            while left:
                left -= len(await theirs.read(MIB))
        assert passes.count >= 8, "each of them, once in 16 calls"
        nursery.cancel_scope.cancel()


async def test_a_thousand_small_frames_that_came_together_let_others_go_first() -> None:
    ours, theirs = pair()
    await ours.write(*[frame(b"small")] * 1_000)
    stream, passes = PeerStream(PeerKey(bytes(32)), theirs), Passes()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(passes.run)
        for _ in range(1_000):
            assert await stream.receive() == b"small"
        assert passes.count >= 50, "once in 16 frames"
        nursery.cancel_scope.cancel()


async def test_pieces_arrive_as_one_behind_the_other_however_much_is_taken_at_a_time() -> None:
    ours, theirs = pair()
    pieces = [bytes([number % 251]) * (number * 1_000) for number in range(200)]
    whole, heard = b"".join(pieces), bytearray()

    async def hear() -> None:
        while len(heard) < len(whole):
            heard.extend(await theirs.read(MIB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await ours.write(*pieces)
    assert heard == whole


async def test_a_writer_of_whom_nothing_is_taken_gives_up(autojump_clock: trio.testing.MockClock) -> None:
    ours, _ = pair()
    with trio.fail_after(2 * SEND_STALL_NS / SECOND_NS), pytest.raises(StreamClosed, match="took nothing for 30 s"):
        await ours.write(bytes(64 * MIB))


async def test_a_reader_wakes_when_its_own_side_closes() -> None:
    ours, _ = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_closed, ours)
        await trio.testing.wait_all_tasks_blocked()
        await ours.close()


async def test_who_waits_is_woken_and_the_connection_is_not_closed() -> None:
    ours, theirs = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_closed, ours)
        await trio.testing.wait_all_tasks_blocked()
        ours.wake()
    await _closed(ours)
    await ours.write(b"last words")
    assert await theirs.read(MIB) == b"last words"
    with pytest.raises(StreamClosed):
        await ours.write(bytes(64 * MIB))


async def test_a_stream_that_was_woken_says_why() -> None:
    (ours, _silent), (theirs, _deaf) = pair(), pair()
    stream, full = PeerStream(PeerKey(bytes(32)), ours), PeerStream(PeerKey(bytes(32)), theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ended, lambda: stream.receive())
        nursery.start_soon(_ended, lambda: full.send(bytes(64 * MIB)))
        await trio.testing.wait_all_tasks_blocked()
        stream.wake("its peer is lost")
        full.wake("its peer is lost")


async def _ended(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(StreamClosed, match="its peer is lost"):
        await call()


async def test_a_long_frame_is_read_to_where_it_stays() -> None:
    ours, theirs = pair()
    stream = PeerStream(PeerKey(bytes(32)), theirs)
    long = [bytes([number]) * (256 * KIB) for number in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.write, *map(frame, [*long, b"short"]))
        taken = [await stream.take(MIB) for _ in long]
        assert taken == long and type(taken[-1]) is bytearray
        assert await stream.receive() == b"short"


async def _closed(raw: SocketBytes) -> None:
    with pytest.raises(StreamClosed):
        await raw.read(MIB)
