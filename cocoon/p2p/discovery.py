"""Finding living providers of a key, and being found: look-ups over the DHT with our own deadlines.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from cocoon.core.errors import CocoonError, LimitExceeded, UsageError
from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    ANNOUNCE_AGAIN_NS,
    DHT_CLOSEST,
    DHT_KEYS_ANNOUNCED,
    DISCOVERY_GRACE_NS,
    DISCOVERY_NS,
    REPROVIDE_NS,
)
from cocoon.core.units import SECOND_NS
from cocoon.p2p.addresses import Address
from cocoon.p2p.dht import Directory
from cocoon.p2p.host import Connection
from cocoon.p2p.lookup import Lookup, node_key


class Reach(Protocol):
    """What a look-up needs of the mesh."""

    peer: PeerKey

    @property
    def directory(self) -> Directory: ...
    def now_ns(self) -> int: ...
    def own_addresses(self) -> list[Address]: ...
    def living(self) -> list[Connection]: ...
    async def reach(self, peer: PeerKey, addresses: Iterable[Address]) -> Connection: ...
    def shunned(self, peer: PeerKey, addresses: Iterable[Address]) -> bool: ...
    def hint(self, peer: PeerKey, addresses: tuple[Address, ...]) -> None: ...


@dataclass(slots=True)
class _Search:
    """One look-up under way."""

    mesh: Reach
    lookup: Lookup
    limit: int
    nursery: trio.Nursery
    #: Known to be gone.
    without: Collection[PeerKey]
    live: list[PeerKey] = field(default_factory=list)
    dialling: int = 0
    #: The look-up is for this peer itself, and over when it was reached.
    sought: PeerKey | None = None

    def start(self) -> None:
        """Seed with our own table and store, then ask."""
        directory, key = self.mesh.directory, self.lookup.key
        self.lookup.learn(directory.nearest(key))
        self.lookup.learn((c.peer, ()) for c in self.mesh.living())
        self.meet(self.lookup.found(directory.stored(key)))
        self.ask_on()

    def ask_on(self) -> None:
        """Ask whom the look-up wants asked; stop when nothing can come any more."""
        for peer in self.lookup.next_peers():
            self.nursery.start_soon(self._ask, peer)
        if self.lookup.done() and not self.dialling:
            self.nursery.cancel_scope.cancel()

    def meet(self, providers: list[PeerKey]) -> None:
        """Dial new providers; only those that answer count."""
        for peer in providers:
            known_lost = peer in self.without or self.mesh.shunned(peer, self.lookup.providers[peer])
            if self.limit and not known_lost:
                self.dialling += 1
                self.nursery.start_soon(self._meet, peer)

    async def _ask(self, peer: PeerKey) -> None:
        mesh, lookup = self.mesh, self.lookup
        try:
            if peer in self.without or mesh.shunned(peer, lookup.hints[peer]):
                lookup.silence(peer)
            else:
                connection = await mesh.reach(peer, lookup.hints[peer])
                if peer == self.sought:
                    mesh.hint(peer, lookup.hints[peer])
                    self.nursery.cancel_scope.cancel()
                reply = await mesh.directory.ask(connection, lookup.key)
                lookup.answer(peer)
                lookup.learn(reply.closer)
                self.meet(lookup.found(reply.providers))
        except CocoonError:
            lookup.silence(peer)        # dead, frozen or no node: the next nearest takes its place
        self.ask_on()

    async def _meet(self, peer: PeerKey) -> None:
        try:
            addresses = self.lookup.providers[peer]
            self.mesh.hint(peer, addresses)
            await self.mesh.reach(peer, addresses)
            self._count(peer)
        except CocoonError:
            pass                        # a record outlives its peer by up to 48 hours
        self.dialling -= 1
        self.ask_on()

    def _count(self, peer: PeerKey) -> None:
        if peer in self.live:
            return                      # it was met twice, at different addresses
        self.live.append(peer)
        if len(self.live) >= self.limit:
            self.nursery.cancel_scope.cancel()
        elif len(self.live) == 1:
            scope = self.nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + DISCOVERY_GRACE_NS / SECOND_NS)


async def _search(mesh: Reach, key: bytes, limit: int, without: Collection[PeerKey] = ()) -> _Search:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + DISCOVERY_NS / SECOND_NS
        search = _Search(mesh, Lookup(key, mesh.peer), limit, nursery, without)
        search.start()
    return search


async def find_live(mesh: Reach, key: bytes, limit: int, without: Collection[PeerKey] = ()) -> list[PeerKey]:
    """See ``Mesh.find_providers``. ``limit`` in [1, DHT_SEEN]."""
    if limit < 1:
        raise UsageError(f"a look-up for {limit} providers")
    return (await _search(mesh, key, limit, without)).live[:limit]


async def meet_all(mesh: Reach, peers: Collection[PeerKey]) -> list[PeerKey]:
    """See ``Mesh.meet``. As in a look-up, who is slow is waited for only ``DISCOVERY_GRACE_NS`` after the first."""
    wanted = list(dict.fromkeys(peers))
    connected = {connection.peer for connection in mesh.living()}
    live = [peer for peer in wanted if peer in connected]
    missing = [peer for peer in wanted if peer not in connected]
    if not missing:
        return live
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        patience_ns = DISCOVERY_GRACE_NS if live else DISCOVERY_NS
        scope.deadline = trio.current_time() + patience_ns / SECOND_NS

        async def meet(peer: PeerKey) -> None:
            if await _reached(mesh, peer):
                live.append(peer)
                scope.deadline = min(scope.deadline, trio.current_time() + DISCOVERY_GRACE_NS / SECOND_NS)

        for peer in missing:
            nursery.start_soon(meet, peer)
    return live


async def _reached(mesh: Reach, peer: PeerKey) -> bool:
    """Whether ``peer`` answers: at a known address, or where those say it is whose keys are near its own."""
    try:
        await mesh.reach(peer, ())
    except CocoonError:
        async with trio.open_nursery() as nursery:
            _Search(mesh, Lookup(node_key(peer), mesh.peer), 0, nursery, (), sought=peer).start()
        return any(connection.peer == peer for connection in mesh.living())
    return True


class Announcer:
    """Keeps our keys findable: at once, to every node that comes, and again every ``REPROVIDE_NS``."""

    def __init__(self, mesh: Reach) -> None:
        self._mesh = mesh
        self._keys: dict[bytes, int] = {}
        self._told_ns: dict[PeerKey, int] = {}

    async def add(self, key: bytes) -> int:
        """See ``Mesh.provide``."""
        if not self._mesh.directory.server:
            raise UsageError("a peer that only buys announces nothing")
        if key not in self._keys and len(self._keys) >= DHT_KEYS_ANNOUNCED:
            raise LimitExceeded(f"at most {DHT_KEYS_ANNOUNCED} keys can be announced")
        self._keys.setdefault(key, 0)
        return await self._announce(key)

    def holds(self, key: bytes) -> bool:
        """See ``Mesh.announced``."""
        return key in self._keys

    def remove(self, key: bytes) -> None:
        """See ``Mesh.withdraw``."""
        if self._keys.pop(key, None) is not None:
            self._mesh.directory.drop_own(key)

    async def renew(self) -> None:
        """Announce again what is older than ``REPROVIDE_NS``."""
        for key, last_ns in list(self._keys.items()):
            if self._mesh.now_ns() - last_ns >= REPROVIDE_NS:
                await self._announce(key)

    async def introduce(self, connection: Connection) -> None:
        """Tell a node that just came all our keys, unless it heard them a moment ago."""
        now = self._mesh.now_ns()
        told_ns = self._told_ns.get(connection.peer)
        if told_ns is not None and now - told_ns < ANNOUNCE_AGAIN_NS:
            return
        self._told_ns[connection.peer] = now
        for key in list(self._keys):
            await self._tell(connection, key)

    def left(self, peer: PeerKey) -> None:
        """A peer went; remember for a while only that it was told."""
        limit_ns = self._mesh.now_ns() - ANNOUNCE_AGAIN_NS
        self._told_ns = {p: t for p, t in self._told_ns.items() if t > limit_ns}

    async def _announce(self, key: bytes) -> int:
        self._mesh.directory.store_own(key, self._mesh.own_addresses())
        self._keys[key] = self._mesh.now_ns()
        search = await _search(self._mesh, key, 0)
        near = [p for p in search.lookup.nearest() if p in search.lookup.answered][:DHT_CLOSEST]
        taken: list[PeerKey] = []

        async def tell(connection: Connection) -> None:
            if await self._tell(connection, key):
                taken.append(connection.peer)

        with trio.move_on_after(DISCOVERY_NS / SECOND_NS):
            async with trio.open_nursery() as nursery:
                for connection in self._mesh.living():
                    if connection.peer in near:
                        nursery.start_soon(tell, connection)
        return len(taken)

    async def _tell(self, connection: Connection, key: bytes) -> bool:
        try:
            await self._mesh.directory.announce(connection, key, self._mesh.own_addresses())
        except CocoonError:
            return False                # it left, or is no node any more
        return True
