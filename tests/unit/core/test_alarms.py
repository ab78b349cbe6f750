"""Alarms: one sleeper for all; each rings once, at its last time, and not when it is off."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cocoon.core.alarms import Alarm

_HOUR_S = 3_600


class Bell:
    """An alarm, and how often it rang."""

    def __init__(self) -> None:
        self.rang = 0
        self.has_rung = trio.Event()
        self.alarm = Alarm(self._ring)

    def _ring(self) -> None:
        self.rang += 1
        self.has_rung.set()

    async def rings(self) -> None:
        """Whatever was due before now was seen to when this returns."""
        self.alarm.set(trio.current_time())
        await self.is_heard()

    async def is_heard(self) -> None:
        """Wait until it rings."""
        with trio.move_on_after(10):
            await self.has_rung.wait()
        assert self.has_rung.is_set(), "it did not ring"


async def test_an_alarm_rings_once_and_can_be_set_again() -> None:
    bell = Bell()
    for times in (1, 2):
        bell.has_rung = trio.Event()
        await bell.rings()
        assert bell.rang == times
    await Bell().rings()
    assert bell.rang == 2


@pytest.mark.parametrize("how", ["off", "end", "later"])
async def test_what_was_called_off_does_not_ring(how: str) -> None:
    bell, due_s = Bell(), trio.current_time()
    bell.alarm.set(due_s)
    if how == "later":
        bell.alarm.set(due_s + _HOUR_S)
    else:
        getattr(bell.alarm, how)()
    await Bell().rings()
    assert bell.rang == 0


async def test_one_that_was_put_off_rings_when_its_new_time_has_come() -> None:
    bell, due_s = Bell(), trio.current_time()
    bell.alarm.set(due_s)
    bell.alarm.set(due_s + 0.05)
    await bell.is_heard()
    assert bell.rang == 1


async def test_one_that_is_set_to_ring_earlier_does_and_only_then() -> None:
    bell, due_s = Bell(), trio.current_time()
    bell.alarm.set(due_s + _HOUR_S)
    bell.alarm.set(due_s)
    await bell.is_heard()
    await Bell().rings()
    assert bell.rang == 1


async def test_many_ring_in_the_order_of_their_times() -> None:
    rang: list[int] = []
    due_s = trio.current_time()
    for number in (3, 1, 2, 0):
        Alarm(lambda number=number: rang.append(number)).set(due_s + number / 1_000_000)      # type: ignore[misc]
    await Bell().rings()
    assert rang == [0, 1, 2, 3]


def test_each_run_of_trio_has_its_own_sleeper() -> None:
    for _ in range(2):
        trio.run(_ring_once)


async def _ring_once() -> None:
    bell = Bell()
    await bell.rings()
    assert bell.rang == 1


async def test_setting_an_alarm_anew_is_no_checkpoint_and_leaves_nothing_behind() -> None:
    bell = Bell()
    with trio.testing.assert_no_checkpoints():
        for turn in range(1_000):
            bell.alarm.set(trio.current_time() + _HOUR_S + turn)
            bell.alarm.off()
    sleeper = bell.alarm._sleeper
    assert sleeper is not None and len(sleeper._looks) == 1
