"""Two peers that meet: Hello, streams, loss, wrong network."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

import pytest
import trio
import trio.testing

from cocoon.core.errors import (
    BootstrapUnreachable,
    ListenFailed,
    StreamClosed,
    TooLarge,
    Unreachable,
    UsageError,
    WrongNetwork,
)
from cocoon.p2p import links, service
from cocoon.p2p.addresses import parse_peer
from cocoon.p2p.links import BEAT_PROTOCOL
from tests.adapters.p2p.p2p_hosts import (
    KEY,
    PATIENCE_S,
    Recorder,
    bare_host,
    echo,
    mesh,
    never_raises,
    pair,
    silent,
    until,
)


async def test_frames_of_every_size_come_back_unchanged():
    async with pair("/test/echo/1", echo) as (server, client):
        stream = await client.open_stream(server.peer, "/test/echo/1")
        for size in (0, 1, 65_507, 65_508, 262_144, 3_000_000):
            payload = os.urandom(size)
            await stream.send(payload)
            assert await stream.receive(1 << 24) == payload
        await stream.close()


async def test_both_sides_know_each_other_and_what_the_other_sells():
    async with pair("/test/echo/1", echo, sells=True, agent="seller") as (server, client):
        assert client.connections() == [server.peer]
        assert server.connections() == [client.peer]
        assert client.hello_of(server.peer).sells and client.hello_of(server.peer).agent == "seller"
        assert not server.hello_of(client.peer).sells


async def test_a_peer_of_another_network_is_refused_with_a_typed_error_on_both_sides():
    log = Recorder()
    other = hashlib.sha256(b"another network").digest()
    async with mesh(log) as here, mesh(network=other) as there:
        with pytest.raises(WrongNetwork):
            await there.connect(here.addresses()[0])
        await log.wait_for("p2p.link_closed", inbound=True)
        assert any("network" in str(f["reason"]) for f in log.named("p2p.link_closed"))
        assert not here.connections() and not there.connections()


@never_raises(trio.TooSlowError)
async def test_a_connection_that_never_says_hello_is_closed(monkeypatch):
    monkeypatch.setattr(links, "HANDSHAKE_NS", 100_000_000)
    log = Recorder()
    async with mesh(log) as server, bare_host() as stranger:
        address, peer = parse_peer(server.addresses()[0])
        connection = await stranger.dial(peer, address)
        with trio.fail_after(PATIENCE_S):
            await connection.closed.wait()
        assert server.connections() == []


async def test_no_protocol_of_ours_is_served_before_hello():
    served = trio.Event()

    async def handler(stream):
        served.set()

    async with mesh() as server, bare_host() as stranger:
        server.serve("/test/private/1", handler)
        address, peer = parse_peer(server.addresses()[0])
        connection = await stranger.dial(peer, address)
        said = b""
        with trio.fail_after(PATIENCE_S), suppress(StreamClosed, Unreachable):
            said = await (await connection.open("/test/private/1")).read(1 << 16)
        assert said == b"" and not served.is_set()


async def test_nonsense_on_the_heartbeat_stream_ends_the_connection_and_nothing_else():
    async with mesh() as server, bare_host() as stranger, mesh() as friend:
        await friend.connect(server.addresses()[0])
        address, peer = parse_peer(server.addresses()[0])
        connection = await stranger.dial(peer, address)
        stream = await connection.open(BEAT_PROTOCOL)
        await stream.write(b"\x00\x00\x00\x03\xc1\xc1\xc1")
        with trio.fail_after(PATIENCE_S):
            await connection.closed.wait()
        assert server.connections() == [friend.peer]


@never_raises(trio.TooSlowError)
async def test_closing_a_stream_wakes_its_own_blocked_reader():
    async with pair("/test/silent/1", silent) as (server, client):
        for end in ("close", "reset"):
            stream = await client.open_stream(server.peer, "/test/silent/1")
            raised = []

            async def read(stream=stream, raised=raised):
                with pytest.raises(StreamClosed):
                    await stream.receive()
                raised.append(True)

            with trio.fail_after(PATIENCE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read)
                    await trio.testing.wait_all_tasks_blocked()
                    await getattr(stream, end)()
            assert raised


@never_raises(trio.TooSlowError)
async def test_a_vanished_peer_wakes_blocked_readers_and_is_reported_lost_once():
    async with mesh() as client, client.watch() as lost:
        async with mesh() as server:
            server.serve("/test/silent/1", silent)
            await client.connect(server.addresses()[0])
            stream = await client.open_stream(server.peer, "/test/silent/1")
            gone = server.peer
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(StreamClosed):
                await stream.receive()
            assert (await lost.receive()).peer == gone
        assert client.connections() == []
        with pytest.raises(trio.WouldBlock):
            lost.receive_nowait()


@never_raises(trio.TooSlowError)
async def test_silence_of_a_connected_peer_is_death_even_if_its_socket_stays_open(monkeypatch):
    monkeypatch.setattr(links, "HEARTBEAT_NS", 200_000_000)    # a busy machine must not silence the other peer

    async def mute(stream):
        await trio.sleep_forever()

    async with pair("/test/silent/1", silent) as (server, client), client.watch() as lost:
        stream = await client.open_stream(server.peer, "/test/silent/1")
        monkeypatch.setattr(links, "_send_beats", mute)      # peers that connect from now on never beat
        async with mesh() as frozen:
            await client.connect(frozen.addresses()[0])
            with trio.fail_after(PATIENCE_S):
                notice = await lost.receive()
            assert notice.peer == frozen.peer and "heartbeat" in notice.reason
        assert server.peer in client.connections() and not stream.ended


async def test_a_frame_above_the_readers_limit_is_refused_before_it_is_read():
    async def boast(stream):
        await stream._raw.write(b"\x80\x00\x00\x00")     # 2 GiB announced, nothing sent
        await trio.sleep_forever()

    async with pair("/test/boast/1", boast) as (server, client):
        stream = await client.open_stream(server.peer, "/test/boast/1")
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(TooLarge):
                await stream.receive()
            with pytest.raises(StreamClosed):
                await stream.receive()


async def test_a_truncated_frame_is_a_closed_stream():
    async def cut(stream):
        await stream._raw.write(b"\x00\x00\x00\x10half")

    async with pair("/test/cut/1", cut) as (server, client):
        stream = await client.open_stream(server.peer, "/test/cut/1")
        with trio.fail_after(PATIENCE_S), pytest.raises(StreamClosed, match="inside a frame"):
            await stream.receive()


@never_raises(trio.TooSlowError)
async def test_streams_on_which_nobody_speaks_give_their_places_back(monkeypatch):
    monkeypatch.setattr(service, "HANDSHAKE_NS", 100_000_000)
    monkeypatch.setattr(service, "STREAMS_PER_PROTOCOL", 2)
    async with pair("/test/echo/1", echo) as (server, client):
        for _ in range(2):
            await client.open_stream(server.peer, "/test/echo/1")
        await until(lambda: not server._served["/test/echo/1"], trio.lowlevel.checkpoint)
        monkeypatch.setattr(service, "HANDSHAKE_NS", 10 * 10**9)
        stream = await client.open_stream(server.peer, "/test/echo/1")
        await stream.send(b"heard")
        assert await stream.receive() == b"heard"


async def test_an_unknown_protocol_is_unreachable():
    async with pair("/test/echo/1", echo) as (server, client):
        with pytest.raises(Unreachable):
            await client.open_stream(server.peer, "/test/nothing/1")
        assert client.connections() == [server.peer]


async def test_a_taken_port_is_refused_and_not_shared():
    """SO_REUSEPORT in the library lets two peers listen on one port."""
    async with mesh() as first:
        taken = first.listening()[0]
        with pytest.raises(ListenFailed):
            async with mesh(listen=(taken,)):
                pass


async def test_a_peer_comes_back_on_the_port_it_had():
    async with mesh() as first:
        had = first.listening()
    async with mesh(listen=tuple(had)) as again:
        assert again.listening() == had


async def test_an_error_in_the_block_comes_out_as_itself():
    with pytest.raises(UsageError, match="mine"):
        async with mesh() as first, mesh() as second:
            await second.connect(first.addresses()[0])
            raise UsageError("mine")


async def test_cancelling_the_block_ends_it_without_an_error():
    with trio.move_on_after(PATIENCE_S) as scope:
        async with mesh() as first, mesh() as second:
            await second.connect(first.addresses()[0])
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_newcomer_whose_bootstrap_is_dead_says_so_and_joins_when_it_returns():
    seed = os.urandom(32)
    async with mesh(seed=seed) as first:
        address, port = first.addresses()[0], first.listening()[0]
    async with mesh(bootstraps=(address,)) as newcomer:
        with trio.fail_after(PATIENCE_S), pytest.raises(BootstrapUnreachable):
            await newcomer.join()
        async with mesh(seed=seed, listen=(port,)), newcomer.watch():
            with trio.fail_after(PATIENCE_S):
                while not newcomer.joined:
                    await newcomer._changed.wait()


async def test_the_first_peer_of_a_network_joins_nobody_without_an_error():
    async with mesh() as first:
        assert await first.join() == 0


async def test_a_buyer_cannot_announce():
    async with mesh() as buyer:
        with pytest.raises(UsageError):
            await buyer.provide(KEY)


async def test_one_protocol_has_one_handler():
    async with mesh() as peer:
        peer.serve("/test/echo/1", echo)
        with pytest.raises(UsageError):
            peer.serve("/test/echo/1", echo)
