"""The market as a buyer meets it: whom to call, what they bid, whom to take, what the others hear.

Purity: shell. Spec: docs/spec/auction.md, rules AUC-1 to AUC-7.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cocoon.core.clock import Clock
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import AUCTIONS_REMEMBERED
from cocoon.core.rng import stream
from cocoon.core.units import PPM
from cocoon.node.asking import Answers, Directory
from cocoon.node.calling import Caller
from cocoon.node.regard import Regard
from cocoon.privacy.padding import padded_bytes
from cocoon.scheduler.auction import Draw, Verdict, explored, verdict
from cocoon.scheduler.selection import (
    AllAboveCeiling,
    Demand,
    Missed,
    NoneFits,
    Quote,
    Ranked,
    rank,
    usual_ceiling_nanoton,
)
from cocoon.wire.market import NO_MODEL, Call, CallResult
from cocoon.wire.schema import digest


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task wants to buy now.

    Attributes:
        model: None for a private model, which is not named to bidders.
        ceiling_nanoton: None takes what is usual (SCH-19).
        without: Who lost a lease of this task.
    """

    kind: str
    model: ModelId | None
    model_bytes: int
    units: int
    deadline_ms: int
    ceiling_nanoton: int | None
    without: Collection[PeerKey] = ()


@dataclass(frozen=True, slots=True)
class Sold:
    """One auction: the verdict, every bid, who gave none, and what the task may cost.

    Attributes:
        lost: Why each bidder that was not taken was not, while one was.
    """

    verdict: Ranked | NoneFits | AllAboveCeiling
    quotes: tuple[Quote, ...]
    missed: tuple[Missed, ...]
    ceiling_nanoton: int
    units: int
    lost: dict[PeerKey, Verdict]


class Market:
    """Buys by auction."""

    def __init__(self, directory: Directory, clock: Clock, regard: Regard, caller: Caller) -> None:
        self._directory = directory
        self._mesh = directory.mesh
        self._network = directory.network
        self._clock = clock
        self._regard = regard
        self._caller = caller
        self._draws = stream(int.from_bytes(os.urandom(16), "big"), self._mesh.peer, "exploration")
        #: The auctions of late, oldest first, for the owner.
        self.auctions: deque[tuple[int, Sold]] = deque(maxlen=AUCTIONS_REMEMBERED)

    async def buy(self, wanted: Wanted) -> Sold:
        """Call for bids and rank them; the losers hear why at once, the award is the lease."""
        call = self._call(wanted)

        async def ask(peers: Sequence[PeerKey]) -> Answers:
            ended = await self._caller.call(peers, call)
            return ended.quotes, ended.missed

        demand = Demand(wanted.kind, wanted.model_bytes, wanted.units, 0)
        bids = await self._directory.ask(demand, wanted.without, self._regard.reliability_ppm, ask)
        sold = self._judge(wanted, *bids)
        call_id = digest(call)
        for peer, why in sold.lost.items():
            self._caller.tell(peer, CallResult(
                call=call_id, dearer_percent=why.dearer_percent, cold=why.cold, slower=why.slower,
                less_reliable=why.less_reliable,
            ))
        self.auctions.append((self._clock.now_ns(), sold))
        return sold

    def _call(self, wanted: Wanted) -> Call:
        return Call(
            network=self._network, nonce=os.urandom(16), kind=wanted.kind, model=wanted.model or NO_MODEL,
            model_bytes=padded_bytes(wanted.model_bytes), units=wanted.units, deadline_ms=wanted.deadline_ms, tier=0,
        )

    def _judge(
        self, wanted: Wanted, quotes: Sequence[Quote], missed: tuple[Missed, ...]
    ) -> Sold:
        units, reliability_ppm = wanted.units, self._regard.reliability_ppm
        ceiling = wanted.ceiling_nanoton
        if ceiling is None:
            ceiling = usual_ceiling_nanoton([quote.terms for quote in quotes], units)
        demand = Demand(wanted.kind, wanted.model_bytes, units, ceiling)
        ranked, lost = rank(list(quotes), demand, reliability_ppm), {}
        if isinstance(ranked, Ranked):
            ranked = Ranked(self._explored(ranked.quotes, units))
            best = ranked.quotes[0]
            lost = {
                quote.provider: verdict(quote, best, units, reliability_ppm)
                for quote in quotes if quote.provider != best.provider
            }
        return Sold(ranked, tuple(quotes), missed, ceiling, units, lost)

    def _explored(self, ranked: tuple[Quote, ...], units: int) -> tuple[Quote, ...]:
        blocks = {quote.provider: self._mesh.block_of(quote.provider) for quote in ranked}
        draw = Draw(self._draws.below(PPM), self._draws.below(PPM))
        return explored(ranked, units, self._regard.is_newcomer, blocks, draw)

