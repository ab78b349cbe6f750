"""The mesh: one libp2p host with its links, its part of the DHT and its address book.

``open_mesh`` owns every task of this package; when its block ends no task,
descriptor or thread remains. The two supervisor borders of the package are
here: ``Mesh._guarded`` for whatever a remote peer can trigger, and
``Mesh._supervise`` for our own loops.

Purity: shell. Spec: docs/spec/p2p.md, rules P2P-1 to P2P-9.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import (
    BootstrapUnreachable,
    CocoonError,
    StreamClosed,
    Unreachable,
    UsageError,
)
from cocoon.core.groups import single_error
from cocoon.core.ids import NetworkId, PeerKey, peer_id
from cocoon.core.limits import (
    HANDSHAKE_NS,
    LOST_QUEUE,
    MESH_UPKEEP_NS,
    STREAMS_PER_PROTOCOL,
)
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
from cocoon.p2p.addresses import Address, address_block, parse_peer, usable
from cocoon.p2p.book import AddressBook
from cocoon.p2p.bookfile import save_book
from cocoon.p2p.dht import Directory
from cocoon.p2p.dialling import Dialler
from cocoon.p2p.direct import DirectPort, dial_direct, listen_direct
from cocoon.p2p.discovery import Announcer, find_live, meet_all
from cocoon.p2p.host import Connection, Host, RawStream
from cocoon.p2p.joining import Joiner
from cocoon.p2p.links import BEAT_PROTOCOL, Link, PeerLost
from cocoon.p2p.local import reachable_addresses
from cocoon.p2p.streams import Bytes, PeerStream
from cocoon.wire.messages import Hello


class Log(Protocol):
    """What the mesh asks of a logger; never given payloads or the pair (requester, task)."""

    def info(self, event: str, **fields: object) -> None: ...


class MeshSettings(Value):
    """Fixed for the life of a mesh.

    listen: multiaddresses; port 0 lets the system choose (persist ``Mesh.listening()``).
    direct_port: of the connections of leases, on the first of these addresses; 0 lets the system choose, None has none.
    bootstraps: addresses with peer ids, from the link. book_file: None keeps the book in memory.
    """

    network: NetworkId
    boot_id: bytes
    agent: str = "cocoon"
    sells: bool = False
    dht_server: bool = False
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    direct_port: int | None = None
    bootstraps: tuple[str, ...] = ()
    book_file: Path | None = None


Handler = Callable[[PeerStream], Awaitable[None]]


class Mesh:
    """A running peer. Made by ``open_mesh`` only."""

    def __init__(
        self, settings: MeshSettings, seed: bytes, book: AddressBook, clock: Clock, log: Log
    ) -> None:
        self._settings, self._book, self._clock, self._log = settings, book, clock, log
        self._bootstraps = [(peer, address) for address, peer in map(parse_peer, settings.bootstraps)]
        self._host = Host(seed, self._guarded)
        self.peer = self._host.peer
        self._dialler = Dialler(self._host, book, self._bootstraps, clock, self)
        self._directory = Directory(self._host, settings.network, server=settings.dht_server)
        self._announcer = Announcer(self)
        self._hello = Hello(
            network=settings.network, agent=settings.agent, boot_id=settings.boot_id, sells=settings.sells
        )
        self._links: dict[Connection, Link] = {}
        self._served: dict[str, int] = {}
        self._watchers: set[trio.MemorySendChannel[PeerLost]] = set()
        self._changed = trio.Event()
        self._joiner = Joiner(self)
        self._nursery: trio.Nursery | None = None
        #: Where leases may connect; None if they cannot.
        self.direct: DirectPort | None = None
        self._host.on_connection = self._on_connection
        self._host.on_refused(lambda reason: log.info("p2p.connection_refused", reason=reason))
        self._host.set_handler(BEAT_PROTOCOL, self._serve_beat)

    # --- what the node asks ----------------------------------------------------

    def listening(self) -> list[str]:
        """The bound listen addresses without the peer; give these as ``listen`` after a restart."""
        return [a.text for a in self._host.listening()]

    def addresses(self) -> list[str]:
        """Addresses that others can dial, with the peer id: what a join link holds."""
        return [a.of(self.peer) for a in self.own_addresses()]

    def own_addresses(self) -> list[Address]:
        """``addresses`` in parsed form; 0.0.0.0 stands for this machine's own addresses."""
        return reachable_addresses(self._host.listening())

    def connections(self) -> list[PeerKey]:
        """Peers with at least one living link, each once."""
        return list(dict.fromkeys(link.peer for link in self._links.values() if link.alive))

    def hello_of(self, peer: PeerKey) -> Hello | None:
        """What a connected peer said of itself; None if it is not connected."""
        link = self.link(peer)
        return link.theirs if link else None

    def block_of(self, peer: PeerKey) -> str:
        """The block of addresses that a connected peer came from; empty if it is not connected."""
        link = self.link(peer)
        return address_block(link.connection.remote_ip) if link else ""

    @property
    def joined(self) -> int:
        """How many peers are connected now."""
        return len(self.connections())

    async def join(self) -> int:
        """Wait until every known address was tried once, or somebody answered.

        Returns:
            How many peers are connected; 0 only if none is known at all (the first peer of a network).

        Raises:
            BootstrapUnreachable: addresses are known and none of them answered. The mesh goes on trying.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_joined, nursery.cancel_scope)
            await self._joiner.first_round.wait()
            nursery.cancel_scope.cancel()
        if not self.joined and (self._bootstraps or len(self._book)):
            linked = ", ".join(a.of(p) for p, a in self._bootstraps)
            known = linked or f"{len(self._book)} peers of the address book"
            raise BootstrapUnreachable(f"none of the known peers answered: {known}")
        return self.joined

    def serve(self, protocol: str, handler: Handler) -> None:
        """Call ``handler`` with every stream that a peer of our network opens for ``protocol``.

        The stream is closed when the handler returns and reset when it raises;
        no exception of a handler reaches the host. Its first ``receive`` waits at
        most ``HANDSHAKE_NS``.

        Raises:
            UsageError: the protocol has a handler already.
        """
        if protocol in self._served:
            raise UsageError(f"{protocol} is served already")
        self._served[protocol] = 0
        self._host.set_handler(protocol, lambda raw: self._serve_stream(protocol, handler, raw))

    async def connect(self, target: str | PeerKey) -> PeerKey:
        """Make sure there is a living link to ``target``, an address with a peer id or a peer.

        A peer is dialled at its known addresses, one after the other, each within ``HANDSHAKE_NS``.

        Raises:
            Unreachable: no address answered as that peer.
            WrongNetwork: it is on another network; the connection is closed.
        """
        if isinstance(target, str):
            address, peer = parse_peer(target)
            await self._dialler.reach(peer, [address])
        else:
            peer = target
            await self.reach(peer, ())
        return peer

    async def open_stream(self, peer: PeerKey, protocol: str) -> PeerStream:
        """Open a framed stream, dialling from the address book if needed. The caller closes it.

        Raises:
            Unreachable, WrongNetwork: as for ``connect``, or the peer does not speak ``protocol``.
        """
        await self.connect(peer)
        link = self.link(peer)
        if link is None:
            raise Unreachable(f"{peer_id(peer)} closed the connection")
        return link.adopt(await link.connection.open(protocol))

    def adopt(self, peer: PeerKey, raw: Bytes) -> PeerStream:
        """A framed stream over a connection with ``peer``, which wakes when we lose it; ``Unreachable`` if we have."""
        if (link := self.link(peer)) is None:
            raise Unreachable(f"{peer_id(peer)} closed the connection")
        return link.adopt(raw)

    async def dial_direct(self, peer: PeerKey, port: int, token: bytes) -> PeerStream:
        """A stream over a TCP connection to where ``peer`` is connected; ``Unreachable`` if there is no way."""
        link = self.link(peer)
        return self.adopt(peer, await dial_direct(link.connection.remote_ip if link else None, port, token))

    async def provide(self, key: bytes) -> int:
        """Announce that we serve ``key``, now and as long as the mesh runs.

        Returns:
            How many nodes took the record; 0 while nobody is connected (it is announced to whoever comes).

        Raises:
            UsageError: this peer is no DHT server. LimitExceeded: above ``DHT_KEYS_ANNOUNCED`` keys.
        """
        return await self._announcer.add(key)

    def announced(self, key: bytes) -> bool:
        """Whether ``key`` is announced by us now."""
        return self._announcer.holds(key)

    def withdraw(self, key: bytes) -> None:
        """Announce ``key`` no more; records that others hold end by themselves."""
        self._announcer.remove(key)

    async def find_providers(self, key: bytes, limit: int, without: Collection[PeerKey] = ()) -> list[PeerKey]:
        """Living providers of ``key`` from the DHT, connected, each once, without ourselves.

        Never longer than ``DISCOVERY_NS``. Records of dead or frozen peers are skipped.

        Args:
            without: Peers that are known to be gone: nobody waits for them.
        """
        return await find_live(self, key, limit, without)

    async def meet(self, peers: Collection[PeerKey]) -> list[PeerKey]:
        """Those of ``peers`` that are alive: who is connected already, then the others as they answered.

        Dialled at known addresses, or else at those that the DHT knows. Never longer than ``DISCOVERY_NS``.
        """
        return await meet_all(self, peers)

    async def changed(self) -> None:
        """Until a peer is connected or lost."""
        await self._changed.wait()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[trio.MemoryReceiveChannel[PeerLost]]:
        """A channel of ``PeerLost``, at most ``LOST_QUEUE`` unread; later notices are dropped and logged."""
        send, receive = trio.open_memory_channel[PeerLost](LOST_QUEUE)
        self._watchers.add(send)
        try:
            with send, receive:
                yield receive
        finally:
            self._watchers.discard(send)

    def disconnect(self, peer: PeerKey) -> None:
        """Close every link to ``peer``."""
        for link in list(self._links.values()):
            if link.peer == peer:
                link.drop("disconnected here")

    # --- what discovery asks ----------------------------------------------------

    @property
    def directory(self) -> Directory:
        """Our part of the DHT."""
        return self._directory

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return self._clock.now_ns()

    def living(self) -> list[Connection]:
        """One living connection of each peer."""
        return [link.connection for p in self.connections() if (link := self.link(p)) is not None]

    async def reach(self, peer: PeerKey, addresses: Iterable[Address]) -> Connection:
        """A living connection to ``peer``, at any address known or given; errors as for ``connect``."""
        return await self._dialler.reach(peer, self._dialler.known(peer, addresses))

    def shunned(self, peer: PeerKey, addresses: Iterable[Address]) -> bool:
        """Whether every address of ``peer``, known or given, failed a moment ago."""
        return self._dialler.shunned(peer, addresses)

    def hint(self, peer: PeerKey, addresses: tuple[Address, ...]) -> None:
        """Remember unproven addresses of a provider, so that ``open_stream`` can dial it again."""
        self._dialler.hint(peer, addresses)

    def known_peers(self) -> tuple[list[PeerKey], list[PeerKey]]:
        """Peers of the link, and peers of the address book best first; without ourselves."""
        linked = list(dict.fromkeys(p for p, _ in self._bootstraps if p != self.peer))
        return linked, [p for p in self._book.peers() if p != self.peer]

    async def _until_joined(self, waiter: trio.CancelScope) -> None:
        while not self.joined:
            await self._changed.wait()
        waiter.cancel()

    # --- links ---------------------------------------------------------------------

    def link(self, peer: PeerKey) -> Link | None:
        """The living link to ``peer``; of two the one that was made last."""
        living = self.links_to(peer)
        return living[-1] if living else None

    def links_to(self, peer: PeerKey) -> list[Link]:
        """All living links to ``peer``."""
        return [k for k in self._links.values() if k.peer == peer and k.alive]

    def greeting(self, peer: PeerKey) -> list[Link]:
        """Links to ``peer`` that have not said Hello yet."""
        return [k for k in self._links.values() if k.peer == peer and not k.ready.is_set()]

    def link_of(self, connection: Connection) -> Link | None:
        """The link over ``connection``, while it is open."""
        return self._links.get(connection)

    def unreached(self, peer: PeerKey, error: Unreachable) -> None:
        """No address of ``peer`` answered."""
        self._directory.forget(peer)
        self._log.info("p2p.dial_failed", code=error.code, text=error.text)

    def _on_connection(self, connection: Connection) -> None:
        link = Link(connection, self._hello)
        self._links[connection] = link
        assert self._nursery is not None, "connections come only while the host runs"
        self._nursery.start_soon(self._supervise, "link", lambda: self._live(link))

    async def _live(self, link: Link) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._introduce, link)
                await link.run()
                nursery.cancel_scope.cancel()
        finally:
            self._links.pop(link.connection, None)
            self._host.gone(link.connection)
            self._after(link)

    def _after(self, link: Link) -> None:
        reason = link.reason or (link.error.code if link.error else "")
        self._log.info("p2p.link_closed", inbound=link.connection.inbound, reason=reason)
        if link.theirs is None or self.link(link.peer) is not None:
            return
        if link.reason:
            self._directory.forget(link.peer)
        self._directory.prune(self.connections())
        self._announcer.left(link.peer)
        self._joiner.somebody_left()
        self._notify()
        lost = PeerLost(link.peer, link.reason)
        for watcher in self._watchers:
            try:
                watcher.send_nowait(lost)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._log.info("p2p.lost_notice_dropped")

    async def _introduce(self, link: Link) -> None:
        """After Hello: learn where the peer listens, put a node into the table, tell it our keys."""
        try:
            await link.wait_ready()
        except CocoonError:
            return                      # the link says so itself
        self._notify()
        announced, is_node = await self._directory.identify(link.connection)
        addresses = usable(announced, link.connection.remote_ip)
        self._book.heard(link.peer, addresses)
        if is_node and addresses:
            await self._directory.know(link.peer, addresses)
            await self._announcer.introduce(link.connection)
        self._notify()

    def _notify(self) -> None:
        """Wake whoever waits for a change of the connected peers."""
        self._changed.set()
        self._changed = trio.Event()

    # --- serving -------------------------------------------------------------------

    async def _serve_beat(self, raw: RawStream) -> None:
        link = self._links.get(raw.connection)
        await (link.serve_beat(raw) if link else raw.reset())

    async def _serve_stream(self, protocol: str, handler: Handler, raw: RawStream) -> None:
        link = self._links.get(raw.connection)
        if link is None or not link.alive or self._served[protocol] >= STREAMS_PER_PROTOCOL:
            await raw.reset()
            return
        stream = link.adopt(raw)
        stream.expect_first(HANDSHAKE_NS)   # silent streams must not fill the places of everybody else
        self._served[protocol] += 1
        try:
            if await self._guarded(protocol, lambda: handler(stream)):
                await stream.close()
        finally:
            self._served[protocol] -= 1
            link.release(stream)
            await stream.reset()        # does nothing after a close

    async def _guarded(self, where: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Run what a remote peer set off. A fault costs one stream and is logged, never the host.

        Returns:
            Whether the call ended without an exception.
        """
        try:
            with single_error():
                await call()
        except StreamClosed:
            return False                # the other side left: no fault
        except CocoonError as error:
            self._log.info("p2p.stream_refused", protocol=where, code=error.code, text=error.text)
            return False
        except Exception as error:      # supervisor border: a defect in one handler must not stop the peer
            self._log.info("p2p.handler_failed", protocol=where, error=repr(error)[:200])
            return False
        return True

    # --- own loops -----------------------------------------------------------------

    async def _supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run one of our tasks; an unexpected error ends that task, is logged, and the mesh goes on."""
        try:
            with single_error():
                await loop()
        except Exception as error:      # supervisor border
            self._log.info("p2p.task_failed", kind=name, error=repr(error)[:200])

    async def _forever(self, name: str, period_ns: int, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._supervise(name, step)
            await trio.sleep(period_ns / SECOND_NS)

    async def _upkeep(self) -> None:
        for link in self._links.values():
            link.prune_streams()
        self._directory.prune(self.connections())
        self.save()
        await self._announcer.renew()

    def save(self) -> None:
        """Write the address book if it changed; a full disk is logged, not fatal."""
        path = self._settings.book_file
        if path is None or not self._book.changed:
            return
        try:
            save_book(self._book, path)
        except CocoonError as error:
            self._log.info("p2p.book_not_saved", code=error.code, text=error.text)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                if self._settings.direct_port is not None:
                    self.direct = listen_direct(self._settings.listen[0], self._settings.direct_port)
                    nursery.start_soon(self._supervise, "direct", self.direct.serve)
                async with self._host.run(self._settings.listen):
                    nursery.start_soon(self._supervise, "join", self._joiner.run)
                    nursery.start_soon(self._forever, "upkeep", MESH_UPKEEP_NS, self._upkeep)
                    yield
            finally:
                self.save()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_mesh(
    settings: MeshSettings, seed: bytes, book: AddressBook, clock: Clock, log: Log
) -> AsyncIterator[Mesh]:
    """Run a peer for the length of the block.

    Args:
        seed: Ed25519 seed of the peer, 32 bytes.
        book: Known addresses, as ``bookfile.load_book`` gives them; changed in place.

    Raises:
        ListenFailed: an address of ``settings.listen`` cannot be bound.
        UsageError: a bootstrap address cannot be read.
    """
    mesh = Mesh(settings, seed, book, clock, log)
    with single_error():
        async with mesh._run():
            yield mesh
