"""The DHT as users need it: sellers are found, dead ones are skipped, nobody waits for a frozen node."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from cocoon.core.errors import LimitExceeded
from cocoon.core.ids import PeerKey
from cocoon.core.limits import DHT_KEYS_ANNOUNCED
from cocoon.p2p.addresses import Address, parse_peer
from cocoon.p2p.book import AddressBook
from cocoon.p2p.bookfile import load_book
from cocoon.p2p.host import lib_id
from tests.adapters.p2p.p2p_hosts import KEY, PATIENCE_S, bare_host, mesh, until

NOBODY = Address("ip4", "127.0.0.1", 1)


async def test_a_buyer_finds_a_seller_it_never_met_through_a_bootstrap():
    async with mesh(dht_server=True) as boot:
        known = tuple(boot.addresses())
        async with mesh(dht_server=True, sells=True, bootstraps=known) as seller, mesh(bootstraps=known) as buyer:
            await seller.join()
            assert await seller.provide(KEY) == 1
            await buyer.join()
            assert await buyer.find_providers(KEY, 8) == [seller.peer]
            assert seller.peer in buyer.connections()


async def test_a_peer_whose_address_nobody_told_is_met_by_its_key_alone():
    async with mesh(dht_server=True) as boot:
        known = tuple(boot.addresses())
        async with mesh(dht_server=True, sells=True, bootstraps=known) as seller, mesh(bootstraps=known) as buyer:
            await seller.join()
            await buyer.join()
            await until(lambda: boot.directory.nodes() == 1, trio.testing.wait_all_tasks_blocked)
            assert await buyer.meet([seller.peer, PeerKey(os.urandom(32))]) == [seller.peer]
            assert seller.peer in buyer.connections()
            assert await buyer.meet([seller.peer]) == [seller.peer]
            assert await buyer.meet([]) == []


async def test_a_seller_that_provided_before_it_met_anybody_is_found_by_whoever_comes():
    async with mesh(dht_server=True) as boot, mesh(dht_server=True, sells=True) as seller:
        assert await seller.provide(KEY) == 0
        await seller.connect(boot.addresses()[0])
        await until(lambda: boot.directory.stored(KEY), trio.testing.wait_all_tasks_blocked)
        async with mesh(bootstraps=tuple(boot.addresses())) as buyer:
            await buyer.join()
            assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_a_seller_serves_its_own_record_when_no_other_node_is_left():
    async with mesh(dht_server=True, sells=True) as seller, mesh() as buyer:
        await seller.provide(KEY)
        await buyer.connect(seller.addresses()[0])
        assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_a_key_that_was_withdrawn_is_served_no_more_and_makes_room_for_another():
    async with mesh(dht_server=True, sells=True) as seller, mesh() as buyer:
        await seller.provide(KEY)
        await buyer.connect(seller.addresses()[0])
        assert seller.announced(KEY)
        seller.withdraw(KEY)
        seller.withdraw(KEY)
        assert not seller.announced(KEY)
        assert await buyer.find_providers(KEY, 8) == []
        for _ in range(DHT_KEYS_ANNOUNCED):
            await seller.provide(os.urandom(32))


async def test_records_of_dead_sellers_are_skipped_and_living_ones_still_found():
    async with mesh(dht_server=True) as boot:
        known = tuple(boot.addresses())
        async with mesh(dht_server=True, sells=True, bootstraps=known) as seller:
            await seller.join()
            await seller.provide(KEY)
            async with mesh(dht_server=True, sells=True, bootstraps=known) as doomed:
                await doomed.join()
                await doomed.provide(KEY)
                dead = doomed.peer
            assert {p for p, _ in boot.directory.stored(KEY)} == {seller.peer, dead}
            async with mesh(bootstraps=known) as buyer:
                await buyer.join()
                assert await buyer.find_providers(KEY, 8) == [seller.peer]
                assert buyer.shunned(dead, ()) and not buyer.shunned(seller.peer, ())


async def test_a_node_that_never_answers_does_not_hide_what_others_know():
    """A look-up of the library waits 10 s for it, and forgets the rest when it is cut short."""

    async def swallow(stream):
        await trio.sleep_forever()

    async with mesh(dht_server=True) as boot, mesh(dht_server=True) as frozen:
        frozen._host.set_handler(frozen.directory.protocol, swallow)
        known = tuple(boot.addresses())
        async with mesh(dht_server=True, sells=True, bootstraps=known) as seller, mesh() as buyer:
            await seller.join()
            await seller.provide(KEY)
            await buyer.connect(frozen.addresses()[0])
            await buyer.connect(boot.addresses()[0])
            with trio.fail_after(PATIENCE_S):
                assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_nobody_provides_is_an_empty_answer():
    async with mesh(dht_server=True) as boot, mesh() as buyer:
        assert await buyer.find_providers(KEY, 8) == []
        await buyer.connect(boot.addresses()[0])
        assert await buyer.find_providers(KEY, 8) == []


async def test_a_seller_never_finds_itself():
    async with mesh(dht_server=True) as boot, mesh(dht_server=True, sells=True) as seller:
        await seller.connect(boot.addresses()[0])
        await seller.provide(KEY)
        assert await seller.find_providers(KEY, 8) == []


async def test_a_provider_that_two_nodes_name_is_returned_once():
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(mesh(dht_server=True)) for _ in range(3)]
        known = tuple(n.addresses()[0] for n in nodes)
        seller = await stack.enter_async_context(mesh(dht_server=True, sells=True, bootstraps=known))
        await until(lambda: seller.joined == 3, trio.testing.wait_all_tasks_blocked)
        await until(lambda: seller.directory.nodes() == 3, trio.testing.wait_all_tasks_blocked)
        assert await seller.provide(KEY) == 3
        buyer = await stack.enter_async_context(mesh(bootstraps=known))
        await until(lambda: buyer.joined == 3, trio.testing.wait_all_tasks_blocked)
        assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_a_look_up_reaches_nodes_that_only_others_know():
    """boot knows both; buyer and seller know only boot, and the record lies with the far node."""
    async with mesh(dht_server=True) as boot, mesh(dht_server=True) as far, mesh(dht_server=True) as seller:
        await far.connect(boot.addresses()[0])
        await until(lambda: boot.directory.nodes() == 1, trio.testing.wait_all_tasks_blocked)
        where = [Address(*_parts(a)) for a in seller.addresses()]
        far.directory._kad.provider_store.add_provider(KEY, _info(seller.peer, where))
        async with mesh() as buyer:
            await buyer.connect(boot.addresses()[0])
            assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_a_false_address_spread_by_a_liar_does_not_hide_a_seller():
    async with (
        mesh(dht_server=True) as liar, mesh(dht_server=True) as honest, mesh(dht_server=True) as seller,
        mesh() as buyer,
    ):
        true = [Address(*_parts(a)) for a in seller.addresses()]
        liar.directory._kad.provider_store.add_provider(KEY, _info(seller.peer, [NOBODY]))
        honest.directory._kad.provider_store.add_provider(KEY, _info(seller.peer, true))
        await buyer.connect(liar.addresses()[0])
        assert await buyer.find_providers(KEY, 8) == []
        await buyer.connect(honest.addresses()[0])
        assert await buyer.find_providers(KEY, 8) == [seller.peer]


def _parts(text):
    address, _ = parse_peer(text)
    return address.family, address.host, address.port


def _info(peer, addresses):
    from libp2p.peer.peerinfo import PeerInfo
    from multiaddr import Multiaddr

    return PeerInfo(lib_id(peer), [Multiaddr(a.text) for a in addresses])


async def test_a_buyer_is_in_nobodys_routing_table():
    """The library lists whoever asks it a question."""
    async with mesh(dht_server=True) as boot, mesh() as buyer:
        await buyer.connect(boot.addresses()[0])
        for _ in range(3):
            await buyer.find_providers(os.urandom(32), 1)
        assert boot.directory.nodes() == 0


async def test_a_stranger_may_announce_only_itself():
    async with mesh(dht_server=True) as boot, bare_host() as stranger, mesh() as victim:
        from libp2p.kad_dht.pb.kademlia_pb2 import Message

        address, peer = parse_peer(boot.addresses()[0])
        connection = await stranger.dial(peer, address)
        message = Message(type=Message.MessageType.ADD_PROVIDER, key=KEY)
        entry = message.providerPeers.add()
        entry.id = lib_id(victim.peer).to_bytes()
        entry.addrs.append(_info(victim.peer, [NOBODY]).addrs[0].to_bytes())
        stream = await connection.open(boot.directory.protocol)
        body = message.SerializeToString()
        await stream.write(bytes([len(body)]) + body if len(body) < 128 else _varint(len(body)) + body)
        with trio.fail_after(PATIENCE_S):
            await stream.read(1 << 20)
        assert boot.directory.stored(KEY) == []


def _varint(size):
    return bytes([size & 0x7F | 0x80, size >> 7])


async def test_keys_announced_are_bounded():
    async with mesh(dht_server=True) as seller:
        for _ in range(DHT_KEYS_ANNOUNCED):
            await seller.provide(os.urandom(32))
        with pytest.raises(LimitExceeded):
            await seller.provide(os.urandom(32))


async def test_restarted_peers_meet_again_through_their_books_when_the_bootstrap_is_dead(tmp_path):
    seeds = {"seller": os.urandom(32), "buyer": os.urandom(32)}
    files = {name: tmp_path / name for name in seeds}
    async with mesh(dht_server=True) as boot:
        known = tuple(boot.addresses())
        async with (
            mesh(dht_server=True, bootstraps=known, seed=seeds["seller"], book_file=files["seller"]) as seller,
            mesh(bootstraps=known, seed=seeds["buyer"], book_file=files["buyer"]) as buyer,
        ):
            await seller.join()
            await seller.provide(KEY)
            await buyer.join()
            assert await buyer.find_providers(KEY, 8) == [seller.peer]
            port = tuple(seller.listening())
    books = {name: load_book(path) for name, path in files.items()}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files.values())
    async with (
        mesh(dht_server=True, bootstraps=known, seed=seeds["seller"], book=books["seller"], listen=port) as seller,
        mesh(bootstraps=known, seed=seeds["buyer"], book=books["buyer"]) as buyer,
    ):
        await seller.provide(KEY)
        with trio.fail_after(PATIENCE_S):
            assert await buyer.join() == 1
            assert await buyer.find_providers(KEY, 8) == [seller.peer]


async def test_an_inbound_peer_is_dialled_back_from_the_book_after_it_left(tmp_path):
    """Its listen address came by identify; it never appeared in any link."""
    async with mesh() as here:
        async with mesh(seed=bytes(31) + b"\x01") as visitor:
            await visitor.connect(here.addresses()[0])
            await until(lambda: here._book.addresses(visitor.peer), trio.testing.wait_all_tasks_blocked)
            port, peer = tuple(visitor.listening()), visitor.peer
        async with mesh(seed=bytes(31) + b"\x01", listen=port):
            with trio.fail_after(PATIENCE_S):
                assert await here.connect(peer) == peer


async def test_a_book_of_dead_addresses_does_not_stop_a_peer_from_joining():
    book = AddressBook()
    for _ in range(40):
        book.worked(os.urandom(32), NOBODY)
    async with mesh(dht_server=True) as boot, mesh(book=book, bootstraps=tuple(boot.addresses())) as peer:
        with trio.fail_after(PATIENCE_S):
            assert await peer.join() == 1
