"""Choosing a seller: the lowest expected cost under the ceiling, weighed by how often a lease with it ends well.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-1 to SCH-3, SCH-19, SCH-22 and SCH-24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import USUAL_CEILING_MEDIANS, USUAL_CEILING_NANOTON
from cocoon.core.units import PPM, UnitKind, bill_nanoton
from cocoon.wire.messages import Offer, Profile


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task needs, as far as an offer can answer it. Sizes in bytes."""

    kind: str
    model_bytes: int
    runs: int
    ceiling_nanoton: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A provider's verified offer with everything a lease must name."""

    provider: PeerKey
    digest: bytes
    offer: Offer
    sealing_key: bytes
    #: Where the provider is paid (hash part of an address) and the key that a lane names; zeros without a ledger.
    payout: bytes
    provider_key: bytes
    profile: Profile


@dataclass(frozen=True, slots=True)
class Ranked:
    """Sellers that fit, the best first; never empty."""

    quotes: tuple[Quote, ...]


@dataclass(frozen=True, slots=True)
class NoneFits:
    """Nobody sells this; ``reasons`` says why each offer was passed over."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AllAboveCeiling:
    """Some would fit, but the cheapest asks more than the ceiling."""

    lowest_nanoton: int
    ceiling_nanoton: int


def expected_cost_nanoton(offer: Offer, runs: int) -> int:
    """Set-up price plus the bill for ``runs`` runs; prices of other unit kinds do not apply."""
    per_run = dict(offer.prices).get(UnitKind.RUN, 0)
    return offer.setup_nanoton + bill_nanoton(runs, per_run)


def usual_ceiling_nanoton(offers: Sequence[Offer], runs: int) -> int:
    """What a task may cost if its user named no ceiling: three times the median ask, at most one coin (SCH-19)."""
    costs = sorted(expected_cost_nanoton(offer, runs) for offer in offers)
    median_nanoton = costs[(len(costs) - 1) // 2] if costs else 0
    return min(USUAL_CEILING_MEDIANS * median_nanoton, USUAL_CEILING_NANOTON)


def misfit(offer: Offer, demand: Demand) -> str | None:
    """Why ``offer`` cannot serve ``demand``, or None if it can."""
    if demand.kind not in offer.kinds:
        return f"does not sell {demand.kind}"
    if demand.model_bytes > offer.max_model_bytes:
        return f"takes models up to {offer.max_model_bytes} bytes, this one has {demand.model_bytes}"
    return None


def rank(
    quotes: list[Quote], demand: Demand, reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM
) -> Ranked | NoneFits | AllAboveCeiling:
    """Order the quotes that fit ``demand`` by expected cost over reliability (SCH-2, SCH-22).

    Equal ones are ordered by reliability, then by peer id. The ceiling is for what is paid, not for what is weighed.

    Args:
        reliability_ppm: Above 0.
    """
    reasons = {quote.provider: misfit(quote.offer, demand) for quote in quotes}
    fitting = [quote for quote in quotes if reasons[quote.provider] is None]
    if not fitting:
        return NoneFits(tuple(f"{peer_id(who)} {why}" for who, why in sorted(reasons.items()) if why))
    cost = {quote.provider: expected_cost_nanoton(quote.offer, demand.runs) for quote in fitting}
    if (lowest := min(cost.values())) > demand.ceiling_nanoton:
        return AllAboveCeiling(lowest, demand.ceiling_nanoton)

    def weighed(quote: Quote) -> tuple[int, int, str]:
        reliability = reliability_ppm(quote.provider)
        return cost[quote.provider] * PPM // reliability, -reliability, peer_id(quote.provider)

    affordable = [quote for quote in fitting if cost[quote.provider] <= demand.ceiling_nanoton]
    return Ranked(tuple(sorted(affordable, key=weighed)))


def shortlist(
    offers: Mapping[PeerKey, Offer], demand: Demand, most: int, explored: int, below: Callable[[int], int],
    reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM,
) -> list[PeerKey]:
    """Whom to ask, of providers whose offers are known: the best that fit ``demand``, and some of the others (SCH-24).

    Args:
        most: Length of the list.
        explored: Places of it that go by lot.
        below: Draws a uniform integer below its argument.
        reliability_ppm: Above 0.
    """

    def weighed(provider: PeerKey) -> tuple[int, int, bytes]:
        reliability = reliability_ppm(provider)
        return expected_cost_nanoton(offers[provider], demand.runs) * PPM // reliability, -reliability, provider

    best = sorted((peer for peer, offer in offers.items() if misfit(offer, demand) is None), key=weighed)
    if len(best) <= most:
        return best
    others = best[most - explored:]
    return best[: most - explored] + [others.pop(below(len(others))) for _ in range(explored)]
