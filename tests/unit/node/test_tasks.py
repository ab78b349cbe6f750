"""What a task asks for before its machine runs (SCH-19)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cocoon.core.errors import CocoonError, NoProvider
from cocoon.core.ids import ModelId
from cocoon.core.limits import USUAL_CEILING_NANOTON
from cocoon.node.means import Order
from cocoon.node.models import HeldModel
from cocoon.node.tasks import Submission, TaskRun
from cocoon.scheduler.selection import Quote
from cocoon.scheduler.task import LeaseFailed
from cocoon.wire.manifest import implicit
from tests.unit.node.scripted import Heard
from tests.unit.node.test_counter import Clock
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


async def _say(message: dict[str, object]) -> None:
    raise AssertionError("nothing has happened yet")


@pytest.mark.parametrize(("named", "bound"), [(None, USUAL_CEILING_NANOTON), (0, 0), (5, 5), (1 << 63, 1 << 63)])
async def test_a_warm_lease_is_no_way_around_what_a_task_may_cost(named: int | None, bound: int) -> None:
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    buyer = Buyer()
    submission = Submission(Order(model, True, "infer", 7, named), 7, 1_000)
    with pytest.raises(CocoonError, match="far enough"):
        await TaskRun(cast(Any, Means()), cast(Any, buyer), submission, _say).run()
    assert buyer.asked is not None and buyer.asked.ceiling_nanoton == bound


@pytest.mark.parametrize(("left", "asked"), [(107, True), (106, False)])
async def test_a_runner_up_is_asked_only_if_it_fits_into_what_is_left_of_the_ceiling(left: int, asked: bool) -> None:
    """It was ranked by what the whole task costs there; since then something was paid to another."""
    model = HeldModel(ModelId(bytes(32)), implicit(1, [bytes(32)]), (), ())
    buyer, told = Buyer(), []
    run = TaskRun(
        cast(Any, Means()), cast(Any, buyer), Submission(Order(model, True, "infer", 100, 1_000), 100, 1_000), _say
    )
    run._outcome.price_nanoton = 1_000 - left

    async def post(event: object) -> None:
        told.append(event)

    run.post = post  # type: ignore[method-assign]
    await run._open(2, tender(setup_nanoton=7, run_nanoton=1_000))
    (failed,) = told
    assert isinstance(failed, LeaseFailed) and failed.attempt == 2
    assert (failed.code, buyer.asked is not None) == (("no_provider", True) if asked else ("ceiling_exceeded", False))
    if buyer.asked is not None:
        assert (buyer.asked.units, buyer.asked.ceiling_nanoton) == (100, left)
