"""Dialling: which addresses of a peer are tried, in which order, and which are left alone for a while.

One dial of a peer at a time; a caller that waited for another's dial does not
repeat what just failed. Failures are held against an address, not a peer, so
that nobody can hide a peer by spreading a false address of it.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import Unreachable, UsageError, WrongNetwork
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import ADDRESSES_PER_PEER, DIAL_HINTS, DIAL_SHUN_NS
from cocoon.p2p.addresses import Address
from cocoon.p2p.book import AddressBook
from cocoon.p2p.host import Connection, Host
from cocoon.p2p.links import Link


class Links(Protocol):
    """What dialling asks of the links."""

    def link(self, peer: PeerKey) -> Link | None: ...
    def greeting(self, peer: PeerKey) -> list[Link]: ...
    def link_of(self, connection: Connection) -> Link | None: ...
    def unreached(self, peer: PeerKey, error: Unreachable) -> None: ...


class Dialler:
    """Every dial of the mesh goes through ``reach``."""

    def __init__(
        self, host: Host, book: AddressBook, linked: list[tuple[PeerKey, Address]], clock: Clock, links: Links
    ) -> None:
        self._host, self._book, self._linked, self._clock, self._links = host, book, linked, clock, links
        self._locks: dict[PeerKey, trio.Lock] = {}
        self._hints: dict[PeerKey, tuple[Address, ...]] = {}
        self._failed_ns: dict[tuple[PeerKey, Address], int] = {}

    def known(self, peer: PeerKey, also: Iterable[Address] = ()) -> list[Address]:
        """All addresses of ``peer`` we know, best first, then ``also``."""
        linked = [a for p, a in self._linked if p == peer]
        known = [*self._book.addresses(peer), *linked, *self._hints.get(peer, ()), *also]
        return list(dict.fromkeys(known))

    def hint(self, peer: PeerKey, addresses: tuple[Address, ...]) -> None:
        """Remember unproven addresses of a provider, so that it can be dialled later; at most ``DIAL_HINTS`` peers."""
        if addresses:
            merged = dict.fromkeys([*addresses, *self._hints.pop(peer, ())])
            self._hints[peer] = tuple(merged)[:ADDRESSES_PER_PEER]
            while len(self._hints) > DIAL_HINTS:
                del self._hints[next(iter(self._hints))]

    def shunned(self, peer: PeerKey, also: Iterable[Address] = ()) -> bool:
        """Whether every known address of ``peer`` failed less than ``DIAL_SHUN_NS`` ago."""
        if self._links.link(peer) is not None:
            return False
        since = self._clock.now_ns() - DIAL_SHUN_NS
        return not self._untried(peer, self.known(peer, also), since)

    async def reach(self, peer: PeerKey, addresses: list[Address]) -> Connection:
        """A living connection to ``peer``: its present one, or a new one to one of ``addresses``.

        Raises:
            Unreachable: no address answered as that peer. WrongNetwork: it is on another network.
        """
        if peer == self._host.peer:
            raise UsageError("a peer does not connect to itself")
        lock = self._locks.setdefault(peer, trio.Lock())
        asked_ns = self._clock.now_ns()
        try:
            async with lock:
                link = self._links.link(peer) or await self._greeted(peer)
                if link is None:
                    link = await self._dial(peer, self._untried(peer, addresses, asked_ns))
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(peer, None)
        return link.connection

    def idle(self) -> bool:
        """No dial is under way."""
        return not self._locks

    def _untried(self, peer: PeerKey, addresses: Iterable[Address], since_ns: int) -> list[Address]:
        return [a for a in addresses if self._failed_ns.get((peer, a), -1) < since_ns]

    async def _greeted(self, peer: PeerKey) -> Link | None:
        """The link to ``peer`` that is just saying Hello, once it has; None if there is none."""
        for link in self._links.greeting(peer):
            await link.wait_ready()
            return link
        return None

    async def _dial(self, peer: PeerKey, addresses: list[Address]) -> Link:
        error = Unreachable(f"no address of {peer_id(peer)} is known, or all just failed")
        for address in addresses:
            try:
                return await self._dial_one(peer, address)
            except Unreachable as failure:
                self._note_failure(peer, address)
                error = failure
        self._links.unreached(peer, error)
        raise error

    async def _dial_one(self, peer: PeerKey, address: Address) -> Link:
        connection = await self._host.dial(peer, address)
        link = self._links.link_of(connection)
        if link is None:
            raise Unreachable(f"{address.of(peer)} closed the connection at once")
        try:
            await link.wait_ready()
        except WrongNetwork:
            self._book.forget(peer)
            raise
        self._book.worked(peer, address)
        self._failed_ns.pop((peer, address), None)
        return link

    def _note_failure(self, peer: PeerKey, address: Address) -> None:
        self._book.failed(peer, address)
        now = self._clock.now_ns()
        self._failed_ns[peer, address] = now
        if len(self._failed_ns) > DIAL_HINTS:
            self._failed_ns = {k: t for k, t in self._failed_ns.items() if now - t < DIAL_SHUN_NS}
