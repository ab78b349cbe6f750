"""TOK-29 to TOK-31: several leases on one decoder, each with its own numbers, none kept waiting by another."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import CocoonError, WorkerLost
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LEASE_SEQUENCES, PAYLOAD_BYTES
from cocoon.runtime.chorus import Chorus
from cocoon.runtime.process import Answer, Asked, TurnReport

ONE, TWO, THREE = (LeaseId(bytes([number]) * 32) for number in (1, 2, 3))
HEAD = bytes(32)


class Worker:
    """Makes the next token of every sequence it has in each turn; one that is cancelled ends."""

    def __init__(self) -> None:
        self.has: dict[int, int] = {}
        self.asked: list[list[Asked]] = []
        self.cancelled: list[list[int]] = []
        #: What the next turn raises instead.
        self.error: CocoonError | None = None

    async def turn(self, asked: list[Asked], cancelled: list[int]) -> TurnReport:
        await trio.sleep(0.01)
        if self.error is not None:
            raise self.error
        self.asked.append(asked)
        self.cancelled.append(cancelled)
        self.has |= {number: 0 for number, _, _ in asked}
        ended = tuple((number, Answer(b"over", 1)) for number in cancelled if self.has.pop(number, None) is not None)
        for number in self.has:
            self.has[number] += 1
        return TurnReport(tuple((number, place, 0, HEAD) for number, place in self.has.items()), ended)


class Stage:
    """A chorus at work, and what each lease heard."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.chorus, self.worker = Chorus(), Worker()
        self.heard: dict[LeaseId, list[Any]] = {}
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        await self.chorus.run(self.worker.turn)

    async def turn(self, lease: LeaseId, asked: list[int] = [], cancelled: list[int] = []) -> None:  # noqa: B006
        payload = bytes([lease[0]])
        report = await self.chorus.turn(lease, [(number, payload) for number in asked], cancelled)
        told = [(number, place) for number, place, _, _ in report.told]
        self.heard.setdefault(lease, []).append((told, [number for number, _ in report.ended]))

    async def turns(self, lease: LeaseId, count: int, asked: list[int]) -> None:
        await self.turn(lease, asked)
        for _ in range(count - 1):
            await self.turn(lease)


async def test_each_lease_hears_of_its_own_sequences_by_its_own_numbers(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        async with trio.open_nursery() as leases:
            leases.start_soon(stage.turns, ONE, 3, [1, 2])
            leases.start_soon(stage.turns, TWO, 3, [2])
        nursery.cancel_scope.cancel()
    asked = sum(stage.worker.asked, [])
    whose = {payload: who for _, who, payload in asked}
    assert len({number for number, _, _ in asked}) == 3
    assert whose.keys() == {b"\1", b"\2"} and len({*whose.values()}) == 2
    for lease, numbers in ((ONE, [1, 2]), (TWO, [2])):
        turns = [told for told, _ in stage.heard[lease] if told]    # one of them came when the first turn had begun
        assert turns == [[(number, place) for number in numbers] for place in range(1, len(turns) + 1)]
        assert len(turns) >= 2


async def test_a_cancel_that_comes_at_a_token_holds_for_the_next_turn(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await stage.turn(ONE, [5])
        await stage.turn(ONE, [], [5])
        assert stage.heard[ONE] == [([(5, 1)], []), ([], [5])], "at most the token that was under way"
        nursery.cancel_scope.cancel()


async def test_who_is_slow_misses_no_token_and_keeps_nobody_waiting(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        async with trio.open_nursery() as leases:
            leases.start_soon(stage.turn, ONE, [1])
            leases.start_soon(stage.turn, TWO, [1])
        began = trio.current_time()
        await stage.turns(TWO, 9, [])                   # the other one does not come back meanwhile
        assert trio.current_time() - began < 9 * 0.012
        before = trio.current_time()
        await stage.turn(ONE)
        assert trio.current_time() == before, "what it missed is told at once"
        heard = sum((told for told, _ in stage.heard[ONE]), [])
        assert len(heard) >= 9 and heard == [(1, place) for place in range(1, len(heard) + 1)]
        nursery.cancel_scope.cancel()


async def test_nothing_is_ordered_while_nobody_asks(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await trio.sleep(10)
        assert stage.worker.asked == []
        await stage.turn(ONE, [1])
        assert stage.heard[ONE] == [([(1, 1)], [])]
        nursery.cancel_scope.cancel()


async def test_sequences_of_a_lease_that_left_are_cancelled_and_told_to_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await stage.turn(ONE, [1])
        await stage.turn(TWO, [1])
        stage.chorus.leave(ONE)
        stage.chorus.leave(ONE)
        await stage.turns(TWO, 2, [])
        assert len(stage.worker.has) == 1 and sum(stage.worker.cancelled, []) != []
        assert [told for told, _ in stage.heard[TWO]] == [[(1, 1)], [(1, 2)], [(1, 3)]]
        nursery.cancel_scope.cancel()


async def test_places_go_to_the_lease_that_has_fewest_and_no_more_are_with_the_worker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        async with trio.open_nursery() as leases:
            leases.start_soon(stage.turn, ONE, list(range(LEASE_SEQUENCES)))
            leases.start_soon(stage.turn, TWO, list(range(LEASE_SEQUENCES)))
            leases.start_soon(stage.turn, THREE, [7])
        await stage.turns(ONE, 2, [])
        have = [stage.chorus._voices[lease] for lease in (ONE, TWO, THREE)]
        assert sum(len(voice.singing) for voice in have) == LEASE_SEQUENCES == len(stage.worker.has)
        nursery.cancel_scope.cancel()


async def test_inputs_of_one_turn_fit_one_order(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        half = bytes(PAYLOAD_BYTES // 2 + 1)
        nursery.start_soon(stage.chorus.turn, ONE, [(1, half), (2, half)], [])
        await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.sleep(0.5)
        assert [len(asked) for asked in stage.worker.asked[:2]] == [1, 1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("both", [False, True])
async def test_who_had_sequences_in_a_worker_that_is_lost_hears_of_it(
    both: bool, autojump_clock: trio.testing.MockClock
) -> None:
    chorus, worker, ends = Chorus(), Worker(), dict[LeaseId, str]()

    async def ask(lease: LeaseId) -> None:
        try:
            await chorus.turn(lease, [(1, b"")], [])
        except WorkerLost as error:
            ends[lease] = error.text

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, ONE)
        if both:
            nursery.start_soon(ask, TWO)
        await trio.testing.wait_all_tasks_blocked()
        worker.error = WorkerLost("it is gone")
        with pytest.raises(WorkerLost):
            await chorus.run(worker.turn)
        assert chorus.fail(worker.error, all_wait=True) == ({ONE, TWO} if both else {ONE})
    assert ends == dict.fromkeys([ONE, TWO] if both else [ONE], "it is gone")
    assert not chorus._owners
