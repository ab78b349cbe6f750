"""The shell of a task: what it asks for before its machine runs (SCH-19), and what it tells."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing

from cocoon.core.errors import CocoonError, NoProvider
from cocoon.core.groups import single_error
from cocoon.core.ids import LeaseId, ModelId, PeerKey, TaskId, peer_id
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.node.handover import Handover
from cocoon.node.means import Order
from cocoon.node.models import HeldModel
from cocoon.node.tasks import Submission, TaskRun, _Share
from cocoon.scheduler.purchase import EndPurchase
from cocoon.scheduler.selection import RUNS, Measure, Quote, Ranked
from cocoon.scheduler.spending import LeasePrice
from cocoon.scheduler.task import LeaseOpened, Phase, ReceiptsSettled, SellersRanked, TaskSubmitted
from cocoon.wire.manifest import implicit
from tests.unit.node.scripted import Heard
from tests.unit.node.test_counter import Clock
from tests.unit.node.test_tokens import bought
from tests.unit.scheduler.builders import tender


class Means:
    """What a task needs of a purse to be made."""

    clock = Clock()
    journal = None
    log = Heard()


class Buyer:
    """Holds a warm lease; keeps the order that it was asked with."""

    asked: Order | None = None

    def warm(self, order: Order) -> None:
        self.asked = order
        raise NoProvider("far enough")

    async def open(self, quote: Quote, order: Order, say: object) -> None:
        self.warm(order)


class Client:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []

    def post(self, event: dict[str, object]) -> None:
        self.told.append(event)

    async def flush(self) -> None:
        """Nothing is kept back."""

    async def say(self, event: dict[str, object]) -> None:
        self.told.append(event)


@pytest.mark.parametrize(("named", "bound"), [(None, USUAL_CEILING_NANOTON), (0, 0), (5, 5), (1 << 63, 1 << 63)])
async def test_a_warm_lease_is_no_way_around_what_a_task_may_cost(named: int | None, bound: int) -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    buyer = Buyer()
    submission = Submission(Order(model, True, "infer", RUNS, 7, named), 7, 1_000)
    with pytest.raises(CocoonError, match="far enough"):
        await TaskRun(cast(Any, Means()), cast(Any, buyer), submission, Client(), Handover()).run()
    assert buyer.asked is not None and buyer.asked.ceiling_nanoton == bound


class Granted:
    """A lease as a task sees it."""

    id = LeaseId(bytes(32))
    provider = PeerKey(bytes([1]) * 32)

    def price(self, measure: Measure) -> LeasePrice:
        return LeasePrice(0, 1_000, 3, shared=True)


async def test_a_lease_is_asked_for_what_is_left_of_the_units_and_of_the_ceiling() -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    order = Order(model, True, "infer", RUNS, 100, 1_000)

    class Opening(Buyer):
        """Opens what it is asked for."""

        async def open(self, quote: Quote, order: Order, say: object) -> Granted:
            self.asked = order
            return Granted()

    buyer, client, told = Opening(), Client(), []
    run = TaskRun(cast(Any, Means()), cast(Any, buyer), Submission(order, 100, 1_000, 3), client, Handover())
    run._machine.attempts.spent_nanoton, run._machine.accepted = 893, 60

    async def post(event: object) -> None:
        told.append(event)

    run.post = post  # type: ignore[method-assign]
    await run._open(2, tender())
    assert buyer.asked is not None and (buyer.asked.units, buyer.asked.ceiling_nanoton) == (40, 107)
    assert told == [LeaseOpened(2, Granted().price(RUNS))], "the machine hears who else is on the lease"
    assert [message["event"] for message in client.told] == ["lease"]


async def test_the_usual_ceiling_that_a_search_told_reaches_the_machine_with_its_verdict() -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    run = TaskRun(
        cast(Any, Means()), cast(Any, Buyer()), Submission(Order(model, True, "infer", RUNS, 7, None), 7, 1_000),
        Client(), Handover(),
    )
    run._machine.handle(0, TaskSubmitted())
    run._ceiling_nanoton = 70
    await run.post(SellersRanked(Ranked((tender(),))))
    event = run._driver._inbox.popleft()
    assert event == SellersRanked(Ranked((tender(),)), 70)


def test_the_summary_names_every_provider_and_first_who_ran_most() -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    run = TaskRun(
        cast(Any, Means()), cast(Any, Buyer()), Submission(Order(model, True, "infer", RUNS, 7, None), 7, 1_000),
        Client(), Handover(),
    )
    assert run._summary()["provider"] == "" and run._summary()["providers"] == []
    names = [PeerKey(bytes([number]) * 32) for number in (1, 2, 3)]
    run._shares = {names[0]: _Share(2, 20), names[1]: _Share(5, 55), names[2]: _Share()}
    assert run._summary()["provider"] == peer_id(names[1])
    assert run._summary()["providers"] == [
        {"provider": peer_id(names[1]), "units": 5, "price_nanoton": 55},
        {"provider": peer_id(names[0]), "units": 2, "price_nanoton": 20},
        {"provider": peer_id(names[2]), "units": 0, "price_nanoton": 0},
    ]


async def test_a_unit_that_is_accepted_and_still_being_recorded_has_no_receipt_yet() -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    order = Order(model, True, "infer", RUNS, 2, None)
    run = TaskRun(cast(Any, Means()), cast(Any, Buyer()), Submission(order, 2, 1_000), Client(), Handover())
    run._machine.phase, run._machine.accepted = Phase.SETTLING, 2
    run._delivered, run._uncovered, run._covered = 1, {(bytes(32), 1)}, {(bytes(32), 1)}
    await run.check_settled()
    assert not run._driver._inbox
    run._delivered = 2
    await run.check_settled()
    assert run._driver._inbox.popleft() == ReceiptsSettled()


async def test_a_lease_tells_a_task_nothing_once_its_nursery_is_closed() -> None:
    forgotten: list[TaskId] = []
    too_late: list[str] = []

    class Leaving(Granted):
        """Ends at the last moment at which it may say so."""

        def forget(self, task: TaskId) -> None:
            try:
                run.over(cast(Any, self), "worker_lost")
            except RuntimeError as late:                # the nursery is closed
                too_late.append(str(late))
            forgotten.append(task)

    class Warm(Buyer):
        """Has one open."""

        def warm(self, order: Order) -> Any:
            return [Leaving()]

    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    order = Order(model, True, "infer", RUNS, 2, None)
    run = TaskRun(cast(Any, Means()), cast(Any, Warm()), Submission(order, 2, 1_000), Client(), Handover())
    with pytest.raises(CocoonError, match="enough"), single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            await trio.testing.wait_all_tasks_blocked()
            await run.fault("cancelled", "enough")
    assert forgotten == [run.id] and not too_late


async def test_a_task_that_ends_while_another_is_told_of_the_end_of_their_lease_is_not_told() -> None:
    lease, told = bought(), list[int]()
    lease._purse.log = Heard()  # type: ignore[assignment]

    class Customer:
        """Takes the other one along."""

        def __init__(self, name: int) -> None:
            self.name = name

        async def ended(self, code: str, text: str) -> None:
            told.append(self.name)
            for name in (1, 2):
                lease.forget(TaskId(bytes([name]) * 16))

    async def flush() -> None:
        """Nothing waits."""

    lease._link.flush = flush  # type: ignore[method-assign]
    for name in (1, 2):
        lease._customers[TaskId(bytes([name]) * 16)] = cast(Any, Customer(name))
    await lease._perform(EndPurchase("worker_lost", "gone"))
    assert told == [1]


async def test_a_lease_that_a_defect_of_ours_ends_keeps_no_task_waiting() -> None:
    lease, told = bought(), list[str]()

    class Customer:
        """Hears of the end."""

        async def ended(self, code: str, text: str) -> None:
            told.append(code)

    class Broken:
        """A link whose reader meets a defect."""

        async def receive_all(self, *expected: type) -> None:
            raise RuntimeError("a defect")

        async def keep_sending(self) -> None:
            await trio.sleep_forever()

        async def close(self) -> None:
            """Nothing is held."""

    lease._link = cast(Any, Broken())
    lease._customers[TaskId(bytes(16))] = cast(Any, Customer())
    with pytest.raises(RuntimeError, match="a defect"), single_error():
        await lease.run()
    assert told == ["provider_lost"] and lease.over
