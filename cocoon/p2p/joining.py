"""Staying in the network: dial the link's bootstraps and the address book, for ever.

Bootstraps are tried again even while other peers are connected, so that two
halves of a split network find each other.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-8.
"""

from __future__ import annotations

from typing import Protocol

import trio

from cocoon.core.errors import CocoonError
from cocoon.core.ids import PeerKey
from cocoon.core.limits import JOIN_DIALS, JOIN_PEERS, PEERS_WANTED, RETRY_LAST_NS
from cocoon.core.retry import Backoff
from cocoon.core.units import SECOND_NS


class Members(Protocol):
    """What joining needs of the mesh."""

    def connections(self) -> list[PeerKey]: ...
    def known_peers(self) -> tuple[list[PeerKey], list[PeerKey]]: ...
    async def connect(self, target: PeerKey) -> PeerKey: ...


class Joiner:
    """The loop, and what it has achieved."""

    def __init__(self, mesh: Members) -> None:
        self._mesh = mesh
        self._backoff = Backoff()
        self._left = trio.Event()
        self.first_round = trio.Event()

    def somebody_left(self) -> None:
        """A peer was lost: look for others at once, and begin the back-off anew."""
        self._backoff.succeeded()
        self._left.set()

    async def run(self) -> None:
        """Dial, rest, dial again; ends only by cancellation."""
        while True:
            reached, missing = await self._round()
            if missing and not reached:
                self._backoff.failed()
            else:
                self._backoff.succeeded()
            self.first_round.set()
            rest_ns = self._backoff.delay_ns() if missing else RETRY_LAST_NS
            with trio.move_on_after(rest_ns / SECOND_NS):
                await self._left.wait()
            self._left = trio.Event()

    async def _round(self) -> tuple[int, int]:
        """One pass over the known peers that are not connected: (reached, still missing)."""
        reached: list[PeerKey] = []
        tried = self._candidates()
        limiter = trio.CapacityLimiter(JOIN_DIALS)

        async def attempt(peer: PeerKey) -> None:
            async with limiter:
                try:
                    await self._mesh.connect(peer)
                    reached.append(peer)
                except CocoonError:
                    pass                # logged where it was dialled; the next round tries again

        with trio.move_on_after(RETRY_LAST_NS / SECOND_NS):
            async with trio.open_nursery() as nursery:
                for peer in tried:
                    nursery.start_soon(attempt, peer)
        return len(reached), len(tried) - len(reached)

    def _candidates(self) -> list[PeerKey]:
        linked, booked = self._mesh.known_peers()
        connected = set(self._mesh.connections())
        room = max(PEERS_WANTED - len(connected), 0)
        others = [p for p in booked if p not in connected and p not in linked][:JOIN_PEERS]
        return [p for p in linked if p not in connected] + (others if room else [])
