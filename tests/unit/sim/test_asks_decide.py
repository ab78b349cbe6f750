"""Asks decide, newcomers get their chance, liars lose their name, and losers read why: over whole simulated markets."""

from __future__ import annotations

import pytest

from cocoon.core.limits import PROVIDERS_ASKED
from cocoon.core.values import replace
from cocoon.scheduler.award import Verdict
from sim.report import Report
from sim.scenario import Scenario
from sim.world import World
from tests.unit.sim.worlds import run, scenario

#: What a stranger's reliability is (SCH-22).
STRANGER_PPM = 900_000


def shortened(whole: Scenario, tasks: int) -> Scenario:
    """The same market with fewer tasks; the newcomer still comes at half."""
    (buyer,) = whole.requesters
    seconds = whole.seconds * tasks // buyer.tasks
    sellers = tuple(replace(group, joins_s=group.joins_s * tasks // buyer.tasks) for group in whole.providers)
    return replace(whole, seconds=seconds, providers=sellers, requesters=(replace(buyer, tasks=tasks),))


def members(world: World, group: str) -> list[int]:
    return [number for number, name in enumerate(world.groups) if name == group]


def check(world: World, found: Report) -> None:
    """What holds for every seed."""
    assert found.breaches == ()
    leases = found.metrics["leases_by_group"]
    assert 2 * leases["cheapest"] > sum(leases.values())
    assert leases["phantom"] == 0
    (buyer,) = world.buyers.values()
    (phantom,) = members(world, "phantom")
    assert buyer.regard.reliability_ppm(world.ground.peers[phantom].key) < STRANGER_PPM
    heard = [call for selling in world.sellers.values() for call in selling.bidding.seen() if call.outcome == "lost"]
    assert all(call.bands is not None and reason(call.bands) for call in heard)
    # What the last auction said may be under way when the world ends.
    assert sum(found.metrics["lost_because"].values()) - PROVIDERS_ASKED <= len(heard)


def reason(bands: object) -> str:
    """What a miner reads of a lost bid."""
    told = {name: getattr(bands, name) for name in ("dearer_percent", "cold", "slower", "less_reliable")}
    return Verdict(**told).reason()


def calls_before_the_first_lease(world: World) -> int:
    (newcomer,) = members(world, "newcomer")
    return world.checks.first_call.get(newcomer, 1 << 30)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_cheapest_sells_most_in_a_short_market(seed: int) -> None:
    check(*run(shortened(scenario("asks_decide"), 60), seed))


@pytest.mark.long
def test_the_cheapest_sells_most_and_a_newcomer_sells_within_fifty_calls() -> None:
    calls = []
    for seed in range(1, 21):
        world, found = run(scenario("asks_decide"), seed)
        check(world, found)
        calls.append(calls_before_the_first_lease(world))
    assert sum(count <= 50 for count in calls) >= 19
