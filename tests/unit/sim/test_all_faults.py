"""Fifty peers in any weather: no rule is broken, and what once broke one breaks none any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from cocoon.core.limits import LEASE_DURATION_S
from cocoon.core.units import SECOND_NS
from sim.engine.chain import GENESIS_S
from sim.engine.faults import Fault
from sim.recording import replayed, unpack_recording
from sim.shrinking import fewer
from tests.unit.sim.worlds import run, scenario

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
SEEDS, SEEDS_A_TEST = 50, 5
SEEDS_LONG = 1_000


def breaches(seed: int) -> tuple[str, ...]:
    """Of one world with all faults."""
    _, found = run(scenario("all_faults"), seed, writes_trace=False)
    return found.breaches


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_A_TEST))
def test_no_rule_is_broken_in_any_weather(first: int) -> None:
    assert {seed: found for seed in range(first, first + SEEDS_A_TEST) if (found := breaches(seed))} == {}


@pytest.mark.long
def test_no_rule_is_broken_in_a_thousand_weathers() -> None:
    seeds = range(1, SEEDS_LONG + 1)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(seeds, pool.map(breaches, seeds, chunksize=4), strict=True))
    assert {seed: broken for seed, broken in found.items() if broken} == {}


def test_all_faults_happen_and_work_goes_on_and_is_paid_for() -> None:
    world, found = run(scenario("all_faults"), 1)
    assert {fault.kind for fault in world.faults} == {"kill", "power", "cut", "one_way", "chain"}
    assert found.metrics["ended"]["done"] > found.metrics["tasks"] // 2
    assert found.metrics["paid_nanoton"] > 0


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_what_once_failed_does_not_fail_again(path: Path) -> None:
    assert replayed(unpack_recording(path.read_text(encoding="utf-8"))).breaches == ()


def test_shrinking_leaves_exactly_the_accidents_that_are_needed() -> None:
    faults = [Fault(number * SECOND_NS, "kill", 1, (number,)) for number in range(17)]
    tried = []

    def fails(some: Sequence[Fault]) -> bool:
        tried.append(len(some))
        return {faults[3], faults[11]} <= set(some)

    assert list(fewer(faults, fails)) == [faults[3], faults[11]]
    assert len(tried) < 100


def test_offers_of_who_left_are_forgotten_in_time() -> None:
    world, found = run(scenario("leaving"), 1)
    assert found.breaches == ()
    assert len(world.left) == 3


def test_each_lease_is_on_a_lane_that_outlives_it() -> None:
    world, found = run(scenario("old_lanes"), 1)
    assert found.breaches == ()
    assert found.metrics["ended"] == {"done": found.metrics["tasks"]}
    chain = world.ground.chain
    assert chain is not None and any(
        lane.expires_s >= GENESIS_S + LEASE_DURATION_S + world.scenario.seconds
        for escrow in chain.escrows.values() for lane in escrow.lanes.values()
    ), "no lane was ever topped up"
