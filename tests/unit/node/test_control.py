"""The peer's end of the control socket while a verb takes its time (CTL-5)."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

import trio
import trio.testing

from cocoon.core.errors import ChainUnreachable
from cocoon.core.limits import CONTROL_READ_NS, CONTROL_REPLY_NS, MESSAGE_BYTES
from cocoon.core.units import SECOND_NS
from cocoon.node.control import Args, Caller, ControlServer
from cocoon.telemetry.log import get_logger
from cocoon.wire.codec import decode, encode
from cocoon.wire.framing import FrameParser, frame

READ_S = CONTROL_READ_NS / SECOND_NS
WAITING = {"event": "waiting"}


@dataclass
class Client:
    """A local client that has just asked for the verb ``slow``."""

    stream: trio.SocketStream
    over: trio.Event
    parser: FrameParser = field(default_factory=lambda: FrameParser(MESSAGE_BYTES))
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self) -> None:
        request = {"token": "t", "verb": "slow", "args": {}}
        await self.stream.send_all(frame(encode(request, keys="str")))

    async def listen(self) -> list[dict[str, Any]]:
        """Everything until the peer hangs up."""
        async for data in self.stream:
            for message in self.parser.feed(data):
                told = decode(message, max_bytes=MESSAGE_BYTES, keys="str")
                assert isinstance(told, dict)
                self.heard.append(told)
        self.parser.end()
        return self.heard


@asynccontextmanager
async def asking(slow: Any) -> AsyncIterator[Client]:
    """A client of a peer whose only verb is ``slow``; ``over`` is set once the peer has done with it."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    server = ControlServer({"slow": slow}, "t", get_logger("test"))
    client = Client(ours, trio.Event())

    async def serve() -> None:
        await server.answer(theirs)
        client.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.ask()
        yield client
        await client.over.wait()
        await ours.aclose()


async def test_a_peer_says_that_it_still_works_on_a_slow_verb(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(caller: Caller, args: Args) -> dict[str, Any]:
        await trio.sleep(3.5 * READ_S)
        return {"lanes_open": 0}

    async with asking(slow) as client:
        assert await client.listen() == [WAITING, WAITING, WAITING, {"done": {"lanes_open": 0}}]
    assert CONTROL_READ_NS < CONTROL_REPLY_NS, "a client must hear of it before it takes its peer for lost"


async def test_a_verb_that_fails_late_is_answered_with_its_error(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(caller: Caller, args: Args) -> dict[str, Any]:
        await trio.sleep(1.5 * READ_S)
        raise ChainUnreachable("nobody answers")

    async with asking(slow) as client:
        waiting, failed = await client.listen()
    assert waiting == WAITING and failed["error"]["code"] == "chain_unreachable"


async def test_a_quick_verb_says_nothing_but_its_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def quick(caller: Caller, args: Args) -> dict[str, Any]:
        return {}

    async with asking(quick) as client:
        assert await client.listen() == [{"done": {}}]


async def test_what_a_client_began_goes_on_after_it_has_hung_up(autojump_clock: trio.testing.MockClock) -> None:
    settled = trio.Event()

    async def slow(caller: Caller, args: Args) -> dict[str, Any]:
        await trio.sleep(2.5 * READ_S)
        settled.set()
        return {}

    async with asking(slow) as client:
        await client.stream.aclose()
    assert settled.is_set()


async def test_a_word_of_patience_stands_between_whole_frames(autojump_clock: trio.testing.MockClock) -> None:
    """A client that takes its time holds a large result up, and with it the next word; neither is cut."""
    outputs = bytes(8 << 20)                            # far more than the socket takes at once

    async def slow(caller: Caller, args: Args) -> dict[str, Any]:
        await caller.say({"event": "result", "outputs": outputs})
        return {}

    async with asking(slow) as client:
        await trio.sleep(1.5 * READ_S)
        assert await client.listen() == [{"event": "result", "outputs": outputs}, WAITING, {"done": {}}]


async def pass_descriptors(client: Client, *descriptors: int) -> None:
    """A frame, and these beside it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
    await client.stream.socket.sendmsg([frame(encode({"first": 0}, keys="str"))], rights)


async def test_a_descriptor_that_a_client_passes_is_taken_once_and_no_child_inherits_it() -> None:
    async def take(caller: Caller, args: Args) -> dict[str, Any]:
        await caller.hear()
        taken = caller.take_descriptor()
        assert taken is not None and caller.take_descriptor() is None
        kept, inherited = os.fstat(taken).st_ino, os.get_inheritable(taken)
        os.close(taken)
        return {"inode": kept, "inherited": inherited}

    with TemporaryFile() as file:
        async with asking(take) as client:
            await pass_descriptors(client, file.fileno())
            assert await client.listen() == [{"done": {"inode": os.fstat(file.fileno()).st_ino, "inherited": False}}]


async def test_descriptors_that_nobody_takes_are_closed() -> None:
    async def ignore(caller: Caller, args: Args) -> dict[str, Any]:
        for _ in range(3):
            await caller.hear()
        return {}

    with NamedTemporaryFile() as file:
        async with asking(ignore) as client:
            for _ in range(3):
                await pass_descriptors(client, *[file.fileno()] * 40)
            assert await client.listen() == [{"done": {}}]
        assert [link.resolve() for link in Path("/proc/self/fd").iterdir()].count(Path(file.name).resolve()) == 1


BIG = {"event": "result", "outputs": bytes(4 << 20)}


async def cut_short(caller: Caller, args: Args) -> dict[str, Any]:
    """A verb whose last event is on its way when it is over."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.say, BIG)
        await trio.testing.wait_all_tasks_blocked()     # the socket is full, the frame is not out
        nursery.cancel_scope.cancel()
    return {"units": 1}


async def test_a_frame_that_was_begun_is_finished_before_the_answer() -> None:
    async with asking(cut_short) as client:
        assert await client.listen() == [BIG, {"done": {"units": 1}}]


async def test_a_client_that_does_not_read_is_left_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with asking(cut_short) as client:
        await client.over.wait()
    assert trio.current_time() >= READ_S
