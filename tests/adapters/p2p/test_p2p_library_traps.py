"""One test for each trap of py-libp2p 0.8.1 that docs/dependencies.md lists; each fails without its cure."""

from __future__ import annotations

import gc
import math
import os
import struct

import pytest
import trio
import trio.testing

from cocoon.p2p import compat, swarm  # first: libp2p cannot be imported without it

# isort: split
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, YAMUX_HEADER_FORMAT
from multiaddr import Multiaddr

from cocoon.core.errors import CocoonError, StreamClosed, Unreachable
from cocoon.p2p.addresses import parse_peer
from cocoon.p2p.host import lib_id
from tests.adapters.p2p.p2p_hosts import (
    PATIENCE_S,
    Recorder,
    descriptors,
    echo,
    mesh,
    never_raises,
    pair,
    silent,
    tasks,
    until,
)

ROUNDS = 24


async def pour(stream) -> None:
    """Numbered blocks for ever."""
    number = 0
    while True:
        await stream._raw.write(struct.pack(">I", number) * 4096)
        number += 1


async def drain(stream) -> None:
    while await stream._raw.read(1 << 20):
        pass


async def still_works(client, server) -> None:
    stream = await client.open_stream(server.peer, "/test/echo/1")
    await stream.send(b"ping")
    assert await stream.receive() == b"ping"
    await stream.close()


# --- cancellation ------------------------------------------------------------------


