"""The market as a buyer meets it: whom to call, what they bid, whom to take, what the others hear.

Purity: shell. Spec: docs/spec/auction.md, rules AUC-1 to AUC-7.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Sequence

from cocoon.core.clock import Clock
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import AUCTIONS_REMEMBERED
from cocoon.core.rng import stream
from cocoon.core.units import PPM
from cocoon.core.values import Value
from cocoon.node.asking import Directory
from cocoon.node.calling import Caller
from cocoon.node.regard import Regard
from cocoon.privacy.padding import padded_bytes
from cocoon.scheduler.award import Draw, Known, Sold, judge
from cocoon.scheduler.round import RoundEnded
from cocoon.scheduler.selection import Demand, Measure
from cocoon.scheduler.verification import Called
from cocoon.wire.market import NO_MODEL, Call, CallResult


class Wanted(Value):
    """What a task wants to buy now.

    Attributes:
        model: None for a private model, which is not named to bidders.
        ceiling_nanoton: None takes what is usual (SCH-19).
        without: Who lost a lease of this task.
    """

    kind: str
    measure: Measure
    model: ModelId | None
    model_bytes: int
    units: int
    deadline_ms: int
    ceiling_nanoton: int | None
    without: Collection[PeerKey] = ()


class Market:
    """Buys by auction."""

    def __init__(self, directory: Directory, clock: Clock, regard: Regard, caller: Caller) -> None:
        self._directory = directory
        self._network = directory.network
        self._clock = clock
        self._known = Known(regard.reliability_ppm, regard.is_newcomer, directory.mesh.block_of)
        self._caller = caller
        self._draws = stream(int.from_bytes(os.urandom(16), "big"), directory.mesh.peer, "exploration")
        #: The auctions of late, oldest first, for the owner.
        self.auctions: deque[tuple[int, Sold]] = deque(maxlen=AUCTIONS_REMEMBERED)

    async def buy(self, wanted: Wanted) -> Sold:
        """Call for bids and rank them; the losers hear why at once, the award is the lease."""
        called = Called.of(self._call(wanted), wanted.measure)

        async def ask(peers: Sequence[PeerKey]) -> RoundEnded:
            return await self._caller.call(peers, called)

        demand = Demand(
            wanted.kind, wanted.model_bytes, wanted.units, wanted.ceiling_nanoton or 0, wanted.measure
        )
        ended = await self._directory.ask(demand, wanted.without, self._known.reliability_ppm, ask)
        draw = Draw(self._draws.below(PPM), self._draws.below(PPM))
        sold = judge(demand, ended, self._known, draw, has_ceiling=wanted.ceiling_nanoton is not None)
        for peer, why in sold.lost.items():
            self._caller.tell(peer, CallResult(
                call=called.id, dearer_percent=why.dearer_percent, cold=why.cold, slower=why.slower,
                less_reliable=why.less_reliable,
            ))
        self.auctions.append((self._clock.now_ns(), sold))
        return sold

    def _call(self, wanted: Wanted) -> Call:
        return Call(
            network=self._network, nonce=os.urandom(16), kind=wanted.kind, model=wanted.model or NO_MODEL,
            model_bytes=padded_bytes(wanted.model_bytes), units=wanted.units, deadline_ms=wanted.deadline_ms, tier=0,
        )
