"""Choosing a seller (SCH-1 to SCH-3, SCH-19)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import RUNS_PER_LEASE, USUAL_CEILING_NANOTON
from cocoon.core.values import replace
from cocoon.scheduler.selection import (
    RUNS,
    AllAboveCeiling,
    Demand,
    Measure,
    NoneFits,
    Quote,
    Ranked,
    expected_cost_nanoton,
    per_run,
    rank,
    shortlist,
    usual_ceiling_nanoton,
)
from cocoon.scheduler.spending import LeasePrice
from tests.unit.scheduler.builders import offer, quote

FREE = Demand(kind="infer", model_bytes=10, runs=5, ceiling_nanoton=0)


def peer(number: int) -> PeerKey:
    return PeerKey(number.to_bytes(32, "big"))


def test_no_offers_means_that_none_fits() -> None:
    assert rank([], FREE) == NoneFits(())


def test_an_offer_that_does_not_fit_says_why() -> None:
    verdict = rank([quote(max_model_bytes=9), quote(peer(5), kinds=("map",))], FREE)
    assert isinstance(verdict, NoneFits)
    assert {reason.split(" ", 1)[1] for reason in verdict.reasons} == {
        "takes models up to 9 bytes, this one has 10", "does not sell infer",
    }


def test_the_lowest_ask_is_told_when_all_are_above_the_ceiling() -> None:
    offers = [quote(peer(1), setup_nanoton=70), quote(peer(2), setup_nanoton=50)]
    assert rank(offers, FREE) == AllAboveCeiling(lowest_nanoton=50, ceiling_nanoton=0)


def test_set_up_price_counts_once_and_run_price_per_run() -> None:
    assert expected_cost_nanoton(quote(setup_nanoton=7, prices=((1, 2_000),)).offer, runs=5) == 17


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=8, unique_by=lambda x: x[0]))
def test_the_first_seller_is_the_cheapest_and_ties_fall_to_the_lower_peer_id(asks: list[tuple[int, int]]) -> None:
    demand = Demand(kind="infer", model_bytes=10, runs=1, ceiling_nanoton=10)
    verdict = rank([quote(peer(who), setup_nanoton=price) for who, price in asks], demand)
    affordable = sorted((price, peer_id(peer(who))) for who, price in asks if price <= 10)
    if not affordable:
        assert verdict == AllAboveCeiling(min(price for _, price in asks), 10)
        return
    assert isinstance(verdict, Ranked)
    assert [(q.offer.setup_nanoton, peer_id(q.provider)) for q in verdict.quotes] == affordable


def test_who_names_no_ceiling_pays_at_most_three_times_the_lower_middle_ask() -> None:
    offers = [quote(setup_nanoton=price).offer for price in (900, 10, 40, 20)]
    assert usual_ceiling_nanoton(offers, runs=1) == 60
    assert usual_ceiling_nanoton([], runs=1) == 0


@given(st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=8),
       st.integers(1, RUNS_PER_LEASE))
def test_whatever_is_asked_who_names_no_ceiling_never_pays_more_than_one_coin(
    asks: list[tuple[int, int]], runs: int
) -> None:
    """Nor can the ceiling outgrow the field in which it is told."""
    offers = [quote(setup_nanoton=setup, prices=((1, price),)).offer for setup, price in asks]
    assert 0 <= usual_ceiling_nanoton(offers, runs) <= USUAL_CEILING_NANOTON < 1 << 64


def test_a_lone_seller_with_an_absurd_price_is_refused_with_its_figure() -> None:
    absurd = quote(setup_nanoton=(1 << 64) - 1)
    ceiling = usual_ceiling_nanoton([absurd.offer], runs=1)
    demand = Demand(kind="infer", model_bytes=10, runs=1, ceiling_nanoton=ceiling)
    assert rank([absurd], demand) == AllAboveCeiling((1 << 64) - 1, USUAL_CEILING_NANOTON)


ASKS = {peer(number): offer(prices=((1, 1_000 * number),)) for number in range(1, 21)}


def test_a_shortlist_is_the_cheapest_that_fit_and_some_of_the_others_by_lot() -> None:
    def asked(lot: int) -> list[PeerKey]:
        return shortlist(ASKS, FREE, most=8, explored=2, below=lambda bound: min(lot, bound - 1))

    assert asked(0) == [peer(number) for number in range(1, 9)]
    assert asked(11) == [*(peer(number) for number in range(1, 7)), peer(18), peer(19)]


@given(st.sets(st.integers(1, 20)), st.integers(0, 20))
def test_a_shortlist_names_each_once_and_only_those_that_fit(chosen: set[int], lot: int) -> None:
    offers = {peer(number): ASKS[peer(number)] for number in chosen} | {peer(99): offer(kinds=("map",))}
    found = shortlist(offers, FREE, most=8, explored=2, below=lambda bound: lot % bound)
    assert len(found) == len(set(found)) == min(8, len(chosen)) and set(found) <= set(offers) - {peer(99)}


def test_who_is_reliable_comes_before_who_is_a_little_cheaper() -> None:
    offers = {peer(1): offer(prices=((1, 1_000),)), peer(2): offer(prices=((1, 1_100),))}
    trust = {peer(1): 500_000, peer(2): 900_000}
    assert shortlist(offers, FREE, 8, 2, lambda _: 0, trust.__getitem__) == [peer(2), peer(1)]


# --- tokens (SCH-30) ----------------------------------------------------------

#: Runs of at most 50 tokens.
TOKENS = Measure(unit=5, most=50)
TOKENS_WANTED = Demand("generate", 10, 4, 1_000_000, TOKENS)


def teller(number: int, per_1000: int, **changes: object) -> Quote:
    """A provider that sells runs for 1,000 and tokens for so much, a thousand of each."""
    made = quote(peer(number), kinds=("generate", "infer"), prices=((1, 1_000), (5, per_1000)), **changes)
    return replace(made, measure=TOKENS)


def test_a_run_of_tokens_costs_at_most_all_of_them() -> None:
    dear = teller(1, 2_000, setup_nanoton=7)
    assert expected_cost_nanoton(dear.terms, runs=3) == 7 + 3 * 50 * 2
    assert dear.asked.prices == ((1, 1_000), (5, 2_000)), "a lease names what was asked"
    assert per_run(dear.offer, RUNS) is dear.offer


def test_sellers_of_tokens_are_ranked_by_their_price_of_tokens() -> None:
    verdict = rank([teller(1, 300), teller(2, 200), teller(3, 400)], TOKENS_WANTED)
    assert isinstance(verdict, Ranked) and [one.provider for one in verdict.quotes] == [peer(2), peer(1), peer(3)]
    offers = {one.provider: one.offer for one in (teller(1, 300), teller(2, 200), teller(3, 400))}
    assert shortlist(offers, TOKENS_WANTED, 1, 0, lambda below: 0) == [peer(2)]


def test_the_ceiling_counts_every_token_that_a_run_may_have() -> None:
    bound = Demand("generate", 10, 4, 4 * 50 * 2 - 1, TOKENS)
    assert rank([teller(1, 2_000)], bound) == AllAboveCeiling(4 * 50 * 2, 4 * 50 * 2 - 1)


def test_who_names_no_price_of_tokens_sells_none() -> None:
    verdict = rank([replace(quote(kinds=("generate",), prices=((1, 0),)), measure=TOKENS)], TOKENS_WANTED)
    assert isinstance(verdict, NoneFits) and verdict.reasons[0].endswith("has no price of output_tokens")


def test_a_lease_for_tokens_is_never_thought_cheaper_than_it_can_become() -> None:
    price = LeasePrice.of(teller(1, 30, setup_nanoton=7))
    assert price.cost_nanoton(2) == 7 + 2 * 2, "50 tokens cost 1.5 nanoton: a run may round that up by itself"
    assert price.after([9]).cost_nanoton(1) == 2, "less than was thought is no sign of another task"


@given(
    setup=st.integers(0, 9), rate=st.integers(0, 5_000), billed=st.integers(0, 2_000),
    off=st.lists(st.sampled_from([0, 0, 0, 1, -1]), max_size=6),
)
def test_units_that_are_answered_together_cost_as_one_by_one(
    setup: int, rate: int, billed: int, off: list[int]
) -> None:
    price = one_by_one = LeasePrice(setup, rate, billed)
    prices = []
    for amiss in off:
        prices.append(one_by_one.cost_nanoton(1) + amiss)
        one_by_one = one_by_one.after(prices[-1:])
    assert price.after(prices) == one_by_one or not prices
    assert one_by_one.shared == any(off)
