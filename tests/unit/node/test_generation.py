"""TOK-24 and TOK-26: a lease on a decoder begins, tells, cancels and answers in order, whatever its worker does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from cocoon.core.errors import RunFailed, WorkerLost
from cocoon.core.limits import RUNS_UNSETTLED
from cocoon.core.machine import Event
from cocoon.core.values import replace
from cocoon.ledger.events import StatementMade
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Tab
from cocoon.ledger.terms import terms_of
from cocoon.node.generation import Generation
from cocoon.node.stock import Terms
from cocoon.runtime.process import Answer, TurnReport
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.sale import LeaseBroke, RunBroke, RunsFinished
from cocoon.wire.generation import Ask, ask_tensors, said_tensors
from cocoon.wire.messages import Lease, RunRequest
from cocoon.wire.signing import Signed, sign
from cocoon.wire.tensors import encode_tensors
from tests.unit.node.scripted import Clock, identity
from tests.unit.scheduler import builders

HEAD = bytes(32)
#: A prompt that is billed as two tokens, and an answer of at most three.
ASKED = Ask(tuple(range(5)), 3)
#: The agreed limit of a run.
RUN_S = builders.lease().run_ms / 1_000


class Scripted:
    """A worker whose turns wait for a test: it sees what was ordered, and says what is answered."""

    alive = True

    def __init__(self) -> None:
        self.orders: list[tuple[list[int], list[int]]] = []
        self._answers, self._script = trio.open_memory_channel[TurnReport | WorkerLost](100)

    async def turn(self, asked: list[tuple[int, bytes]], cancelled: list[int]) -> TurnReport:
        self.orders.append(([number for number, _ in asked], list(cancelled)))
        report = await self._script.receive()
        if isinstance(report, WorkerLost):
            self.alive = False
            raise report
        return report

    async def say(self, *tokens: int, **ends: Any) -> None:
        """Answer one turn: a token of each of these runs, and the ends of ``n1``, ``n2``."""
        told = tuple((number, 1, 5, HEAD) for number in tokens)
        ended = tuple((int(name[1:]), end) for name, end in ends.items())
        await self._answers.send(TurnReport(told, ended))
        await trio.testing.wait_all_tasks_blocked()

    async def die(self) -> None:
        await self._answers.send(WorkerLost("it is gone"))
        await trio.testing.wait_all_tasks_blocked()


class Stage:
    """A lease on such a worker, with everything that it tells."""

    def __init__(self, nursery: trio.Nursery, runs: int, asked: Ask = ASKED, **terms: int) -> None:
        """``terms`` are those of the lease in which it differs from one that costs nothing."""
        self.worker, self.told, self.posted = Scripted(), list[int](), list[Event]()
        lease: Signed[Lease] = sign(
            builders.lease(requester=identity(2).key, provider=identity(1).key, kind="generate", prices=((5, 0),)),
            identity(2),
        )
        shop: Any = SimpleNamespace(clock=Clock(), terms=Terms(), bids=SimpleNamespace(pace=Pace()))
        self.tab = Tab(replace(terms_of(lease), **terms))
        self.issuer, self.closed, self.news = ReceiptIssuer(self.tab), 0, trio.Event()
        self.lease = Generation(
            shop, lease, self.issuer, lambda: self.news, self._post, self._close,
            lambda token: self.told.append(token.number),
        )
        self.lease._seat = self.worker  # type: ignore[assignment]
        for number in range(1, runs + 1):
            self.lease.take([RunRequest(number=number, salt=bytes(16), inputs=encode_tensors(ask_tensors(asked)))])
        nursery.start_soon(self.lease.speak)
        self._nursery = nursery

    async def begin(self, *numbers: int) -> None:
        self.lease.begin(self._nursery, numbers)
        await trio.testing.wait_all_tasks_blocked()

    @property
    def finished(self) -> list[int]:
        return [number for event in self.posted if isinstance(event, RunsFinished) for number in event.numbers]

    def state(self, number: int) -> None:
        """Put the statement of a run that is over on the tab, and say so."""
        self.issuer.handle(0, StatementMade(self.lease.recorded(number)[1]))
        news, self.news = self.news, trio.Event()
        news.set()

    async def _close(self) -> None:
        self.closed += 1

    async def _post(self, event: Event) -> bool:
        self.posted.append(event)
        return True


def answer(tokens: int = 1, ran_us: int = 1) -> Answer:
    return Answer(encode_tensors(said_tensors([5] * tokens, HEAD, "length", 0)), ran_us)


async def test_results_leave_in_the_order_of_their_numbers_and_tokens_at_once() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 3)
        await stage.begin(1, 2)
        await stage.begin(3)
        await stage.worker.say(1, 2)
        assert stage.worker.orders == [([1, 2], []), ([3], [])] and stage.told == [1, 2]
        await stage.worker.say(3, n3=answer())
        await stage.worker.say(n2=answer())
        assert stage.told == [1, 2, 3] and stage.finished == [], "the first is not over"
        await stage.worker.say(n1=answer())
        assert stage.finished == [1, 2, 3]
        assert len(stage.worker.orders) == 4, "nothing is ordered while nothing is asked"
        nursery.cancel_scope.cancel()


async def test_a_failure_does_not_wait_for_others() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2)
        await stage.begin(1, 2)
        await stage.worker.say(n2=RunFailed("no numbers"))
        assert stage.posted == [RunBroke(2, "run_failed", "no numbers", worker_lost=False)]
        await stage.worker.say(n1=answer())
        assert stage.finished == [1]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_run_is_named_in_the_next_order_once() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2)
        await stage.begin(1, 2)
        for number in (2, 2, 9):
            stage.lease.cancel(number)
        await stage.worker.say(1, 2)
        await stage.worker.say(1, n2=answer())
        assert stage.worker.orders == [([1, 2], []), ([], [2]), ([], [])], "at most the token that was under way"
        nursery.cancel_scope.cancel()


async def test_a_sequence_that_speaks_for_longer_than_a_run_may_take_is_cancelled(
    autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2)
        await stage.begin(1, 2)
        await trio.sleep(RUN_S)                         # who waits for a row is not late
        await stage.worker.say(1)
        await trio.sleep(RUN_S / 2)
        await stage.worker.say(1, 2)
        await trio.sleep(RUN_S / 2)
        await stage.worker.say(1, 2)
        await stage.worker.say(2, n1=answer())
        await trio.sleep(RUN_S / 2)
        await stage.worker.say(2)
        assert [late for _, late in stage.worker.orders] == [[], [], [], [1], [], [2]]
        nursery.cancel_scope.cancel()


async def test_a_lost_worker_breaks_all_that_was_begun() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2)
        await stage.begin(1, 2)
        await stage.worker.die()
        assert stage.posted == [RunBroke(number, "worker_lost", "it is gone", worker_lost=True) for number in (1, 2)]


async def test_what_a_worker_says_of_runs_that_it_does_not_have_is_not_passed_on() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2)
        await stage.begin(1)
        await stage.worker.say(2, 7, n2=answer(), n7=RunFailed("x"))
        assert not stage.told and not stage.posted
        nursery.cancel_scope.cancel()


async def test_a_worker_ran_no_longer_than_it_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 1)
        await stage.begin(1)
        await trio.sleep(1)
        await stage.worker.say(1, n1=answer(ran_us=(1 << 63) - 1))
        job, statement = stage.lease.recorded(1)
        assert stage.finished == [1] and job.result is not None and statement.ran_us == 1_000_000
        nursery.cancel_scope.cancel()


async def test_runs_that_are_begun_count_as_unpaid(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, RUNS_UNSETTLED + 1)
        await stage.begin(*range(1, RUNS_UNSETTLED + 2))
        await stage.worker.say(1)
        assert [asked for asked, _ in stage.worker.orders] == [list(range(1, RUNS_UNSETTLED + 1)), []]
        nursery.cancel_scope.cancel()


PAID = {"lane": 1, "tranche_nanoton": 1_000, "price_nanoton": 100_000, "ceiling_nanoton": 1_000_000}


async def test_a_run_costs_the_tokens_of_its_answer_and_a_quarter_of_its_prompt() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2, **PAID)
        await stage.begin(1, 2)
        await stage.worker.say(n1=answer(3), n2=answer(1))
        statements = [stage.lease.recorded(number)[1] for number in (1, 2)]
        assert [(made.units, made.price_nanoton) for made in statements] == [(2 + 3, 500), (2 + 1, 300)]
        nursery.cancel_scope.cancel()


async def test_what_a_worker_says_beyond_what_was_asked_is_not_sold() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 2, replace(ASKED, stop_tokens=(5,)), **PAID)
        await stage.begin(1, 2)
        await stage.worker.say(n1=answer(4), n2=answer(2))
        assert [(event.number, event.code) for event in stage.posted if isinstance(event, RunBroke)] == [
            (1, "wrong_output"), (2, "wrong_output")
        ]
        nursery.cancel_scope.cancel()


async def test_no_run_begins_that_could_leave_more_than_a_tranche_unpaid() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 3, **PAID)
        await stage.begin(1, 2, 3)
        await stage.worker.say(1)
        assert [asked for asked, _ in stage.worker.orders] == [[1, 2], []], "two may come to ten tokens, a tranche"
        nursery.cancel_scope.cancel()


async def test_a_run_that_may_pass_the_ceiling_is_not_begun() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 1, **{**PAID, "ceiling_nanoton": 499})
        await stage.begin(1)
        (broke,) = stage.posted
        assert isinstance(broke, LeaseBroke) and broke.code == "limit_exceeded" and not stage.worker.orders
        nursery.cancel_scope.cancel()


async def test_what_is_open_is_closed_if_the_next_run_may_cost_too_much_beside_it() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery, 1, **PAID)
        dear = ask_tensors(replace(ASKED, most_tokens=6))   # eight tokens with its prompt
        stage.lease.take([RunRequest(number=2, salt=bytes(16), inputs=encode_tensors(dear))])
        await stage.begin(1, 2)
        await stage.worker.say(n1=answer(1))
        assert stage.lease.waits and stage.closed == 0, "what was made is on its way to the tab"
        stage.state(1)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.tab.open_nanoton == 300 and stage.closed == 1, "no receipt is due for three tokens"
        assert [asked for asked, _ in stage.worker.orders] == [[1]]
        nursery.cancel_scope.cancel()
