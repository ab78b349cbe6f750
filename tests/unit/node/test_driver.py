"""The shell around one machine (MAC-4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import trio
import trio.testing

from cocoon.core.errors import StorageFull, UsageError
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS
from cocoon.node.driver import INBOX_EVENTS, Driver


class Happened(Event):
    """A fact."""

    number: int


class Owe(Effect):
    """An order that must not leave before the journal has it."""

    number: int
    durable: ClassVar[bool] = True


class Wave(Effect):
    """An order that costs nothing."""

    number: int


class Clock:
    """trio's clock in nanoseconds, so that ``autojump_clock`` moves it."""

    def now_ns(self) -> int:
        return int(trio.current_time() * SECOND_NS)


@dataclass
class Echo:
    """Owes odd numbers, waves at even ones, notes deadlines."""

    due_ns: int | None = None
    late_at_ns: list[int] = field(default_factory=list)

    def handle(self, now_ns: int, event: Event) -> Sequence[Effect]:
        match event:
            case Happened(number):
                return [Owe(number)] if number % 2 else [Wave(number)]
            case DeadlinePassed():
                self.late_at_ns.append(now_ns)
                self.due_ns = None
                return [Wave(-1)]
        return []

    def deadline_ns(self) -> int | None:
        return self.due_ns


async def drive(machine: Echo, numbers: list[int], record: object) -> list[str]:
    """Feed the numbers; the trace of what was recorded and performed, in order."""
    trace: list[str] = []

    async def note(effects: Sequence[Effect]) -> None:
        if callable(record):
            record()
        trace.extend(f"journal {effect}" for effect in effects)

    async def perform(effect: Effect) -> None:
        trace.append(f"perform {effect}")
        if isinstance(effect, Wave) and effect.number in (0, -1):
            driver.stop()

    async def flush() -> None:
        trace.append("flush")

    driver = Driver(machine, Clock(), perform, note, flush)
    for number in numbers:
        await driver.post(Happened(number))
    await driver.run()
    return trace


async def test_a_durable_effect_is_journalled_before_it_is_performed() -> None:
    assert await drive(Echo(), [1, 0], None) == [
        "journal Owe(number=1)", "perform Owe(number=1)", "perform Wave(number=0)", "flush",
    ]


async def test_facts_that_wait_together_are_recorded_together_and_answered_in_order() -> None:
    assert await drive(Echo(), [1, 2, 3, 0], None) == [
        "journal Owe(number=1)", "journal Owe(number=3)",
        "perform Owe(number=1)", "perform Wave(number=2)", "perform Owe(number=3)", "perform Wave(number=0)", "flush",
    ]


async def test_nothing_is_performed_when_the_journal_fails() -> None:
    performed: list[Effect] = []

    async def fail(effects: Sequence[Effect]) -> None:
        raise StorageFull("no room")

    async def perform(effect: Effect) -> None:
        performed.append(effect)

    driver = Driver(Echo(), Clock(), perform, fail)
    await driver.post(Happened(1))
    with pytest.raises(StorageFull):
        await driver.run()
    assert performed == []


async def test_a_machine_with_durable_effects_needs_a_journal() -> None:
    async def perform(effect: Effect) -> None:
        raise AssertionError("left without a journal")

    driver = Driver(Echo(), Clock(), perform)
    await driver.post(Happened(1))
    with pytest.raises(UsageError):
        await driver.run()


async def test_a_deadline_is_told_when_it_is_due_and_not_before(autojump_clock: trio.testing.MockClock) -> None:
    machine = Echo(due_ns=int(trio.current_time() * SECOND_NS) + 5 * SECOND_NS)
    due_ns = machine.due_ns
    assert await drive(machine, [], None) == ["perform Wave(number=-1)", "flush"]
    assert due_ns is not None and machine.late_at_ns[0] >= due_ns


async def test_a_fact_taken_before_the_end_is_answered_after_it() -> None:
    performed: list[Effect] = []

    async def perform(effect: Effect) -> None:
        performed.append(effect)
        driver.stop()

    driver = Driver(Echo(), Clock(), perform)
    assert await driver.post(Happened(2)) and await driver.post(Happened(4))
    await driver.run()
    assert performed == [Wave(2), Wave(4)]


async def test_who_hands_in_a_fact_after_the_end_is_told_that_nobody_looks_at_it() -> None:
    async def perform(effect: Effect) -> None:
        driver.stop()

    driver = Driver(Echo(), Clock(), perform)
    await driver.post(Happened(2))
    await driver.run()
    with trio.fail_after(5):
        assert not any([await driver.post(Happened(number)) for number in range(200)])


def slow_driver(machine: Echo, last: int) -> tuple[Driver, list[int]]:
    """Takes five seconds for each order, until it has carried out the last one; and what it performed."""
    performed: list[int] = []

    async def perform(effect: Effect) -> None:
        assert isinstance(effect, Wave)
        await trio.sleep(5)
        performed.append(effect.number)
        if effect.number == last:
            driver.stop()

    driver = Driver(machine, Clock(), perform)
    return driver, performed


async def test_a_deadline_that_comes_while_effects_are_performed_waits_for_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    driver, performed = slow_driver(Echo(due_ns=Clock().now_ns() + SECOND_NS), last=-1)
    await driver.post(Happened(2))
    await driver.run()
    assert performed == [2, -1]


async def test_a_deadline_that_moved_while_effects_are_performed_is_not_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Echo(due_ns=Clock().now_ns() + SECOND_NS)
    driver, performed = slow_driver(machine, last=4)
    await driver.post(Happened(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(3)                             # the deadline has come, and the first order is under way
        machine.due_ns = None
        await trio.sleep(7)
        await driver.post(Happened(4))
    assert performed == [2, 4] and machine.late_at_ns == []


async def test_a_fact_that_comes_with_the_deadline_is_taken_whole(autojump_clock: trio.testing.MockClock) -> None:
    """Both are there when the shell wakes; neither is lost, and what the fact orders is not cut off."""
    performed: list[int] = []

    async def perform(effect: Effect) -> None:
        assert isinstance(effect, Wave)
        await trio.lowlevel.checkpoint()
        performed.append(effect.number)
        if {2, -1} <= set(performed):
            driver.stop()

    driver = Driver(Echo(due_ns=int(trio.current_time() * SECOND_NS) + SECOND_NS), Clock(), perform)

    async def post() -> None:
        await trio.sleep(1)
        await driver.post(Happened(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(post)
        nursery.start_soon(driver.run)
    assert sorted(performed) == [-1, 2]


async def test_a_full_inbox_holds_up_who_posts_and_loses_hints() -> None:
    goes_on, performed = trio.Event(), list[int]()

    async def perform(effect: Effect) -> None:
        assert isinstance(effect, Wave)
        await goes_on.wait()
        performed.append(effect.number)
        if effect.number == 2 * (INBOX_EVENTS + 2):
            driver.stop()

    driver = Driver(Echo(), Clock(), perform)
    async with trio.open_nursery() as nursery:
        await driver.post(Happened(2))
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(INBOX_EVENTS):
            await driver.post(Happened(2 * number + 4))
        driver.hint(Happened(1_000_000))
        nursery.start_soon(driver.post, Happened(2 * (INBOX_EVENTS + 2)))
        await trio.testing.wait_all_tasks_blocked()
        assert len(driver._inbox) == INBOX_EVENTS
        goes_on.set()
    assert performed == [2 * number for number in range(1, INBOX_EVENTS + 3)]
