"""One at a time, in the order in which they came; free, it costs no pass of the loop."""

from __future__ import annotations

import trio
import trio.testing

from cocoon.core.turns import Turn


async def test_who_comes_first_goes_first_and_nobody_beside_another() -> None:
    turn, inside, order = Turn(), 0, []

    async def visit(number: int) -> None:
        nonlocal inside
        async with turn:
            inside += 1
            assert inside == 1 and turn.taken
            await trio.lowlevel.checkpoint()
            order.append(number)
            inside -= 1

    async with trio.open_nursery() as nursery, turn:
        for number in range(5):
            nursery.start_soon(visit, number)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 1, 2, 3, 4] and not turn.taken


async def test_a_free_turn_is_taken_without_a_checkpoint() -> None:
    with trio.testing.assert_no_checkpoints():
        async with Turn():
            pass


async def test_who_gives_up_waiting_leaves_the_turn_to_the_next() -> None:
    turn = Turn()
    async with turn:
        with trio.move_on_after(0):
            async with turn:
                raise AssertionError("entered while it was another's turn")
    async with turn:
        assert turn.taken
