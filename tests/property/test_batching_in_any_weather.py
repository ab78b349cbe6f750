"""Laws of the batcher: any runs in any order, workers that fail and die; each run ends once and none waits in vain."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cocoon.core.limits import BATCH_LEASE_RUNS, BATCH_RUN_BYTES, BATCH_WAITING_BYTES
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import MILLISECOND_NS
from cocoon.runtime.batching import (
    AnswerRun,
    BatchAnswered,
    Batcher,
    BatchFailed,
    ExecuteBatch,
    FailRun,
    LeaseEnded,
    RefuseRun,
    RunsQueued,
    RunWithdrawn,
    WorkerDied,
    WorkerReady,
)
from cocoon.runtime.company import Joining, QueuedRun, RunId
from tests.unit.runtime.batch_world import FLAT, GAINS, queued

MS = MILLISECOND_NS
LEASES = 6
FAULTS = ["run_failed", "memory_exceeded"]
#: Leases 0 to 3 are of one requester.
REQUESTER_OF = {lease: 100 + max(0, lease - 3) for lease in range(LEASES)}


class Weather(RuleBasedStateMachine):
    """Six leases of three requesters, and a worker that does what it likes."""

    joining = Joining.LEASES

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.machine, self.twin = Batcher(self.joining, GAINS), Batcher(self.joining, GAINS)
        self.alive = False
        self.executing: ExecuteBatch | None = None
        self.open: dict[RunId, QueuedRun] = {}
        self.begun: Counter[RunId] = Counter()
        self.failed_together: set[RunId] = set()
        self.ended: set[RunId] = set()
        self.number = 0
        self.alone = False

    def tell(self, event: Event) -> None:
        effects = self.machine.handle(self.now_ns, event)
        assert effects == self.twin.handle(self.now_ns, event), "two machines that were told the same differ"
        for effect in effects:
            self.act(effect)

    def act(self, effect: Effect) -> None:
        match effect:
            case ExecuteBatch(runs=runs):
                assert self.alive and self.executing is None, "two batches in one worker, or none to take it"
                self.executing = effect
                self.check(runs)
            case FailRun(run, code):
                assert code not in FAULTS or self.alone, "blamed for what a batch of several did"
                self.ends(run)
            case AnswerRun(run):
                self.ends(run)
            case RefuseRun(run):
                assert not self.begun[run], "a run that was begun was refused"
                self.ends(run)

    def ends(self, run: RunId) -> None:
        assert run not in self.ended, "a run ended twice"
        del self.open[run]
        self.ended.add(run)

    def check(self, runs: tuple[QueuedRun, ...]) -> None:
        """The batch is lawful."""
        ends_ns = self.now_ns + self.machine.curve.predict_ns(sum(run.rows or 1 for run in runs))
        for run in runs:
            self.begun[run.id] += 1
            assert self.begun[run.id] == 1 or run.id in self.failed_together and len(runs) == 1
            assert run.id in self.open, "executed though withdrawn"
            assert ends_ns <= run.deadline_ns
        if len(runs) > 1:
            assert all(run.form == runs[0].form and run.rows for run in runs)
            assert sum(run.rows or 1 for run in runs) <= self.machine.curve.best_rows()
            assert self.joining is Joining.LEASES or len({run.lease for run in runs}) == 1

    @rule(runs=st.lists(
        st.tuples(
            st.integers(0, LEASES - 1), st.sampled_from([None, 1, 1, 1, 2, 3, 9]), st.integers(0, 200),
            st.integers(4, 5), st.sampled_from([0, BATCH_RUN_BYTES, BATCH_WAITING_BYTES // 5]),
        ), min_size=1, max_size=8,
    ))
    def arrive(self, runs: list[tuple[int, int | None, int, int, int]]) -> None:
        frame = []
        for lease, rows, patience_ms, length, size_bytes in runs:
            self.number += 1
            deadline_ns = self.now_ns + patience_ms * MS
            run = queued(self.number, lease, REQUESTER_OF[lease], rows, deadline_ns, length, size_bytes)
            self.open[run.id] = run
            frame.append(run)
        self.tell(RunsQueued(tuple(frame)))

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def asked_again(self, data: st.DataObject) -> None:
        run = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.tell(RunsQueued((run, run)))

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def withdrawn(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.open)))
        self.ends(run)
        self.tell(RunWithdrawn(run))

    @rule(lease=st.integers(0, LEASES - 1))
    def lease_ends(self, lease: int) -> None:
        name = queued(0, lease).lease
        for run in [run for run in self.open if run[0] == name]:
            self.ends(run)
        self.tell(LeaseEnded(name))

    @rule(data=st.data(), ran_ns=st.sampled_from([0, 1, MS, 12 * MS, 90 * MS]), repeat=st.booleans())
    @precondition(lambda self: self.executing)
    def answers(self, data: st.DataObject, ran_ns: int, repeat: bool) -> None:
        done, self.executing = self.executing, None
        assert done is not None
        faults = st.lists(st.sampled_from([None, None, ("limit_exceeded", "")]), min_size=len(done.runs))
        event = BatchAnswered(done.batch, tuple(data.draw(faults)[: len(done.runs)]), ran_ns)
        self.tell(event)
        if repeat and (self.executing is None or self.executing.batch != done.batch):
            self.tell(event)

    @rule(code=st.sampled_from(FAULTS))
    @precondition(lambda self: self.executing)
    def fails(self, code: str) -> None:
        done, self.executing = self.executing, None
        assert done is not None
        self.alone = len(done.runs) == 1
        if not self.alone:
            self.failed_together |= {run.id for run in done.runs}
        self.tell(BatchFailed(done.batch, code, ""))

    @rule(begun=st.booleans())
    def dies(self, begun: bool) -> None:
        lost, self.executing, self.alive = self.executing, None, False
        if lost is not None and not begun:
            self.begun.subtract(run.id for run in lost.runs)
        self.tell(WorkerDied("worker_lost", "", begun))

    @rule()
    def comes(self) -> None:
        self.alive = True
        self.tell(WorkerReady())

    @rule(step_ms=st.integers(0, 40))
    def time_passes(self, step_ms: int) -> None:
        self.now_ns += step_ms * MS
        due_ns = self.machine.deadline_ns()
        if due_ns is not None and due_ns <= self.now_ns:
            self.tell(DeadlinePassed())

    @invariant()
    def nothing_waits_while_the_worker_idles(self) -> None:
        in_worker = {run.id for run in self.executing.runs} if self.executing else set()
        waiting = self.open.keys() - in_worker
        assert not (waiting and self.alive and self.executing is None)
        assert (self.machine.deadline_ns() is None) == (not waiting)

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        assert sum(max(run.size_bytes, BATCH_RUN_BYTES) for run in self.open.values()) <= BATCH_WAITING_BYTES
        assert max(Counter(lease for lease, _ in self.open).values(), default=0) <= BATCH_LEASE_RUNS
        assert self.machine._held.keys() == self.open.keys(), "forgotten, or remembered for ever"
        assert len(self.machine._rows_left) <= len(set(REQUESTER_OF.values()))


class WeatherOfOneLease(Weather):
    """The model may be joined within a lease only."""

    joining = Joining.LEASE


TestWeather = Weather.TestCase
TestWeatherOfOneLease = WeatherOfOneLease.TestCase
TestWeather.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWeatherOfOneLease.settings = TestWeather.settings


@given(st.sampled_from([GAINS, FLAT]), st.sampled_from(list(Joining)), st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(3_600_000, 7_200_000)), min_size=2, max_size=4,
))
def test_no_requester_that_always_waits_has_less_than_its_share(curve, joining, wants):
    """(leases, rows of a run, deadline in ms) of each; all of them always have runs in the line."""
    machine = Batcher(joining, curve)
    machine.handle(0, WorkerReady())
    got, number, ordered = Counter(), 0, None

    def run_of(requester, lease):
        nonlocal number
        number += 1
        _, rows, deadline_ms = wants[requester]
        return queued(number, lease, requester, rows, deadline_ms * MS)

    frame = [
        run_of(requester, 20 * requester + lease)
        for requester, (leases, rows, _) in enumerate(wants)
        for lease in range(leases)
        for _ in range(16 // leases + 1)
    ]
    effects = machine.handle(0, RunsQueued(tuple(frame)))
    for _ in range(60):
        (ordered,) = (effect for effect in effects if isinstance(effect, ExecuteBatch))
        got.update({run.requester[0]: 0 for run in ordered.runs})
        for run in ordered.runs:
            got[run.requester[0]] += run.rows
        again = tuple(run_of(run.requester[0], run.lease[0]) for run in ordered.runs)
        assert machine.handle(0, RunsQueued(again)) == []
        effects = machine.handle(0, BatchAnswered(ordered.batch, (None,) * len(ordered.runs)))
    least = min(got[requester] for requester in range(len(wants)))
    assert max(got.values()) <= 2 * least + 3 * curve.best_rows()
