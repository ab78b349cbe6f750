"""The award: who is taken of those who bid, and what the others hear.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-5 to AUC-7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cocoon.core.ids import PeerKey
from cocoon.core.limits import EXPLORATION_PPM, EXPLORATION_PREMIUM_PPM
from cocoon.core.units import PPM
from cocoon.core.values import Value, replace
from cocoon.scheduler.round import RoundEnded
from cocoon.scheduler.selection import (
    AllAboveCeiling,
    Demand,
    Missed,
    NoneFits,
    Quote,
    Ranked,
    expected_completion_ns,
    expected_cost_nanoton,
    rank,
    slowest_run_us,
    usual_ceiling_nanoton,
)

#: Upper ends of the bands in which a loser learns how much dearer it was, in per cent.
BANDS_PERCENT = (5, 10, 25, 50)
#: And what stands for more than the last of them.
DEARER_STILL_PERCENT = 100


class Draw(Value):
    """Two draws of a counter-based stream, below ``PPM`` and uniform: whether to explore, and whom."""

    whether_ppm: int
    whom_ppm: int


def explored(
    ranked: Sequence[Quote], runs: int, is_newcomer: Callable[[PeerKey], bool],
    block_of: Mapping[PeerKey, str], draw: Draw,
) -> tuple[Quote, ...]:
    """Now and then a newcomer first, if it costs little more than the best: nobody else would ever know it (AUC-6).

    The share is dealt out among blocks of addresses, then within one: a thousand
    identities behind one address together get what one honest newcomer gets.
    """
    order = tuple(ranked)
    if draw.whether_ppm >= EXPLORATION_PPM or not order or is_newcomer(order[0].provider):
        return order
    most = expected_cost_nanoton(order[0].terms, runs) * EXPLORATION_PREMIUM_PPM // PPM
    blocks: dict[str, list[Quote]] = {}
    for quote in order:
        if is_newcomer(quote.provider) and expected_cost_nanoton(quote.terms, runs) <= most:
            blocks.setdefault(block_of.get(quote.provider, ""), []).append(quote)
    if not blocks:
        return order
    place = draw.whom_ppm * len(blocks)
    block = blocks[sorted(blocks)[place // PPM]]
    chosen = block[place % PPM * len(block) // PPM]
    return chosen, *(quote for quote in order if quote is not chosen)


class Verdict(Value):
    """Why a bid did not win, as its bidder hears it (``wire.market.CallResult``)."""

    dearer_percent: int
    cold: bool
    slower: bool
    less_reliable: bool

    def reason(self) -> str:
        """In words, for people."""
        said = []
        if self.dearer_percent:
            over = self.dearer_percent > BANDS_PERCENT[-1]
            said.append(f"more than {BANDS_PERCENT[-1]} % dearer" if over else f"up to {self.dearer_percent} % dearer")
        said += ["cold model"] * self.cold + ["slower"] * self.slower + ["less reliable"] * self.less_reliable
        return ", ".join(said) or "a newcomer was tried"


def verdict(loser: Quote, winner: Quote, runs: int, reliability_ppm: Callable[[PeerKey], int]) -> Verdict:
    """What speaks against ``loser`` beside ``winner``, in bands."""
    cost, best = expected_cost_nanoton(loser.terms, runs), expected_cost_nanoton(winner.terms, runs)
    slowest_us = slowest_run_us((loser, winner))
    slower = expected_completion_ns(loser, runs, slowest_us) > expected_completion_ns(winner, runs, slowest_us)
    less_reliable = reliability_ppm(loser.provider) < reliability_ppm(winner.provider)
    return Verdict(_band(cost, best), winner.warm and not loser.warm, slower, less_reliable)


def _band(cost: int, best: int) -> int:
    if cost <= best:
        return 0
    return next((band for band in BANDS_PERCENT if cost * 100 <= best * (100 + band)), DEARER_STILL_PERCENT)


class Sold(Value):
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


class Known(Value):
    """What a requester knows of bidders: reliability above 0, who is a newcomer, and where each one's address lies."""

    reliability_ppm: Callable[[PeerKey], int]
    is_newcomer: Callable[[PeerKey], bool]
    block_of: Callable[[PeerKey], str]


def judge(
    demand: Demand, ended: RoundEnded, known: Known, draw: Draw, *, has_ceiling: bool = True,
) -> Sold:
    """Rank the bids, try a newcomer now and then, and find for each other one why it lost.

    Args:
        has_ceiling: False takes what is usual now instead of the demand's (SCH-19).
    """
    runs, quotes = demand.runs, ended.quotes
    if not has_ceiling:
        demand = replace(demand, ceiling_nanoton=usual_ceiling_nanoton([quote.terms for quote in quotes], runs))
    ranked, lost = rank(list(quotes), demand, known.reliability_ppm), {}
    if isinstance(ranked, Ranked):
        blocks = {quote.provider: known.block_of(quote.provider) for quote in ranked.quotes}
        ranked = Ranked(explored(ranked.quotes, runs, known.is_newcomer, blocks, draw))
        best = ranked.quotes[0]
        lost = {
            quote.provider: verdict(quote, best, runs, known.reliability_ppm)
            for quote in quotes if quote.provider != best.provider
        }
    return Sold(ranked, quotes, ended.missed, demand.ceiling_nanoton, runs, lost)
