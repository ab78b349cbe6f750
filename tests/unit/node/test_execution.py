"""LEA-6: what a provider holds for a requester that does not take its results stays bounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.limits import ORDER_NS
from cocoon.core.machine import Event
from cocoon.core.units import MICROSECOND_NS
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import terms_of
from cocoon.node import execution
from cocoon.node.execution import Execution
from cocoon.node.stock import Terms
from cocoon.runtime.process import RunReport
from cocoon.scheduler.sale import RunsFinished
from cocoon.wire.messages import Lease, RunRequest
from cocoon.wire.signing import Signed, sign
from tests.unit.node.scripted import Clock, identity
from tests.unit.scheduler import builders

OUTPUT_BYTES = 1_000
HELD_BYTES = 2 * OUTPUT_BYTES
NUMBERS = tuple(range(1, 9))


class Prolific:
    """A worker whose every run fills an order and gives ``OUTPUT_BYTES``."""

    def __init__(self) -> None:
        self.runs = 0

    async def run_all(self, inputs: list[bytes]) -> list[RunReport]:
        await trio.lowlevel.checkpoint()
        self.runs += len(inputs)
        return [RunReport(memoryview(bytes(OUTPUT_BYTES)), ORDER_NS // MICROSECOND_NS) for _ in inputs]


def at_work(worker: Prolific, finished: list[int]) -> Execution:
    """An execution on this worker, asked for ``NUMBERS``."""
    lease: Signed[Lease] = sign(builders.lease(requester=identity(2).key, provider=identity(1).key), identity(2))

    async def post(event: Event) -> bool:
        assert isinstance(event, RunsFinished)
        finished.extend(event.numbers)
        return True

    pace = SimpleNamespace(ran=lambda model, ran_us: None)
    shop: Any = SimpleNamespace(clock=Clock(), terms=Terms(prices=((1, 0),)), bids=SimpleNamespace(pace=pace))
    made = Execution(shop, lease, ReceiptIssuer(Tab(terms_of(lease))), trio.Event, post)
    made._worker = worker  # type: ignore[assignment]
    for number in NUMBERS:
        made.take(RunRequest(number=number, salt=bytes(16), inputs=b""))
    return made


async def test_no_run_is_executed_while_too_many_outputs_have_not_left(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(execution, "FLIGHT_BYTES", HELD_BYTES)
    worker, finished = Prolific(), list[int]()
    lease = at_work(worker, finished)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lease.run, NUMBERS)
        await trio.testing.wait_all_tasks_blocked()
        assert finished == [1, 2, 3], "one above what may be held"
        for number in NUMBERS:
            assert worker.runs <= number + 2
            assert lease.pop(number) is not None
            await trio.testing.wait_all_tasks_blocked()
    assert finished == list(NUMBERS), "each as soon as there was room"