@never_raises(CocoonError, trio.TooSlowError)
async def test_cancelled_reads_keep_the_connection_and_lose_no_byte(monkeypatch):
    scopes: list[trio.CancelScope] = []

    async def cancelled_credit(stream, *, bytes_read):
        """The read ends just when its bytes have left the buffer."""
        while scopes:
            scopes.pop().cancel()
        await credit(stream, bytes_read=bytes_read)

    credit = compat._original_credit
    monkeypatch.setattr(compat, "_original_credit", cancelled_credit)
    async with pair("/test/pour/1", pour) as (server, client):
        server.serve("/test/echo/1", echo)
        connection = client.links_to(server.peer)[0].connection
        with trio.fail_after(60):
            for attempt in range(ROUNDS // 4):
                stream = await client.open_stream(server.peer, "/test/pour/1")
                got = bytearray()
                for step in range(8):
                    with trio.move_on_after(0.001 + 0.0011 * ((attempt * 8 + step) % 13)) as scope:
                        if step % 2:
                            scope.deadline = math.inf
                            scopes.append(scope)
                        while True:
                            got += await stream._raw.read(1 << 20)
                whole = len(got) // 4
                numbers = struct.unpack(f">{whole}I", got[: whole * 4])
                assert list(numbers) == [n // 4096 for n in range(whole)]
                await stream.reset()
                await still_works(client, server)
        assert not connection.closed.is_set()


@never_raises(CocoonError, trio.TooSlowError)
async def test_cancelled_writes_cost_their_stream_and_not_the_connection():
    async with pair("/test/drain/1", drain) as (server, client):
        server.serve("/test/echo/1", echo)
        connection = client.links_to(server.peer)[0].connection
        cut = 0
        with trio.fail_after(60):
            for attempt in range(ROUNDS):
                stream = await client.open_stream(server.peer, "/test/drain/1")
                with trio.move_on_after(0.001 + 0.0007 * attempt):
                    while True:
                        await stream.send(os.urandom(1 << 20))
                if stream.ended:
                    cut += 1
                    with pytest.raises(StreamClosed):
                        await stream.send(b"after half a frame nothing can follow")
                await still_works(client, server)
        assert cut and not connection.closed.is_set()


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_frame_whose_writer_is_cancelled_half_way_is_finished(monkeypatch):
    half, goes_on = trio.Event(), trio.Event()
    original = trio.SocketStream.send_all

    async def halting(self, data):
        begun = 0
        if len(data) > 60_000 and not half.is_set():
            begun = 1_000
            await original(self, data[:begun])
            half.set()
            await goes_on.wait()
        await original(self, data[begun:])

    async with pair("/test/drain/1", drain) as (server, client):
        server.serve("/test/echo/1", echo)
        stream = await client.open_stream(server.peer, "/test/drain/1")
        monkeypatch.setattr(trio.SocketStream, "send_all", halting)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send, os.urandom(1 << 20))
                await half.wait()
                nursery.cancel_scope.cancel()
                goes_on.set()
        assert stream.ended
        await still_works(client, server)


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_cancelled_close_and_a_cancelled_open_give_their_slot_back():
    async with pair("/test/echo/1", echo) as (server, client):
        connection = client.links_to(server.peer)[0].connection
        slots = connection._muxed.stream_backlog_semaphore
        for _ in range(8):
            stream = await client.open_stream(server.peer, "/test/echo/1")
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.close()
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.open_stream(server.peer, "/test/echo/1")
            with trio.move_on_after(0.0005):
                await client.open_stream(server.peer, "/test/echo/1")
        # What stays is the heartbeat; identify may still be under way.
        await until(lambda: slots.value == 255, trio.testing.wait_all_tasks_blocked)
        await until(lambda: len(connection._conn.streams) == 1, trio.testing.wait_all_tasks_blocked)


# --- streams -----------------------------------------------------------------------


@never_raises(CocoonError, trio.TooSlowError, ValueError)
async def test_an_exception_in_a_handler_costs_its_stream_only():
    log = Recorder()

    async def boom(stream):
        raise ValueError("a defect in a handler")

    async with pair("/test/boom/1", boom, log=log) as (server, client):
        server.serve("/test/echo/1", echo)
        for _ in range(20):
            with trio.fail_after(PATIENCE_S), pytest.raises((StreamClosed, Unreachable)):
                await (await client.open_stream(server.peer, "/test/boom/1")).receive()
        await still_works(client, server)
        assert "a defect in a handler" in str((await log.wait_for("p2p.handler_failed"))["error"])


@never_raises(CocoonError, trio.TooSlowError, ValueError)
async def test_an_exception_in_the_librarys_own_handler_costs_its_stream_only(monkeypatch):
    async def boom(self, stream):
        raise ValueError("a defect in Kademlia")

    monkeypatch.setattr(kad_dht.KadDHT, "handle_stream", boom)
    log = Recorder()
    async with mesh(log, dht_server=True) as server, mesh() as client:
        await client.connect(server.addresses()[0])
        await client.find_providers(bytes(32), 1)
        await log.wait_for("p2p.handler_failed", protocol="stream")
        assert client.connections() == [server.peer]


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_reader_slower_than_five_seconds_gets_everything():
    """The library's writer gives up after 5 s without credit."""
    start = trio.Event()
    size = 1 << 23

    async def slow(stream):
        await start.wait()
        got = await stream.receive(size)
        await stream.send(len(got).to_bytes(4, "big"))

    async with pair("/test/slow/1", slow) as (server, client):
        stream = await client.open_stream(server.peer, "/test/slow/1")
        sent = trio.Event()

        async def send():
            await stream.send(bytes(size))
            sent.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                with trio.move_on_after(5.5):
                    await sent.wait()               # it cannot be: nobody reads
                assert not sent.is_set()
                start.set()
            assert await stream.receive() == size.to_bytes(4, "big")


@never_raises(trio.TooSlowError)
async def test_the_257th_unclosed_stream_fails_at_once_instead_of_hanging(monkeypatch):
    monkeypatch.setattr("cocoon.p2p.host.STREAMS_OUT_PER_PEER", 1000)
    monkeypatch.setattr("cocoon.p2p.host.STREAMS_IN_PER_PEER", 1000)
    monkeypatch.setattr("cocoon.p2p.service.STREAMS_PER_PROTOCOL", 1000)
    async with pair("/test/silent/1", silent) as (server, client):
        opened = []
        with trio.fail_after(60):
            with pytest.raises(Unreachable) as refused:
                while True:
                    opened.append(await client.open_stream(server.peer, "/test/silent/1"))
            assert "256" in refused.value.text
            assert len(opened) >= 250
            await opened.pop().close()
            opened.append(await client.open_stream(server.peer, "/test/silent/1"))


async def test_our_own_limit_on_open_streams_is_typed_and_below_the_librarys():
    async with pair("/test/silent/1", silent) as (server, client):
        with trio.fail_after(60), pytest.raises((Unreachable, StreamClosed)):
            while True:
                stream = await client.open_stream(server.peer, "/test/silent/1")
                if len(client.links_to(server.peer)[0].connection._streams_out) > 64:
                    await stream.receive()              # the server takes 64 and resets the rest


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_peer_that_ignores_its_windows_is_cut_off():
    async with pair("/test/silent/1", silent) as (server, client):
        server_link = server.links_to(client.peer)[0]
        stream = await client.open_stream(server.peer, "/test/silent/1")
        muxed = client.links_to(server.peer)[0].connection._muxed
        stream_id = stream._raw._stream.muxed_stream.stream_id
        header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, stream_id, 60_000)
        with trio.fail_after(60):
            while not server_link.connection.closed.is_set():
                held = sum(map(len, server_link.connection._muxed.stream_buffers.values()))
                assert held <= swarm_buffer_limit()
                try:
                    await muxed._write_frame(header + bytes(60_000))
                except compat.TRANSPORT_ERRORS:
                    await server_link.connection.closed.wait()


