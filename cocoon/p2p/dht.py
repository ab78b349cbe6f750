"""The Kademlia table and its messages: py-libp2p's server side, our own questions.

The library's node keeps routing table and provider records and answers
FIND_NODE, GET_PROVIDERS and ADD_PROVIDER. Its client side is not used: it
answers from a cache of 48 hours, throws addresses and partial results away,
and dials by itself. The protocol id belongs to the network, so that no stray
peer can merge us with the public IPFS network.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cocoon.core.values import Value
from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split

from libp2p.custom_types import TProtocol
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from cocoon.core.errors import Malformed, TooLarge, Unreachable, UsageError
from cocoon.core.ids import NetworkId, PeerKey, peer_key
from cocoon.core.limits import DHT_CLOSEST, DHT_KEYS_STORED, DHT_MESSAGE_BYTES, DHT_SEEN
from cocoon.p2p.addresses import Address, readable
from cocoon.p2p.host import Connection, Host, RawStream, basic_host, lib_id

#: A peer and where it is said to listen.
Sighting = tuple[PeerKey, tuple[Address, ...]]


def kad_protocol(network: NetworkId) -> str:
    """Kademlia's protocol id on ``network``."""
    return f"/cocoon/{network.hex()}/kad/1"


class Reply(Value):
    """What one peer said about a key; nothing of it is proven."""

    providers: tuple[Sighting, ...]
    closer: tuple[Sighting, ...]


class Directory:
    """Our part of the distributed hash table."""

    def __init__(self, host: Host, network: NetworkId, *, server: bool) -> None:
        self.protocol = kad_protocol(network)
        self.server = server
        self._host = host
        self._lib = basic_host(host)
        mode = DHTMode.SERVER if server else DHTMode.CLIENT
        self._kad = KadDHT(self._lib, mode)
        self._kad.add_peer = self._ignore_stranger      # type: ignore[method-assign]
        self._kad.value_store.put_record = _store_nothing   # type: ignore[method-assign]
        if server:
            # The constructor registered the handler under the id that compat left in the modules.
            self._lib.remove_stream_handler(TProtocol(compat.UNSET_KAD_PROTOCOL))
            self._lib.set_stream_handler(TProtocol(self.protocol), self._kad.handle_stream)

    async def identify(self, connection: Connection) -> tuple[list[Address], bool]:
        """Ask the other side where it listens and whether it is a node of our table.

        Returns:
            Announced addresses, unchecked, and whether it serves our Kademlia protocol.
        """
        their_id = lib_id(connection.peer)
        await self._lib._identify_peer(their_id, reason="hello")
        data = self._lib.peerstore.peer_data_map.get(their_id)  # type: ignore[attr-defined]
        if data is None:
            return [], False
        return readable(str(a) for a in data.get_addrs()), self.protocol in data.get_protocols()

    async def know(self, peer: PeerKey, addresses: Iterable[Address]) -> None:
        """Put a node into the routing table, with addresses that others may hear from us."""
        where = [Multiaddr(a.text) for a in addresses]
        store = self._lib.peerstore
        store.clear_addrs(lib_id(peer))
        store.add_addrs(lib_id(peer), where, 0)
        await self._kad.routing_table.add_peer(PeerInfo(lib_id(peer), where), skip_server_mode_check=True)

    def forget(self, peer: PeerKey) -> None:
        """Take a dead node out of the routing table."""
        self._kad.routing_table.remove_peer(lib_id(peer))

    def prune(self, connected: Iterable[PeerKey]) -> None:
        """Drop what the library keeps for ever: stale peer data, and keys above our bound."""
        kept = {lib_id(p) for p in connected} | set(self._kad.routing_table.get_peer_ids())
        kept.add(self._lib.get_id())
        store: Any = self._lib.peerstore
        for their_id in [i for i in store.peer_data_map if i not in kept]:
            store.peer_data_map.pop(their_id, None)
            store.peer_record_map.pop(their_id, None)
        self._kad.provider_store.cleanup_expired()
        records = self._kad.provider_store.providers
        own = str(self._lib.get_id())
        for key in [k for k, who in records.items() if own not in who][DHT_KEYS_STORED:]:
            del records[key]

    def nearest(self, key: bytes) -> list[Sighting]:
        """The nodes of our routing table that are nearest to ``key``."""
        table = self._kad.routing_table
        found = ((i, table.get_peer_info(i)) for i in table.find_local_closest_peers(key, DHT_CLOSEST))
        return _sightings((i, info.addrs if info else []) for i, info in found)

    def nodes(self) -> int:
        """Size of the routing table."""
        return self._kad.routing_table.size()

    def stored(self, key: bytes) -> list[Sighting]:
        """Providers of ``key`` that announced themselves to us."""
        return _sightings((info.peer_id, info.addrs) for info in self._kad.provider_store.get_providers(key))

    def store_own(self, key: bytes, addresses: Iterable[Address]) -> None:
        """Serve our own record of ``key``, so that it can be found when we are the only node left."""
        where = [Multiaddr(a.text) for a in addresses]
        self._kad.provider_store.add_provider(key, PeerInfo(self._lib.get_id(), where))

    def drop_own(self, key: bytes) -> None:
        """Serve our own record of ``key`` no more."""
        self._kad.provider_store.providers.get(key, {}).pop(str(self._lib.get_id()), None)

    async def ask(self, connection: Connection, key: bytes) -> Reply:
        """Send GET_PROVIDERS.

        Raises:
            Unreachable: no node, no answer. Malformed: an answer that is none.
        """
        request = Message(type=Message.MessageType.GET_PROVIDERS, key=key)
        stream = await connection.open(self.protocol)
        try:
            await stream.write(_framed(request))
            reply = _parsed(await _read_message(stream))
        finally:
            await stream.close()
        if reply.type != Message.MessageType.GET_PROVIDERS:
            raise Malformed("a Kademlia node answered another question")
        return Reply(tuple(_peers(reply.providerPeers)), tuple(_peers(reply.closerPeers)))

    async def announce(self, connection: Connection, key: bytes, addresses: Iterable[Address]) -> None:
        """Send ADD_PROVIDER for ourselves and wait for the echo.

        Raises:
            Unreachable, StreamClosed, Malformed: the node did not take it.
        """
        request = Message(type=Message.MessageType.ADD_PROVIDER, key=key)
        provider = request.providerPeers.add()
        provider.id = self._lib.get_id().to_bytes()
        provider.addrs.extend(Multiaddr(a.text).to_bytes() for a in addresses)
        stream = await connection.open(self.protocol)
        try:
            await stream.write(_framed(request))
            _parsed(await _read_message(stream))
        finally:
            await stream.close()

    async def _ignore_stranger(self, *_args: object, **_kwargs: object) -> bool:
        """The library adds whoever asks a question; buyers only ask and must not be listed as nodes."""
        return False


