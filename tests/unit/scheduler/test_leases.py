"""Both sides of a lease (LEA-1 to LEA-15)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.ids import TaskId
from cocoon.core.limits import BATCH_RUNS, FLIGHT_BYTES, LEASE_IDLE_NS, LEASE_REPLY_NS, MODEL_STALL_NS, RUNS_IN_FLIGHT
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.scheduler import purchase, sale

TASK = TaskId(bytes(16))


def ready_sale(highest: int = 0, max_runs: int = 1_000) -> sale.LeaseSale:
    machine = sale.LeaseSale(opened_ns=0, duration_s=600, max_runs=max_runs, highest=highest)
    assert machine.handle(0, sale.ModelNamed(held=True)) == [sale.LoadModel()]
    assert machine.handle(0, sale.ModelLoaded(5)) == [sale.SayReady(5)]
    return machine


def ready_purchase() -> purchase.LeasePurchase:
    machine = purchase.LeasePurchase(opened_ns=0, duration_s=600, max_runs=1_000, run_ms=1_000)
    assert machine.handle(0, purchase.LeaseAgreed()) == [purchase.OfferModel()]
    assert machine.handle(0, purchase.ModelReady(5)) == [purchase.LeaseIsReady(5)]
    return machine


def ordered(*runs: tuple[int, int]) -> purchase.RunsOrdered:
    """Units with the bytes of their inputs."""
    return purchase.RunsOrdered(tuple(purchase.Run(TASK, unit, input_bytes) for unit, input_bytes in runs))


def sent(first: int, *runs: tuple[int, int]) -> purchase.SendRuns:
    return purchase.SendRuns(first, ordered(*runs).runs)


def codes(effects: list[Effect]) -> list[str]:
    return [effect.code for effect in effects if isinstance(effect, (sale.FailRun, sale.EndSale))]


def test_a_model_that_is_not_held_is_fetched_then_loaded() -> None:
    machine = sale.LeaseSale(opened_ns=0, duration_s=600, max_runs=10)
    assert machine.handle(0, sale.ModelNamed(held=False)) == [sale.FetchModel()]
    early = machine.handle(0, sale.RunsRequested(((1, 1),)))
    assert early == [sale.FailRun(1, "out_of_order", "the model is not ready")]
    assert machine.handle(0, sale.ModelFetched()) == [sale.LoadModel()]


def test_a_run_begun_before_a_crash_is_lost_and_never_started_again() -> None:
    restarted = ready_sale(highest=4)
    for number in (1, 4):
        assert codes(restarted.handle(0, sale.RunsRequested(((number, 1),)))) == ["run_lost"]
    assert restarted.handle(0, sale.RunsRequested(((5, 1),))) == [sale.ReserveRuns(9), sale.StartRuns((5,))]


def test_a_run_asked_twice_while_under_way_changes_nothing() -> None:
    machine = ready_sale()
    machine.handle(0, sale.RunsRequested(((1, 1),)))
    machine.handle(0, sale.RunsRequested(((2, 1),)))
    assert machine.handle(0, sale.RunsRequested(((1, 1),))) == []
    assert machine.handle(0, sale.RunsRequested(((2, 1),))) == []
    assert machine.handle(0, sale.RunsFinished((1,)))[-2:] == [sale.StartRuns((2,)), sale.AnswerRuns((1,))]


def test_what_waits_while_a_batch_runs_is_the_next_batch() -> None:
    machine = ready_sale()
    assert machine.handle(0, sale.RunsRequested(((1, 1),))) == [sale.ReserveRuns(1), sale.StartRuns((1,))]
    assert [machine.handle(0, sale.RunsRequested(((number, 1),))) for number in (2, 3, 4)] == [[], [], []]
    assert machine.handle(0, sale.RunsFinished((1,)))[1:] == [sale.StartRuns((2, 3, 4)), sale.AnswerRuns((1,))]
    assert machine.handle(0, sale.RunBroke(3, "run_failed", "x", worker_lost=False)) == [
        sale.FailRun(3, "run_failed", "x")
    ]
    machine.handle(0, sale.RunsRequested(((5, 1),)))
    assert machine.handle(0, sale.RunsFinished((2, 4))) == [sale.StartRuns((5,)), sale.AnswerRuns((2, 4))]


def test_runs_beyond_the_lease_and_beyond_the_window_are_refused() -> None:
    assert codes(ready_sale(max_runs=2).handle(0, sale.RunsRequested(((3, 1),)))) == ["limit_exceeded"]
    machine = ready_sale()
    for number in range(1, RUNS_IN_FLIGHT + 2):
        machine.handle(0, sale.RunsRequested(((number, 1),)))
    assert codes(machine.handle(0, sale.RunsRequested(((RUNS_IN_FLIGHT + 2, 1),)))) == ["limit_exceeded"]


def test_large_inputs_wait_only_up_to_a_bound_or_alone() -> None:
    machine = ready_sale()
    half = FLIGHT_BYTES // 2
    assert machine.handle(0, sale.RunsRequested(((1, FLIGHT_BYTES),)))[1:] == [sale.StartRuns((1,))]
    assert [machine.handle(0, sale.RunsRequested(((number, half),))) for number in (2, 3)] == [[], []]
    assert codes(machine.handle(0, sale.RunsRequested(((4, 1),)))) == ["limit_exceeded"]
    machine.handle(0, sale.RunsFinished((1,)))
    assert machine.handle(0, sale.RunsRequested(((5, FLIGHT_BYTES + 1),))) == []


def test_a_dead_worker_ends_the_lease_and_a_refused_run_does_not() -> None:
    machine = ready_sale()
    machine.handle(0, sale.RunsRequested(((1, 1),)))
    assert codes(machine.handle(0, sale.RunBroke(1, "inputs_mismatch", "x", worker_lost=False))) == ["inputs_mismatch"]
    machine.handle(0, sale.RunsRequested(((2, 1),)))
    assert codes(machine.handle(0, sale.RunBroke(2, "run_timeout", "x", worker_lost=True))) == ["run_timeout"] * 2
    assert machine.handle(0, sale.RunsRequested(((3, 1),))) == []


def test_a_drain_finishes_what_is_under_way_and_then_ends() -> None:
    machine = ready_sale()
    machine.handle(0, sale.RunsRequested(((1, 1),)))
    machine.handle(0, sale.RunsRequested(((2, 1),)))
    assert machine.handle(0, sale.DrainAsked()) == []
    assert machine.handle(0, sale.RunsFinished((1,)))[-2:] == [sale.StartRuns((2,)), sale.AnswerRuns((1,))]
    answers, end = machine.handle(0, sale.RunsFinished((2,)))
    assert answers == sale.AnswerRuns((2,)) and codes([end]) == ["draining"], "the end comes behind the last answer"
    assert codes(ready_sale().handle(0, sale.DrainAsked())) == ["draining"]


def test_a_sale_waits_for_a_running_model_but_not_for_an_idle_or_stalled_requester() -> None:
    machine = ready_sale()
    machine.handle(0, sale.RunsRequested(((1, 1),)))
    assert machine.handle(LEASE_IDLE_NS, DeadlinePassed()) == []
    machine.handle(LEASE_IDLE_NS, sale.RunsFinished((1,)))
    assert codes(machine.handle(2 * LEASE_IDLE_NS, DeadlinePassed())) == ["idle"]
    stalled = sale.LeaseSale(opened_ns=0, duration_s=600, max_runs=10)
    stalled.handle(0, sale.ModelNamed(held=False))
    stalled.handle(1, sale.ModelProgressed())
    assert stalled.handle(MODEL_STALL_NS, DeadlinePassed()) == []
    assert codes(stalled.handle(MODEL_STALL_NS + 1, DeadlinePassed())) == ["deadline_exceeded"]


def test_a_provider_that_does_not_countersign_is_given_up() -> None:
    machine = purchase.LeasePurchase(opened_ns=0, duration_s=600, max_runs=10, run_ms=1_000)
    machine.handle(0, ordered((0, 1)))
    effects = machine.handle(LEASE_REPLY_NS, DeadlinePassed())
    assert [type(effect) for effect in effects] == [purchase.RunDenied, purchase.EndPurchase]


def test_a_provider_that_beats_but_does_not_answer_is_given_up() -> None:
    machine = ready_purchase()
    assert machine.handle(10, ordered((0, 1))) == [sent(1, (0, 1))]
    due_ns = machine.deadline_ns()
    assert due_ns == 10 + SECOND_NS + purchase.ANSWER_GRACE_NS
    effects = machine.handle(due_ns, DeadlinePassed())
    assert [getattr(effect, "code", None) for effect in effects] == ["provider_lost", "provider_lost"]


def test_large_inputs_are_sent_only_up_to_a_bound_or_alone() -> None:
    machine = ready_purchase()
    half = FLIGHT_BYTES // 2
    assert machine.handle(0, ordered((0, half))) == [sent(1, (0, half))]
    assert machine.handle(0, ordered((1, half), (2, half))) == [sent(2, (1, half))]
    assert machine.handle(0, ordered((3, FLIGHT_BYTES + 1))) == []
    assert sent(3, (2, half)) in machine.handle(0, purchase.ResultsVerified((1,)))
    assert machine.handle(0, purchase.ResultsVerified((2,)))[1:] == []
    assert sent(4, (3, FLIGHT_BYTES + 1)) in machine.handle(0, purchase.ResultsVerified((3,)))


def test_a_busy_lease_reserves_numbers_ahead_and_waits_for_the_disk_no_more() -> None:
    machine, waits, recorded = ready_sale(max_runs=500), 0, []
    for number in range(1, 501):
        effects = machine.handle(0, sale.RunsRequested(((number, 1),)))
        waits += isinstance(effects[0], sale.ReserveRuns)
        recorded += [effect.through for effect in effects if isinstance(effect, sale.ReserveRuns)]
        machine.handle(0, sale.RunsFinished((number,)))
    assert waits == 2 and len(recorded) < 20
    assert recorded == sorted({*recorded}) and recorded[-1] == 500
    restarted = ready_sale(max_runs=500, highest=recorded[-2])
    assert codes(restarted.handle(0, sale.RunsRequested(((recorded[-2], 1),)))) == ["run_lost"]


def test_what_is_ordered_together_is_sent_and_delivered_together() -> None:
    machine = ready_purchase()
    assert machine.handle(0, ordered((5, 1), (7, 2), (8, 3))) == [sent(1, (5, 1), (7, 2), (8, 3))]
    assert machine.handle(0, purchase.ResultsVerified((1, 3, 9))) == [
        purchase.RunsDelivered((1, 3), ordered((5, 1), (8, 3)).runs)
    ]


def test_a_lease_takes_as_many_of_a_batch_as_it_has_numbers_left() -> None:
    machine = purchase.LeasePurchase(opened_ns=0, duration_s=600, max_runs=2, run_ms=1_000)
    machine.handle(0, purchase.LeaseAgreed())
    machine.handle(0, purchase.ModelReady(5))
    denied, going = machine.handle(0, ordered((0, 1), (1, 1), (2, 1)))
    assert going == sent(1, (0, 1), (1, 1)) and machine.exhausted
    assert denied == purchase.RunDenied(TASK, 2, "released", "no run is left on this lease")


def test_an_idle_warm_lease_is_given_back() -> None:
    machine = ready_purchase()
    assert machine.handle(LEASE_IDLE_NS // 2, DeadlinePassed()) == [purchase.EndPurchase("released", "idle")]
    assert machine.handle(LEASE_IDLE_NS, ordered((0, 1))) == [
        purchase.RunDenied(TASK, 0, "released", "the lease has ended")
    ]


#: Inputs of a run.
SIZES = st.sampled_from([0, 1, FLIGHT_BYTES // 3, FLIGHT_BYTES])


class LeaseUnderAnyWeather(RuleBasedStateMachine):
    """A provider that restarts at any moment, and a requester that asks any number, twice, late."""

    @initialize()
    def open(self) -> None:
        self.now_ns = 0
        self.sale = ready_sale()
        self.durable_highest = 0
        self.started: list[int] = []
        self.answered: list[int] = []

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case sale.ReserveRuns(through):
                    assert through > self.durable_highest, "recorded twice"
                    self.durable_highest = through
                case sale.StartRuns(numbers):
                    assert list(numbers) == sorted(numbers) and len(numbers) <= BATCH_RUNS
                    assert numbers[-1] <= self.durable_highest, "a crash now would have it run again"
                    self.started += numbers
                case sale.AnswerRuns(numbers):
                    self.answered += numbers

    @rule(runs=st.lists(st.tuples(st.integers(1, 30), SIZES), max_size=4))
    def ask(self, runs: list[tuple[int, int]]) -> None:
        self.take(self.sale.handle(self.now_ns, sale.RunsRequested(tuple(runs))))

    @precondition(lambda self: self.sale.running)
    @rule(lost=st.booleans())
    def a_run_breaks(self, lost: bool) -> None:
        broke = sale.RunBroke(min(self.sale.running), "run_failed", "x", worker_lost=lost)
        self.take(self.sale.handle(self.now_ns, broke))

    @rule(count=st.integers(0, BATCH_RUNS), stray=st.integers(1, 30))
    def the_worker_answers(self, count: int, stray: int) -> None:
        numbers = sorted({*sorted(self.sale.running)[:count], *([stray] if stray not in self.sale.running else [])})
        self.take(self.sale.handle(self.now_ns, sale.RunsFinished(tuple(numbers))))

    @rule()
    def crash_and_resume(self) -> None:
        self.sale = ready_sale(highest=self.durable_highest)

    @rule(step_ns=st.integers(0, LEASE_IDLE_NS))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.take(self.sale.handle(self.now_ns, DeadlinePassed()))

    @invariant()
    def no_run_is_started_or_answered_twice(self) -> None:
        if hasattr(self, "started"):
            assert len(set(self.started)) == len(self.started)
            assert len(set(self.answered)) == len(self.answered)
            assert set(self.answered) <= set(self.started)

    @invariant()
    def the_queue_is_bounded(self) -> None:
        if hasattr(self, "sale"):
            waiting = self.sale.waiting
            assert list(waiting) == sorted(waiting) and len(waiting) <= RUNS_IN_FLIGHT
            assert sum(waiting.values()) == self.sale.waiting_bytes
            assert self.sale.waiting_bytes <= FLIGHT_BYTES


class PurchaseUnderAnyWeather(RuleBasedStateMachine):
    """Answers come in any order, twice, for runs never sent; the lease may be lost at any moment."""

    @initialize()
    def open(self) -> None:
        self.now_ns = 0
        self.machine = ready_purchase()
        self.ordered: set[int] = set()
        self.settled: list[int] = []
        self.numbers: list[int] = []

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case purchase.SendRuns(first, runs):
                    self.numbers += range(first, first + len(runs))
                case purchase.RunsDelivered(_, runs):
                    self.settled += [run.unit for run in runs]
                case purchase.RunDenied(_, unit, _, _):
                    self.settled.append(unit)

    @rule(sizes=st.lists(SIZES, max_size=4))
    def order(self, sizes: list[int]) -> None:
        runs = list(enumerate(sizes, len(self.ordered)))
        self.ordered.update(unit for unit, _ in runs)
        self.take(self.machine.handle(self.now_ns, ordered(*runs)))

    @rule(number=st.integers(1, 20), ok=st.booleans())
    def answer(self, number: int, ok: bool) -> None:
        event = purchase.ResultsVerified((number,)) if ok else purchase.FailureReceived(number, "run_failed", "x")
        self.take(self.machine.handle(self.now_ns, event))

    @rule(step_ns=st.integers(0, 10 * SECOND_NS))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.take(self.machine.handle(self.now_ns, DeadlinePassed()))

    @rule()
    def lose(self) -> None:
        self.take(self.machine.handle(self.now_ns, purchase.LeaseLost("provider_lost", "x")))

    @invariant()
    def each_unit_ends_once_and_numbers_rise_within_the_window(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert len(set(self.settled)) == len(self.settled)
        assert self.numbers == sorted(set(self.numbers))
        assert len(self.machine.sent) <= RUNS_IN_FLIGHT
        open_units = {one.unit for one in (*self.machine.sent.values(), *self.machine.queued)}
        sent_bytes = [one.input_bytes for one in self.machine.sent.values()]
        assert sum(sent_bytes) == self.machine.flight_bytes
        assert len(sent_bytes) == 1 or sum(sent_bytes) <= FLIGHT_BYTES
        assert open_units | set(self.settled) == self.ordered
        assert not open_units & set(self.settled)


TestLeaseUnderAnyWeather = LeaseUnderAnyWeather.TestCase
TestLeaseUnderAnyWeather.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPurchaseUnderAnyWeather = PurchaseUnderAnyWeather.TestCase
TestPurchaseUnderAnyWeather.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
