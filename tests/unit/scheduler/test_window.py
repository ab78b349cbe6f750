"""How much of a task is sent ahead on one lease (SCH-26)."""

from __future__ import annotations

from cocoon.core.ids import PeerKey
from cocoon.core.limits import RUNS_AHEAD_NS, RUNS_AT_FIRST, RUNS_IN_FLIGHT
from cocoon.scheduler.attempts import Attempt
from cocoon.scheduler.spending import LeasePrice

PROVIDER = PeerKey(bytes(32))


def test_as_many_units_are_out_on_a_lease_as_it_answers_in_a_moment() -> None:
    lease = Attempt(PROVIDER, LeasePrice(0, 0))
    assert lease.window == RUNS_AT_FIRST
    now_ns = 0
    for interval_ns, window in (
        (RUNS_AHEAD_NS // 40, 40), (RUNS_AHEAD_NS, RUNS_AT_FIRST), (RUNS_AHEAD_NS // 1_000, RUNS_IN_FLIGHT),
    ):
        for _ in range(100):
            now_ns += interval_ns
            lease.answer(now_ns)
        assert window - 1 <= lease.window <= window


def test_answers_that_come_together_count_as_fast_as_they_are() -> None:
    lease = Attempt(PROVIDER, LeasePrice(0, 0))
    for moment in range(40):
        for _ in range(16):
            lease.answer(moment * RUNS_AHEAD_NS // 4)
    assert 32 <= lease.window <= RUNS_IN_FLIGHT