def _store_nothing(*_args: object, **_kwargs: object) -> None:
    """PUT_VALUE is dropped: the library would keep 50,000 records of 1 MiB from strangers."""


def _framed(message: Any) -> bytes:
    body: bytes = message.SerializeToString()
    size, prefix = len(body), bytearray()
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + body


async def _read_message(stream: RawStream) -> bytes:
    """One varint-prefixed message; the length is checked before anything is kept."""
    data = bytearray()
    while (header := _varint(data)) is None:
        await _more(stream, data)
    at, size = header
    if size > DHT_MESSAGE_BYTES:
        raise TooLarge(f"a Kademlia message of {size} bytes; at most {DHT_MESSAGE_BYTES}")
    while len(data) < at + size:
        await _more(stream, data)
    return bytes(data[at : at + size])


async def _more(stream: RawStream, data: bytearray) -> None:
    chunk = await stream.read(DHT_MESSAGE_BYTES)
    if not chunk:
        raise Unreachable("a Kademlia node ended the stream without an answer")
    data += chunk


def _varint(data: bytearray) -> tuple[int, int] | None:
    """(offset behind the number, number), or None while it is incomplete; at most 5 bytes."""
    value = 0
    for at, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return at + 1, value
    if len(data) >= 5:
        raise TooLarge("a Kademlia length prefix has more than 5 bytes")
    return None


def _parsed(data: bytes) -> Any:
    message = Message()
    try:
        message.ParseFromString(data)
    except compat.DecodeError as error:
        raise Malformed(f"a Kademlia node sent no message: {error}") from None
    return message


def _peers(entries: Any) -> list[Sighting]:
    return _sightings((ID(e.id), _multiaddrs(e.addrs)) for e in list(entries)[:DHT_SEEN])


def _multiaddrs(raw: Iterable[bytes]) -> list[Multiaddr]:
    found = []
    for item in list(raw)[:32]:
        try:
            found.append(Multiaddr(item))
        except compat.MULTIADDR_ERRORS:
            continue
    return found


def _sightings(found: Iterable[tuple[ID, Iterable[Multiaddr]]]) -> list[Sighting]:
    """Ed25519 peers with their TCP addresses; other key types are none of ours."""
    sightings: list[Sighting] = []
    for their_id, where in found:
        try:
            peer = peer_key(str(their_id))
            sightings.append((peer, tuple(readable(str(a) for a in where))))
        except (UsageError, *compat.MULTIADDR_ERRORS):
            continue
    return sightings
