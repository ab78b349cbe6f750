"""P2P-10: a lease's own TCP connection goes to who waits for its token, and to nobody else."""

import os
import resource
import socket
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from cocoon.core.errors import ListenFailed, StreamClosed, Unreachable
from cocoon.core.limits import DIRECT_TOKEN_BYTES, HANDSHAKES_TRANSIENT
from cocoon.p2p.direct import dial_direct, listen_direct
from cocoon.p2p.streams import PeerStream
from tests.adapters.p2p.p2p_hosts import PATIENCE_S, mesh

HOME = "/ip4/127.0.0.1/tcp/0"
PEER = bytes(32)


@asynccontextmanager
async def opened():
    """A port that is served."""
    port = listen_direct(HOME, 0)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.serve)
            yield port
            nursery.cancel_scope.cancel()


async def hung_up(read) -> bool:
    """Whether the other end is gone; it is not if nothing comes for long."""
    with trio.move_on_after(PATIENCE_S / 8):
        try:
            return await read(1) == b""
        except (trio.BrokenResourceError, StreamClosed):
            return True
    return False


async def test_who_shows_the_token_speaks_with_who_waits_for_it():
    async with opened() as port:
        with port.expect() as ticket:
            ours = PeerStream(PEER, await dial_direct("127.0.0.1", port.port, ticket.token))
            await ticket.arrived.wait()
            theirs = PeerStream(PEER, ticket.take())
        large = bytes(range(256)) * 4_096
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, large)
            assert await theirs.receive(len(large)) == large
        await theirs.send(b"answer")
        assert await ours.receive() == b"answer"
        await theirs.close()
        with pytest.raises(StreamClosed):
            await ours.receive()
        await ours.close()


@pytest.mark.parametrize("shown", [b"", b"short", bytes(DIRECT_TOKEN_BYTES)])
async def test_who_shows_no_token_or_another_is_hung_up_on(shown):
    async with opened() as port:
        with port.expect() as ticket:
            async with await trio.open_tcp_stream("127.0.0.1", port.port) as stranger:
                await stranger.send_all(shown)
                await stranger.send_eof()
                assert await hung_up(stranger.receive_some)
            assert not ticket.arrived.is_set()


async def test_a_token_is_good_for_one_connection_and_only_while_it_is_awaited():
    async with opened() as port:
        with port.expect() as ticket:
            first = await dial_direct("127.0.0.1", port.port, ticket.token)
            await ticket.arrived.wait()
            with pytest.raises(Unreachable):
                await dial_direct("127.0.0.1", port.port, ticket.token)
        assert await hung_up(first.read), "nobody took it before the block ended"
        with pytest.raises(Unreachable):
            await dial_direct("127.0.0.1", port.port, ticket.token)
        await first.close()


async def test_silent_connections_are_few():
    async with opened() as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port.port) for _ in range(HANDSHAKES_TRANSIENT)]
        async with await trio.open_tcp_stream("127.0.0.1", port.port) as one_more:
            assert await hung_up(one_more.receive_some)
        with port.expect() as ticket, pytest.raises(Unreachable):
            await dial_direct("127.0.0.1", port.port, ticket.token)
        for stream in silent:
            await stream.aclose()


@contextmanager
def no_room_for_files():
    """This process can open no descriptor until the block ends."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_port_that_finds_no_room_for_a_connection_goes_on_and_takes_it_later():
    port, broken = listen_direct(HOME, 0), []

    async def serve():
        try:
            await port.serve()
        except* OSError as error:
            broken.append(error)

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with port.expect() as ticket, socket.socket() as early:
                with no_room_for_files():
                    with pytest.raises(OSError, match="Too many open files"):
                        os.dup(0)
                    early.connect(("127.0.0.1", port.port))     # the kernel completes it, nobody can take it
                    early.sendall(ticket.token)
                    await trio.testing.wait_all_tasks_blocked()
                    assert not broken and not ticket.arrived.is_set()
                await ticket.arrived.wait()
                assert early.recv(1) == b"\1"
            nursery.cancel_scope.cancel()


async def test_a_cancelled_read_has_taken_nothing():
    async with opened() as port:
        with port.expect() as ticket:
            writer = await dial_direct("127.0.0.1", port.port, ticket.token)
            await ticket.arrived.wait()
            reader = ticket.take()
        with trio.move_on_after(0):
            await reader.read(1 << 16)
        await writer.write(b"all")
        assert await reader.read(1 << 16) == b"all"
        for raw in (reader, writer):
            await raw.close()


async def test_a_port_where_nobody_listens_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="cannot be reached"):
            await dial_direct("127.0.0.1", taken.getsockname()[1], bytes(DIRECT_TOKEN_BYTES))
    with pytest.raises(Unreachable):
        await dial_direct(None, 1, bytes(DIRECT_TOKEN_BYTES))


async def test_a_port_that_is_taken_is_said():
    port = listen_direct(HOME, 0)
    with pytest.raises(ListenFailed, match=str(port.port)):
        listen_direct(HOME, port.port)
    port._listener.close()


async def test_a_stream_of_ones_own_wakes_when_the_peer_is_lost():
    async with mesh(direct_port=0) as provider, mesh() as requester:
        await requester.connect(provider.addresses()[0])
        with trio.fail_after(PATIENCE_S), provider.direct.expect() as ticket:
            stream = await requester.dial_direct(provider.peer, provider.direct.port, ticket.token)
            await ticket.arrived.wait()
            kept = provider.adopt(requester.peer, ticket.take())
            requester.disconnect(provider.peer)
            with pytest.raises(StreamClosed):
                await stream.receive()
            with pytest.raises(StreamClosed):
                await kept.receive()
        with pytest.raises(Unreachable):
            await requester.dial_direct(provider.peer, 1, ticket.token)
