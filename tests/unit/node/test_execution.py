"""LEA-6: what a provider holds for a requester that does not take its results stays bounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from cocoon.core.errors import WorkerLost
from cocoon.core.limits import ORDER_NS
from cocoon.core.machine import Event
from cocoon.core.units import MICROSECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import terms_of
from cocoon.node import execution
from cocoon.node.execution import Execution
from cocoon.node.stock import Terms
from cocoon.runtime.process import RunReport
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.sale import RunBroke, RunsFinished
from cocoon.wire.messages import Lease, RunRequest
from cocoon.wire.signing import Signed, sign
from cocoon.wire.tensors import encode_tensors
from tests.unit.node.scripted import Clock, identity
from tests.unit.scheduler import builders

OUTPUT_BYTES = 1_000
HELD_BYTES = 2 * OUTPUT_BYTES
NUMBERS = tuple(range(1, 9))


class Prolific:
    """A seat whose every run fills an order and gives ``OUTPUT_BYTES``."""

    def __init__(self) -> None:
        self.runs = 0

    async def run_all(self, numbers: list[int], inputs: list[bytes]) -> list[RunReport]:
        await trio.lowlevel.checkpoint()
        self.runs += len(inputs)
        return [RunReport(memoryview(bytes(OUTPUT_BYTES)), ORDER_NS // MICROSECOND_NS) for _ in inputs]


def at_work(
    worker: Prolific, finished: list[int], runtime: object = None, inputs: bytes = b"", kind: str = "infer",
    **money: int,
) -> Execution:
    """An execution on this worker, asked for ``NUMBERS``."""
    body = builders.lease(requester=identity(2).key, provider=identity(1).key, kind=kind, prices=())
    lease: Signed[Lease] = sign(body, identity(2))

    async def post(event: Event) -> bool:
        if isinstance(event, RunsFinished):
            finished.extend(event.numbers)
        return True

    shop: Any = SimpleNamespace(
        clock=Clock(), terms=Terms(prices=((1, 0),)), bids=SimpleNamespace(pace=Pace()), runtime=runtime
    )
    issuer = ReceiptIssuer(Tab(replace(terms_of(lease), **money)))
    made = Execution(shop, lease, issuer, trio.Event, post, trio.lowlevel.checkpoint)
    made._seat = worker  # type: ignore[assignment]
    for number in NUMBERS:
        made.take([RunRequest(number=number, salt=bytes(16), inputs=inputs)])
    return made


class Sociable(Prolific):
    """A seat that executes whatever comes at once."""

    async def run_all(self, numbers: list[int], inputs: list[bytes]) -> list[RunReport]:
        await trio.lowlevel.checkpoint()
        return [RunReport(memoryview(b"y"), 1, len(inputs), place) for place in range(len(inputs))]


async def test_a_statement_says_in_whose_company_its_run_was() -> None:
    lease = at_work(Sociable(), finished := list[int]())
    await lease.run(NUMBERS)
    stated = [lease.recorded(number)[1] for number in finished]
    # The first is taken for a long one; each order is as long as the last ones promise.
    orders = [(joined, place) for joined in (1, 2, 5) for place in range(joined)]
    assert [(one.joined, one.place) for one in stated] == orders


async def test_texts_of_many_tokens_are_begun_as_far_as_they_may_be_unpaid(
    autojump_clock: trio.testing.MockClock
) -> None:
    text = encode_tensors({"input_ids": np.zeros((1, 100), "i8")})
    lease = at_work(
        Sociable(), finished := list[int](), inputs=text, kind="embed",
        price_nanoton=1_000, tranche_nanoton=250, ceiling_nanoton=10_000,
    )
    await lease.run(NUMBERS)
    assert finished == [1, 2], "a third one would pass the tranche"
    assert [lease.recorded(number)[1].units for number in finished] == [100, 100]


async def test_what_nobody_would_pay_for_is_refused_and_not_executed() -> None:
    worker, posted = Prolific(), list[Event]()
    lease = at_work(worker, list[int](), inputs=encode_tensors({"x": np.zeros((1, 100), "f4")}), kind="embed")

    async def post(event: Event) -> bool:
        posted.append(event)
        return True

    lease._post = post
    text = encode_tensors({"input_ids": np.zeros((1, 7), "i8")})
    lease.take([RunRequest(number=99, salt=bytes(16), inputs=text)])
    await lease.run([*NUMBERS, 99])
    refused = [(event.number, event.code, event.worker_lost) for event in posted if isinstance(event, RunBroke)]
    assert refused == [(number, "malformed", False) for number in NUMBERS]
    assert worker.runs == 1 and posted[-1] == RunsFinished((99,))


class Mortal(Prolific):
    """A seat whose worker dies with its second order."""

    alive = True

    async def run_all(self, numbers: list[int], inputs: list[bytes]) -> list[RunReport]:
        await trio.lowlevel.checkpoint()
        if self.runs:
            self.alive = False
            raise WorkerLost("killed")
        self.runs += len(inputs)
        return [RunReport(memoryview(b"y"), 1) for _ in inputs]


async def test_a_model_whose_worker_dies_in_company_is_kept_apart() -> None:
    kept: list[bytes] = []
    lease = at_work(Mortal(), list[int](), SimpleNamespace(keep_apart=kept.append))
    await lease.run(NUMBERS)
    assert kept == [lease._lease.message.model]


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
