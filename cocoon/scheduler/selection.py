"""Choosing a seller: the lowest expected cost under the ceiling, weighed by time and by how often a lease ends well.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-1 to SCH-3, SCH-19, SCH-22, SCH-24, SCH-29 and SCH-30.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import (
    DELAY_PPM_PER_S,
    RUNS_PER_LEASE,
    SPREAD_LEASES,
    SPREAD_UNITS,
    USUAL_CEILING_MEDIANS,
    USUAL_CEILING_NANOTON,
)
from cocoon.core.units import MILLISECOND_NS, PPM, PRICE_UNITS, SECOND_NS, UnitKind, bill_nanoton
from cocoon.core.values import Value
from cocoon.wire.market import Bid
from cocoon.wire.messages import Offer, Profile


class Terms(Protocol):
    """What a lease would cost: an offer has it, and a bid. Prices are nanoton per 1,000 units of a kind."""

    @property
    def setup_nanoton(self) -> int: ...

    @property
    def prices(self) -> tuple[tuple[int, int], ...]: ...


class Measure(Value):
    """How the runs of a task are billed: the unit, and the most that one run has of it."""

    unit: int = int(UnitKind.RUN)
    most: int = 1


#: Of tasks whose runs are the unit themselves.
RUNS = Measure()


class Demand(Value):
    """What a task needs, as far as an offer can answer it. Sizes in bytes."""

    kind: str
    model_bytes: int
    runs: int
    ceiling_nanoton: int
    measure: Measure = RUNS


class _PerRun(Value):
    """Terms as they come to at most, with a price of runs alone."""

    setup_nanoton: int
    prices: tuple[tuple[int, int], ...]


def per_run(terms: Terms, measure: Measure) -> Terms:
    """What runs cost at most on ``terms``: all that chooses, bounds and compares counts runs (SCH-30)."""
    if measure.unit == UnitKind.RUN:
        return terms
    price_nanoton = dict(terms.prices).get(measure.unit, 0) * measure.most
    return _PerRun(terms.setup_nanoton, ((int(UnitKind.RUN), price_nanoton),))


class Quote(Value):
    """A provider's verified offer or bid, with everything a lease must name.

    Attributes:
        digest: Of the bid if there is one, else of the offer.
        bid: None for an offer alone, which says what a bid would be at most.
        binds_until_ns: When the bid's price stops to stand; 0 for an offer alone.
        measure: Of the task that it is for.
    """

    provider: PeerKey
    digest: bytes
    offer: Offer
    sealing_key: bytes
    #: Where the provider is paid (hash part of an address) and the key that a lane names; zeros without a ledger.
    payout: bytes
    provider_key: bytes
    profile: Profile
    bid: Bid | None = None
    binds_until_ns: int = 0
    #: Public models that it holds and has run: (model, runs in one batch, microseconds of it).
    warm_models: tuple[tuple[bytes, int, int], ...] = ()
    measure: Measure = RUNS

    @property
    def asked(self) -> Terms:
        """What is asked here: as bid, or else at most as offered."""
        return self.bid or self.offer

    @property
    def terms(self) -> Terms:
        """The same for the runs of the task, at most."""
        return per_run(self.asked, self.measure)

    @property
    def warm(self) -> bool:
        """The model is with this provider already, as it says in its bid."""
        return self.bid is not None and self.bid.warm


@dataclass(frozen=True, slots=True)
class Missed:
    """A seller that gave no offer or no bid, and why; two are the same if they have the same code."""

    peer: PeerKey
    code: str
    text: str = field(default="", compare=False)


def unheard(peer: PeerKey) -> Missed:
    """A seller that said nothing in time."""
    return Missed(peer, "unreachable", "nothing was heard in time")


class Ranked(Value):
    """Sellers that fit, the best first; never empty."""

    quotes: tuple[Quote, ...]


class NoneFits(Value):
    """Nobody sells this; ``reasons`` says why each offer was passed over."""

    reasons: tuple[str, ...]


class AllAboveCeiling(Value):
    """Some would fit, but the cheapest asks more than the ceiling."""

    lowest_nanoton: int
    ceiling_nanoton: int


def run_nanoton_per_1000(terms: Terms) -> int:
    """The price of 1,000 runs."""
    return dict(terms.prices).get(UnitKind.RUN, 0)


def expected_cost_nanoton(terms: Terms, runs: int) -> int:
    """Set-up price plus the bill for ``runs`` runs; prices of other unit kinds do not apply."""
    return terms.setup_nanoton + bill_nanoton(runs, run_nanoton_per_1000(terms))


def affordable_runs(terms: Terms, amount_nanoton: int) -> int:
    """The most runs of a lease on ``terms`` that cost no more than ``amount_nanoton``, set-up included."""
    per_1000 = run_nanoton_per_1000(terms)
    left = amount_nanoton - terms.setup_nanoton
    most = RUNS_PER_LEASE if per_1000 == 0 else left * PRICE_UNITS // per_1000
    return max(1, min(RUNS_PER_LEASE, most))


def expected_completion_ns(quote: Quote, runs: int, slowest_us: int = 0) -> int:
    """From the award to the last of ``runs`` results, as the bid has it; 0 for an offer, which does not say.

    Args:
        slowest_us: The time of a run with a bidder that never measured it: that of the slowest who did.
    """
    bid = quote.bid
    return 0 if bid is None else bid.start_ms * MILLISECOND_NS + runs * (bid.run_us or slowest_us) * 1_000


def slowest_run_us(quotes: Sequence[Quote]) -> int:
    """The longest run time that any bid names."""
    return max((quote.bid.run_us for quote in quotes if quote.bid is not None), default=0)


def usual_ceiling_nanoton(asked: Sequence[Terms], runs: int) -> int:
    """What a task may cost if its user named no ceiling: three times the median ask, at most one coin (SCH-19)."""
    costs = sorted(expected_cost_nanoton(terms, runs) for terms in asked)
    median_nanoton = costs[(len(costs) - 1) // 2] if costs else 0
    return min(USUAL_CEILING_MEDIANS * median_nanoton, USUAL_CEILING_NANOTON)


def usual_spread(units: int) -> int:
    """Most leases at a time of a task whose user named no number (SCH-24)."""
    return 1 if units < SPREAD_UNITS else SPREAD_LEASES


def misfit(offer: Offer, demand: Demand) -> str | None:
    """Why ``offer`` cannot serve ``demand``, or None if it can."""
    if demand.kind not in offer.kinds:
        return f"does not sell {demand.kind}"
    if demand.measure.unit not in dict(offer.prices):
        return f"has no price of {UnitKind(demand.measure.unit).name.lower()}s"
    if demand.model_bytes > offer.max_model_bytes:
        return f"takes models up to {offer.max_model_bytes} bytes, this one has {demand.model_bytes}"
    return None


def rank(
    quotes: list[Quote], demand: Demand, reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM
) -> Ranked | NoneFits | AllAboveCeiling:
    """Order the quotes that fit ``demand`` by expected cost over reliability, more if it comes later (SCH-2).

    Equal ones are ordered by reliability, then by peer id. The ceiling is for what is paid, not for what is weighed.

    Args:
        reliability_ppm: Above 0.
    """
    reasons = {quote.provider: misfit(quote.offer, demand) for quote in quotes}
    fitting = [quote for quote in quotes if reasons[quote.provider] is None]
    if not fitting:
        return NoneFits(tuple(f"{peer_id(who)} {why}" for who, why in sorted(reasons.items()) if why))
    cost = {quote.provider: expected_cost_nanoton(quote.terms, demand.runs) for quote in fitting}
    if (lowest := min(cost.values())) > demand.ceiling_nanoton:
        return AllAboveCeiling(lowest, demand.ceiling_nanoton)

    slowest_us = slowest_run_us(fitting)

    def weighed(quote: Quote) -> tuple[int, int, str]:
        who, reliability = quote.provider, reliability_ppm(quote.provider)
        later_ppm = PPM + expected_completion_ns(quote, demand.runs, slowest_us) * DELAY_PPM_PER_S // SECOND_NS
        # A thousandth of a nanoton more, so that time counts where nothing costs anything.
        return (1_000 * cost[who] + 1) * later_ppm * PPM // reliability, -reliability, peer_id(who)

    affordable = [quote for quote in fitting if cost[quote.provider] <= demand.ceiling_nanoton]
    return Ranked(tuple(sorted(affordable, key=weighed)))


def shortlist(
    offers: Mapping[PeerKey, Offer], demand: Demand, most: int, explored: int, below: Callable[[int], int],
    reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM,
) -> list[PeerKey]:
    """Whom to ask, of providers whose offers are known: the best that fit ``demand``, and some of the others (SCH-29).

    Args:
        most: Length of the list.
        explored: Places of it that go by lot.
        below: Draws a uniform integer below its argument.
        reliability_ppm: Above 0.
    """

    def weighed(provider: PeerKey) -> tuple[int, int, bytes]:
        reliability = reliability_ppm(provider)
        cost = expected_cost_nanoton(per_run(offers[provider], demand.measure), demand.runs)
        return cost * PPM // reliability, -reliability, provider

    best = sorted((peer for peer, offer in offers.items() if misfit(offer, demand) is None), key=weighed)
    if len(best) <= most:
        return best
    others = best[most - explored:]
    return best[: most - explored] + [others.pop(below(len(others))) for _ in range(explored)]
