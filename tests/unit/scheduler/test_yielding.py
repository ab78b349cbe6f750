"""LEA-19: at once out of the way, and back only when it was quiet for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.limits import YIELD_LOOKS
from cocoon.core.machine import Effect
from cocoon.scheduler.yielding import OthersSeen, Rest, SellAgain, Yielding

LIMIT = 200_000


def looks(machine: Yielding, *seen_ppm: int) -> list[Effect]:
    return [effect for ppm in seen_ppm for effect in machine.handle(0, OthersSeen(ppm))]


def test_the_first_busy_look_is_enough_to_rest_and_the_next_say_nothing_new() -> None:
    machine = Yielding(LIMIT)
    assert looks(machine, 0, LIMIT - 1) == [] and not machine.rests
    assert looks(machine, LIMIT, LIMIT, 1_000_000) == [Rest()] and machine.rests


def test_it_sells_again_after_quiet_looks_in_a_row() -> None:
    machine = Yielding(LIMIT)
    assert looks(machine, LIMIT, *[0] * (YIELD_LOOKS - 1)) == [Rest()]
    assert looks(machine, LIMIT, *[0] * (YIELD_LOOKS - 1)) == [], "a busy one between begins the count anew"
    assert looks(machine, 0) == [SellAgain()] and not machine.rests
    assert looks(machine, *[0] * 20) == []
    assert looks(machine, LIMIT) == [Rest()]


@given(st.lists(st.integers(0, 1_000_000)))
def test_whatever_it_sees_it_rests_if_any_of_the_last_looks_was_busy(seen_ppm: list[int]) -> None:
    machine = Yielding(LIMIT)
    orders = looks(machine, *seen_ppm)
    assert machine.rests == any(ppm >= LIMIT for ppm in seen_ppm[-YIELD_LOOKS:])
    assert orders == [Rest(), SellAgain()] * (len(orders) // 2) + [Rest()] * machine.rests
