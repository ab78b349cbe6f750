"""LEA-19 on a machine with a card: others on the card count as others on the processors do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.limits import YIELD_LOOK_NS, YIELD_LOOKS
from cocoon.core.units import SECOND_NS
from cocoon.node import yielding
from cocoon.runtime.processors import Count
from tests.unit.node.scripted import Clock, Heard

LOOK_S = YIELD_LOOK_NS / SECOND_NS
QUIET = Count(0, 0, 0)


class Machine:
    """Idle processors, and a card on which others are busy as said; how often its models were let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, on_card: list[int | None]) -> None:
        self.cooled = 0
        self.looks = 0
        self.card = SimpleNamespace(name="Card 1")
        self._on_card = on_card
        monkeypatch.setattr(yielding, "_count", self._count)
        monkeypatch.setattr(yielding, "_on_card", self._look)

    async def cool(self) -> None:
        self.cooled += 1

    async def _count(self) -> Count:
        await trio.lowlevel.checkpoint()
        return QUIET

    async def _look(self, card: Any) -> int | None:
        await trio.lowlevel.checkpoint()
        assert card is self.card
        self.looks += 1
        return self._on_card[min(self.looks, len(self._on_card)) - 1]


async def looks_of(machine: Machine, count: int) -> tuple[list[bool], Heard]:
    """Whether the provider rests after each look."""
    capacity, log, rests = SimpleNamespace(yields=False), Heard(), list[bool]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(yielding.yield_to_others, 100_000, capacity, machine, Clock(), log)  # type: ignore[arg-type]
        await trio.sleep(LOOK_S / 2)
        for _ in range(count):
            await trio.sleep(LOOK_S)
            rests.append(capacity.yields)
        nursery.cancel_scope.cancel()
    return rests, log


async def test_a_provider_rests_while_others_use_its_card(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, [99_999, 100_000, 0])
    rests, _ = await looks_of(machine, 2 + YIELD_LOOKS)
    assert rests == [False, *[True] * YIELD_LOOKS, False] and machine.cooled == 1


async def test_a_card_that_does_not_tell_is_asked_once_and_said_to_be_so(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, [None])
    rests, log = await looks_of(machine, 3)
    assert not any(rests) and machine.looks == 1
    assert log.named("cannot_yield") == [{"device": "Card 1"}]
