"""The trap itself: it dies at the occurrence that was named, once, and what happens again is no occurrence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.crash.root import Trap


@dataclass(slots=True)
class Harmless(Trap):
    """Notes what was done when it would have died."""

    done: list[Any] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)

    def die(self) -> None:
        self.deaths.append(len(self.done))


async def play(trap: Harmless, *calls: tuple[str, Any]) -> list[int]:
    """Do all of this under the trap; how much was done at each of its deaths."""

    async def act(call: tuple[str, Any]) -> None:
        trap.done.append(call)

    watched = trap.around(act, lambda call: [call])
    for call in calls:
        await watched(call)
    return trap.deaths


@pytest.mark.parametrize(("side", "done"), [("before", 2), ("after", 3)])
async def test_it_dies_on_its_side_of_the_occurrence_and_at_no_later_one(side: str, done: int) -> None:
    trap = Harmless("sent:Word", side, 2)
    calls = [("sent:Word", 1), ("sent:Other", 2), ("sent:Word", 3), ("sent:Word", 4)]
    assert await play(trap, *calls) == [done]


async def test_what_is_sent_again_is_not_counted_again() -> None:
    trap = Harmless("sent:Word", "before", 2)
    assert await play(trap, ("sent:Word", b"same"), ("sent:Word", b"same"), ("sent:Word", b"other")) == [2]


async def test_of_several_rows_in_one_batch_each_is_counted() -> None:
    trap = Harmless("row:fact", "after", 3)

    async def append(names: list[str]) -> None:
        trap.done.append(names)

    watched = trap.around(append, lambda names: [(name, object()) for name in names])
    for batch in (["row:fact", "row:fact"], ["row:fact", "row:fact"]):
        await watched(batch)
    assert trap.deaths == [2]


async def test_it_dies_of_what_it_hears_once_it_is_read() -> None:
    trap = Harmless("heard:Word", "after", 2)

    async def read(word: bytes) -> bytes:
        trap.done.append(word)
        return word

    watched = trap.behind(read, lambda word: [("heard:Word", word)])
    assert [await watched(word) for word in (b"a", b"a", b"b", b"c")] == [b"a", b"a", b"b", b"c"]
    assert trap.deaths == [3]
