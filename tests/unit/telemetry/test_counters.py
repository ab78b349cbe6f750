"""Counters."""

from __future__ import annotations

import pytest

from cocoon.core.errors import UsageError
from cocoon.telemetry.counters import COUNTERS, Counters


def test_counters_only_grow_and_are_shown_in_order():
    counters = Counters()
    counters.add("runs_done")
    counters.add("leases_opened", 2)
    counters.add("runs_done", 0)
    assert list(counters.snapshot().items()) == [("leases_opened", 2), ("runs_done", 1)]
    with pytest.raises(UsageError):
        counters.add("runs_done", -1)


@pytest.mark.parametrize("name", ["", "Runs", "runs done", "12D3KooW", "r" * 49])
def test_names_are_constant_words(name):
    with pytest.raises(UsageError):
        Counters().add(name)


def test_names_made_from_data_are_stopped():
    counters = Counters()
    for number in range(COUNTERS):
        counters.add(f"n{number}")
    with pytest.raises(UsageError):
        counters.add("one_more")
    counters.add("n0")
