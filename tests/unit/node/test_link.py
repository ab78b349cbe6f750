"""Two ends of a link that both have much to say: neither waits for the other to read first."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import trio
import trio.testing

from cocoon.core.errors import StreamClosed
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import LINK_UNSENT
from cocoon.core.units import MIB
from cocoon.node.link import WorkLink
from cocoon.p2p.direct import dial_direct, listen_direct
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.wire.messages import Chunk, TrancheClose

PEER = PeerKey(bytes(32))
PATIENCE_S = 60
MANY = 24


def large(index: int) -> Chunk:
    """A message of many frames, like no other."""
    return Chunk(file=0, index=index, data=bytes([index]) * MIB)


async def test_two_ends_that_send_much_at_once_both_get_it() -> None:
    """Each answers every message that it reads with a large one: far more than the sockets between them hold."""
    session = session_keys(LinkKeys.from_bytes(os.urandom(64)), bytes(32), LeaseId(bytes(32)))
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            port = listen_direct("/ip4/127.0.0.1/tcp/0", 0)
            nursery.start_soon(port.serve)
            with port.expect() as ticket:
                dialled = await dial_direct("127.0.0.1", port.port, ticket.token)
                await ticket.arrived.wait()
                accepted = ticket.take()
            assert accepted is not None
            one = WorkLink(
                PeerStream(PEER, dialled), SealedWriter(session.to_provider), SealedReader(session.to_requester)
            )
            other = WorkLink(
                PeerStream(PEER, accepted), SealedWriter(session.to_requester), SealedReader(session.to_provider)
            )

            async def answer(link: WorkLink, heard: list[Chunk]) -> None:
                with suppress(StreamClosed):
                    while len(heard) < 2 * MANY:
                        message = await link.receive(Chunk)
                        assert isinstance(message, Chunk)
                        heard.append(message)
                        if message.index < MANY:
                            link.post(large(message.index + MANY))

            heard: tuple[list[Chunk], list[Chunk]] = [], []
            for link in (one, other):
                nursery.start_soon(link.keep_sending)
                for index in range(MANY):
                    link.post(large(index))
            with trio.move_on_after(PATIENCE_S / 4):
                async with trio.open_nursery() as readers:
                    readers.start_soon(answer, one, heard[0])
                    readers.start_soon(answer, other, heard[1])
            for raw in (dialled, accepted):
                await raw.reset()
            nursery.cancel_scope.cancel()
        # Only now: the memory in which a message came was used again for those behind it.
        assert all(messages == [large(index) for index in range(2 * MANY)] for messages in heard)


async def test_what_is_posted_while_another_sends_leaves_with_it() -> None:
    sent: list[list[object]] = []

    class Stream:
        async def send(self, *frames: bytes) -> None:
            await trio.lowlevel.checkpoint()

    link = WorkLink(Stream(), SealedWriter(bytes(32)), SealedReader(bytes(32)))  # type: ignore[arg-type]
    transmit = link._transmit

    async def noted(messages: list[object]) -> None:
        sent.append(list(messages))
        if len(sent) == 1:
            for number in (2, 3):
                link.post(TrancheClose(through=number))
        await transmit(messages)  # type: ignore[arg-type]

    link._transmit = noted  # type: ignore[assignment, method-assign]
    await link.send(TrancheClose(through=1))
    assert sent == [[TrancheClose(through=1)], [TrancheClose(through=2), TrancheClose(through=3)]]


async def test_who_reads_no_answer_is_not_listened_to_any_more() -> None:
    goes_on = trio.Event()

    class Stream:
        asked = 0

        async def send(self, *frames: bytes) -> None:
            await goes_on.wait()

        async def take(self, max_bytes: int) -> bytes:
            self.asked += 1
            await trio.sleep_forever()
            raise AssertionError("unreachable")

    stream = Stream()
    link = WorkLink(stream, SealedWriter(bytes(32)), SealedReader(bytes(32)))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep_sending)
        for number in range(LINK_UNSENT + 1):
            link.post(TrancheClose(through=number))
        nursery.start_soon(link.receive, TrancheClose)
        await trio.testing.wait_all_tasks_blocked()
        asked_meanwhile = stream.asked
        goes_on.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (asked_meanwhile, stream.asked) == (0, 1), "it went on reading from who takes nothing"


async def test_to_send_on_a_link_that_is_gone_is_the_readers_business() -> None:
    class Stream:
        async def send(self, *frames: bytes) -> None:
            raise StreamClosed("gone")

        async def take(self, max_bytes: int) -> bytes:
            raise StreamClosed("gone")

    link = WorkLink(Stream(), SealedWriter(bytes(32)), SealedReader(bytes(32)))  # type: ignore[arg-type]
    for number in range(2 * LINK_UNSENT):
        link.post(TrancheClose(through=number))
    await link.flush()
    with pytest.raises(StreamClosed):
        await link.receive(TrancheClose)
