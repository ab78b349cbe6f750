"""A square of peers in memory: who is connected with whom is a test's to say, streams are real ones."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import trio

from cocoon.core.errors import CocoonError, Unreachable
from cocoon.core.ids import PeerKey
from cocoon.identity.keys import Identity, identity_of
from cocoon.node.counter import OfferCounter
from cocoon.node.gossip import OfferGossip
from cocoon.node.stock import Terms
from cocoon.p2p.streams import PeerStream
from cocoon.wire.messages import Hello
from tests.unit.node.scripted import Clock, Heard, connected
from tests.unit.scheduler.builders import NETWORK, PROFILE

BOOT = bytes(8)
Handler = Callable[[PeerStream], Awaitable[None]]


@dataclass
class Corner:
    """A mesh as far as gossip and asking need one."""

    keys: Identity
    square: Square
    log: Heard = field(default_factory=Heard)
    joined: list[PeerKey] = field(default_factory=list)
    handlers: dict[str, Handler] = field(default_factory=dict)
    #: What the DHT would find, and how often it was asked.
    in_dht: list[PeerKey] = field(default_factory=list)
    looked_up: int = 0
    news: trio.Event = field(default_factory=trio.Event)

    @property
    def peer(self) -> PeerKey:
        return self.keys.key

    def connections(self) -> list[PeerKey]:
        return list(self.joined)

    def link(self, peer: PeerKey) -> Any:
        return SimpleNamespace(connection=SimpleNamespace(remote_ip="192.0.2.1")) if peer in self.joined else None

    def hello_of(self, peer: PeerKey) -> Hello | None:
        return Hello(network=NETWORK, agent="", boot_id=BOOT, sells=True) if peer in self.joined else None

    def serve(self, protocol: str, handler: Handler) -> None:
        self.handlers[protocol] = handler

    async def changed(self) -> None:
        await self.news.wait()

    async def open_stream(self, peer: PeerKey, protocol: str) -> PeerStream:
        there = self.square.corners.get(peer)
        if there is None or protocol not in there.handlers:
            raise Unreachable("nobody speaks that there")
        mine, other = connected(self.peer, peer)
        self.square.nursery.start_soon(self._serve, there.handlers[protocol], other)
        return mine

    async def _serve(self, handler: Handler, stream: PeerStream) -> None:
        try:
            await handler(stream)
        except CocoonError:
            pass
        await stream.close()

    async def meet(self, peers: Collection[PeerKey]) -> list[PeerKey]:
        return [peer for peer in peers if peer in self.square.corners]

    async def find_providers(self, key: bytes, limit: int, without: Collection[PeerKey] = ()) -> list[PeerKey]:
        self.looked_up += 1
        return [peer for peer in self.in_dht if peer not in without]


@dataclass
class Square:
    """All peers of one test."""

    nursery: trio.Nursery
    corners: dict[PeerKey, Corner] = field(default_factory=dict)

    def corner(self) -> Corner:
        """A peer that does nothing yet."""
        made = Corner(identity_of(os.urandom(32), os.urandom(96), 1), self)
        self.corners[made.peer] = made
        return made

    def peer(self, terms: Terms | None = None) -> tuple[Corner, OfferGossip]:
        """A peer that gossips; with terms, a provider that publishes and answers too."""
        made, counter = self.corner(), None
        if terms is not None:
            counter = OfferCounter(lambda: made.keys, NETWORK, BOOT, terms, PROFILE, Clock())
            counter.serve(cast(Any, made))
        gossip = OfferGossip(cast(Any, made), NETWORK, ("infer",), Clock(), cast(Any, made.log), counter)
        self.nursery.start_soon(gossip.run)
        return made, gossip

    def connect(self, one: Corner, other: Corner) -> None:
        """From now on they are neighbours."""
        for here, there in ((one, other), (other, one)):
            here.joined.append(there.peer)
            here.news.set()
            here.news = trio.Event()
