"""Auctions all over the world, on streams that are open: as long as a bidder's way is far, and no longer."""

from __future__ import annotations

import pytest

from cocoon.core.limits import AUCTION_MOST_NS
from cocoon.core.units import MILLISECOND_NS
from tests.unit.sim.worlds import run, scenario

#: From submission to award: half of all tasks, and all but one in a hundred.
P50_MS, P99_MS = 300, 800


def check(seed: int) -> None:
    _, found = run(scenario("eight_regions"), seed)
    warm, cold = found.metrics["match_ms"], found.metrics["cold_match_ms"]
    assert found.breaches == ()
    assert warm["tasks"] > 100 and cold["tasks"] > 16
    assert warm["p50"] <= P50_MS and warm["p99"] <= P99_MS
    assert warm["p50"] < cold["p50"] and cold["p99"] <= AUCTION_MOST_NS // MILLISECOND_NS


def test_a_task_finds_its_seller_in_time() -> None:
    check(1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 11))
def test_a_task_finds_its_seller_in_time_whatever_the_seed(seed: int) -> None:
    check(seed)