def swarm_buffer_limit() -> int:
    return compat.CONNECTION_BUFFER_BYTES


# --- dialling ------------------------------------------------------------------------


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_dead_address_before_a_good_one_does_not_shut_the_peer_out():
    """The library tries the first address only and then refuses the peer for 60 s."""
    async with mesh() as server, mesh() as client:
        good, peer = parse_peer(server.addresses()[0])
        async with mesh() as gone:
            dead, _ = parse_peer(gone.addresses()[0])
        for address in (dead, good):
            client._book.heard(peer, [address])
        with pytest.raises(Unreachable):
            await client.connect(dead.of(peer))
        with trio.fail_after(PATIENCE_S):
            assert await client.connect(peer) == peer
        assert client._book.addresses(peer)[0] == good


async def test_another_peer_at_the_address_is_not_taken_for_the_one_we_wanted():
    async with mesh() as server, mesh() as wanted, mesh() as client:
        address, _ = parse_peer(server.addresses()[0])
        with pytest.raises(Unreachable, match="mismatch|upgrade"):
            await client.connect(address.of(wanted.peer))
        assert client.connections() == []


async def test_a_plaintext_dial_is_refused():
    """A default host of the library accepts it."""
    import libp2p
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport

    keys = create_new_key_pair()
    plain = libp2p.new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)})
    async with mesh() as server, plain.run(listen_addrs=[]):
        try:
            with trio.fail_after(PATIENCE_S), pytest.raises(SwarmException):
                await plain.connect(info_from_p2p_addr(Multiaddr(server.addresses()[0])))
            assert server.connections() == [] and server._host.connections() == []
        finally:
            await plain.close()


async def test_nobody_is_dialled_just_because_the_peerstore_knows_him(monkeypatch):
    """The library's auto-connector fills up to half of all connections by itself."""
    dialled = []

    async def note(peer_id):
        dialled.append(peer_id)
        return []

    async with mesh() as peer, mesh() as stranger:
        monkeypatch.setattr(peer._host._swarm, "dial_peer", note)
        where = [Multiaddr(stranger.listening()[0])]
        peer._host.lib.get_peerstore().add_addrs(lib_id(stranger.peer), where, 600)
        connector = peer._host._swarm.auto_connector
        assert connector._started
        await connector.maybe_connect()
        assert dialled == []


async def test_no_forgotten_path_of_the_library_can_dial():
    """It would try the first address only and then refuse the peer for 60 s."""
    async with mesh() as peer, mesh() as stranger:
        peer._host.lib.get_peerstore().add_addrs(lib_id(stranger.peer), [Multiaddr(stranger.listening()[0])], 600)
        with pytest.raises(SwarmException):
            await peer._host.lib.new_stream(lib_id(stranger.peer), ["/ipfs/ping/1.0.0"])
        assert peer._host.connections() == []


def test_the_librarys_wait_of_250_ms_after_each_dial_is_gone():
    import libp2p.network.swarm

    assert libp2p.network.swarm._HAPPY_EYEBALLS_DELAY == 0.0


# --- admission -------------------------------------------------------------------------


@never_raises(CocoonError, trio.TooSlowError)
async def test_an_inbound_connection_gives_its_slot_and_its_task_back():
    """The library keeps both until the host ends: after 250 connections nobody can come any more."""
    async with mesh() as server:
        used = server._host._swarm._inbound_by_ip
        for _ in range(3):
            async with mesh() as client:
                await client.connect(server.addresses()[0])
                assert used.total() == 1
            await until(lambda: used.total() == 0, trio.testing.wait_all_tasks_blocked)


async def test_inbound_connections_above_the_limit_are_refused_and_a_freed_place_is_taken(monkeypatch):
    monkeypatch.setattr(swarm, "CONNECTIONS_INBOUND", 2)
    log = Recorder()
    async with mesh(log) as server:
        where = server.addresses()[0]
        async with mesh() as first:
            await first.connect(where)
            async with mesh() as second, mesh() as third:
                await second.connect(where)
                with pytest.raises(Unreachable):
                    await third.connect(where)
                await log.wait_for("p2p.connection_refused")
        used = server._host._swarm._inbound_by_ip
        await until(lambda: not used.total(), trio.testing.wait_all_tasks_blocked)
        async with mesh() as fourth:
            await fourth.connect(where)
            assert server.connections() == [fourth.peer]


