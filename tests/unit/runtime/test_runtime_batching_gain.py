"""What the bench shows of batching, in ratios that follow from the seed: gain where a curve gains, no cost else."""

from __future__ import annotations

import pytest

from bench.batching import COMPUTE_BOUND, MEMORY_BOUND, WAIT_NS, WAYS, serve
from cocoon.core.units import MILLISECOND_NS


def seen_by(curve, clients):
    """By way: what so many clients at a time saw."""
    return {way: serve(way, curve, clients) for way in WAYS}


def test_a_model_bound_by_memory_serves_three_times_as_many_in_a_third_of_the_time():
    seen = seen_by(MEMORY_BOUND, 64)
    assert seen["batcher"].runs_per_s > 3 * seen["one by one"].runs_per_s
    assert seen["batcher"].p50_ms < seen["one by one"].p50_ms / 3
    assert seen["batcher"].runs_per_s >= 0.99 * seen["wait of 5 ms"].runs_per_s


@pytest.mark.parametrize("curve", [MEMORY_BOUND, COMPUTE_BOUND], ids=["memory", "arithmetic"])
def test_a_client_that_is_alone_waits_for_nobody(curve):
    seen = seen_by(curve, 1)
    assert seen["batcher"] == seen["one by one"]
    assert seen["wait of 5 ms"].p50_ms == seen["batcher"].p50_ms + WAIT_NS / MILLISECOND_NS


def test_a_model_bound_by_arithmetic_is_served_as_if_there_were_no_batches():
    seen = seen_by(COMPUTE_BOUND, 64)
    assert seen["batcher"].runs_per_s == pytest.approx(seen["one by one"].runs_per_s, rel=0.01)
    assert seen["batcher"].p50_ms == pytest.approx(seen["one by one"].p50_ms, rel=0.01)


def test_the_same_seed_gives_the_same_figures():
    assert serve("batcher", MEMORY_BOUND, 8, seed=3) == serve("batcher", MEMORY_BOUND, 8, seed=3)
    assert serve("batcher", MEMORY_BOUND, 8, seed=3) != serve("batcher", MEMORY_BOUND, 8, seed=4)