async def test_handshakes_that_never_end_do_not_lock_newcomers_out_for_long(monkeypatch):
    monkeypatch.setattr(swarm, "HANDSHAKES_TRANSIENT", 2)
    log = Recorder()
    async with mesh(log) as server, mesh() as client:
        address, _ = parse_peer(server.addresses()[0])
        idle = [await trio.open_tcp_stream(address.host, address.port) for _ in range(2)]
        await until(lambda: server._host._swarm._handshakes == 2, trio.testing.wait_all_tasks_blocked)
        with pytest.raises(Unreachable):
            await client.connect(server.addresses()[0])
        await log.wait_for("p2p.connection_refused")
        await until(lambda: server._host._swarm._handshakes == 0, trio.testing.wait_all_tasks_blocked)
        await client.connect(server.addresses()[0])
        for stream in idle:
            await stream.aclose()


async def test_one_peer_has_two_connections_at_most():
    log = Recorder()
    async with mesh(log) as server, mesh() as client:
        address, peer = parse_peer(server.addresses()[0])
        for _ in range(2):
            await client._host.dial(peer, address)
        with pytest.raises(Unreachable):
            await client._host.dial(peer, address)
        assert len(server._host.connections()) <= 2
        await client.connect(peer)
        assert server.connections() == [client.peer]


@pytest.mark.parametrize(
    ("ip", "limit"), [("8.8.8.8", 8), ("10.0.0.7", 64), ("?", 8), ("2001:db8::7", 64)]
)
def test_one_ip_gets_as_many_places_as_its_class_allows(ip, limit):
    _, gated = swarm.build(bytes(32))
    gated._inbound_by_ip[ip] = limit - 1
    assert gated._refusal(ip) is None
    gated._inbound_by_ip[ip] = limit
    assert str(limit) in gated._refusal(ip)


# --- leaks -----------------------------------------------------------------------------


async def test_a_mesh_leaves_no_task_no_descriptor_and_no_thread():
    async def cycle() -> None:
        async with mesh(dht_server=True) as server, mesh() as client:
            server.serve("/test/echo/1", echo)
            await client.connect(server.addresses()[0])
            await still_works(client, server)

    await cycle()
    gc.collect()
    before = tasks(), descriptors(), len(os.listdir("/proc/self/task"))
    for _ in range(3):
        await cycle()
    gc.collect()
    assert (tasks(), descriptors(), len(os.listdir("/proc/self/task"))) == before


@never_raises(CocoonError, trio.TooSlowError)
async def test_connections_that_come_and_go_leave_nothing_in_a_running_peer():
    async with mesh(dht_server=True) as server:
        store = server._host.lib.get_peerstore()
        blocked = trio.testing.wait_all_tasks_blocked
        before = tasks(), descriptors()
        for _ in range(5):
            async with mesh() as client:
                await client.connect(server.addresses()[0])
                await client.find_providers(bytes(32), 1)
        await until(lambda: (tasks(), descriptors()) == before, blocked)
        assert store.peer_ids() == [lib_id(server.peer)]
        assert not server._host._connections and not server._links and server._dialler.idle()


# --- Kademlia ----------------------------------------------------------------------------


async def test_no_host_of_ours_serves_or_asks_the_public_kademlia():
    async with mesh(dht_server=True) as server:
        served = {str(p) for p in server._host.lib.get_mux().get_protocols()}
        assert [p for p in served if "kad" in p] == [f"/cocoon/{server._settings.network.hex()}/kad/1"]
    for module in (common, kad_dht, peer_routing, provider_store, value_store):
        assert module.PROTOCOL_ID == compat.UNSET_KAD_PROTOCOL


async def test_a_stranger_cannot_fill_our_value_store():
    async with mesh(dht_server=True) as server:
        kad = server.directory._kad
        kad.value_store.put_record(b"/pk/x", object())
        assert kad.value_store.size() == 0


async def test_keys_of_others_are_bounded_and_our_own_stay(monkeypatch):
    monkeypatch.setattr("cocoon.p2p.dht.DHT_KEYS_STORED", 3)
    async with mesh(dht_server=True) as server:
        await server.provide(b"o" * 32)
        kad = server.directory._kad
        for n in range(10):
            info = kad_dht.PeerInfo(lib_id(b"p" * 32), [Multiaddr("/ip4/127.0.0.1/tcp/1")])
            kad.provider_store.add_provider(bytes([n]) * 32, info)
        server.directory.prune([])
        assert len(kad.provider_store.providers) == 4 and server.directory.stored(b"o" * 32)


def test_streams_are_shielded_where_the_library_leaks():
    """Removing one of these cures is a silent leak; the tests above show each by its effect."""
    assert NetStream.close is compat._shielded_close
    assert NetStream.reset is compat._shielded_reset
