"""JOI-13 to JOI-15: batches that fail, workers that die, and who is not blamed for it."""

from __future__ import annotations

from cocoon.core.limits import BATCH_APART
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import MILLISECOND_NS
from cocoon.runtime.batching import (
    AnswerRun,
    BatchFailed,
    ExecuteBatch,
    FailRun,
    LeaseEnded,
    RunWithdrawn,
    WorkerDied,
    WorkerReady,
)
from cocoon.runtime.company import Joining
from tests.unit.runtime.batch_world import answer, batch, batcher, numbers, queue, queued

MS = MILLISECOND_NS


def fail(machine, ordered, code="run_failed"):
    """The model gave no outputs for the batch."""
    return machine.handle(0, BatchFailed(ordered.batch, code, "index out of bounds"))


def leases(ordered: ExecuteBatch) -> list[int]:
    """Of its runs, in order."""
    return [run.lease[0] for run in ordered.runs]


def test_a_joined_batch_that_failed_blames_nobody_and_is_tried_one_by_one():
    machine = batcher()
    together = batch(queue(machine, *(queued(0, lease) for lease in (1, 2, 3))))
    alone = batch(fail(machine, together))
    assert leases(alone) == [1]
    answered, following = answer(machine, alone)
    assert answered == AnswerRun(queued(0, 1).id) and len(alone.runs) == 1
    failed, following = fail(machine, batch([following]))
    assert failed == FailRun(queued(0, 2).id, "run_failed", "index out of bounds")
    assert answer(machine, batch([following])) == [AnswerRun(queued(0, 3).id)]


def test_who_spoiled_a_batch_is_joined_with_no_other_lease_and_the_rest_are():
    machine = batcher()
    ordered = batch(fail(machine, batch(queue(machine, *(queued(0, lease) for lease in (1, 2, 3))))))
    ordered = batch(answer(machine, ordered))
    ordered = batch(fail(machine, ordered))                     # it was lease 2
    queue(machine, *(queued(number, lease) for number in (1, 2) for lease in (1, 2, 3)))
    ordered = batch(answer(machine, ordered))
    assert leases(ordered) == [1, 3, 1, 3]
    assert leases(batch(answer(machine, ordered))) == [2, 2]


def test_a_run_that_failed_alone_from_the_start_is_its_own_affair():
    machine = batcher()
    ordered = batch(queue(machine, queued(1)))
    assert fail(machine, ordered) == [FailRun(queued(1).id, "run_failed", "index out of bounds")]
    assert leases(batch(queue(machine, queued(2, 1), queued(2, 2)))) == [1, 2]


def test_a_batch_without_memory_is_halved_and_none_is_larger_again():
    machine = batcher()
    ordered = batch(queue(machine, *(queued(number) for number in range(8))))
    queue(machine, *(queued(number) for number in range(8, 24)))
    ordered = batch(fail(machine, ordered, "memory_exceeded"))
    for _ in range(8):
        assert len(ordered.runs) == 1
        ordered = batch(answer(machine, ordered))
    assert numbers(ordered) == [8, 9, 10, 11]
    for _ in range(2):                                          # whatever time they are measured to take
        ordered = batch(answer(machine, ordered, ran_ns=MS))
        assert len(ordered.runs) <= 4


def test_a_run_that_was_withdrawn_is_not_tried_alone():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2)))
    machine.handle(0, RunWithdrawn(queued(1).id))
    assert numbers(batch(fail(machine, ordered))) == [2]


def test_a_run_that_was_begun_and_is_late_afterwards_has_failed_and_was_not_refused():
    machine = batcher()
    ordered = batch(queue(machine, queued(1, deadline_ns=30 * MS), queued(2, deadline_ns=31 * MS)))
    alone = batch(fail(machine, ordered))
    (late,) = machine.handle(25 * MS, DeadlinePassed())
    assert isinstance(late, FailRun) and late.code == "deadline_exceeded" and late.run == queued(2).id
    assert answer(machine, alone) == [AnswerRun(queued(1).id)]


# --- workers that die --------------------------------------------------------


def test_a_run_that_was_alone_in_a_worker_that_died_is_told_the_cause():
    machine = batcher()
    queue(machine, queued(1))
    (failed,) = machine.handle(0, WorkerDied("run_timeout", "30 s are over"))
    assert failed == FailRun(queued(1).id, "run_timeout", "30 s are over")


def test_runs_of_a_batch_whose_worker_died_are_lost_and_never_executed_again():
    machine = batcher()
    queue(machine, queued(1, 1), queued(1, 2))
    lost = machine.handle(0, WorkerDied("worker_lost", "SIGSEGV"))
    assert [(one.run, one.code) for one in lost if isinstance(one, FailRun)] == [
        (queued(1, 1).id, "worker_lost"), (queued(1, 2).id, "worker_lost")
    ]
    assert machine.handle(0, WorkerReady()) == []


def test_a_batch_that_the_worker_had_not_read_goes_to_the_next_one():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2)))
    assert machine.handle(0, WorkerDied("worker_lost", "SIGKILL", begun=False)) == []
    assert numbers(batch(machine.handle(0, WorkerReady()))) == [1, 2]
    assert machine.handle(0, BatchFailed(ordered.batch, "run_failed", "old")) == []


def test_what_waited_goes_to_the_next_worker():
    machine = batcher()
    queue(machine, queued(1))
    queue(machine, queued(2))
    assert len(machine.handle(0, WorkerDied("worker_lost", "SIGSEGV"))) == 1
    assert numbers(batch(machine.handle(0, WorkerReady()))) == [2]


def test_no_lease_loses_runs_to_the_batch_of_another_twice():
    machine = batcher()
    queue(machine, queued(1, 1), queued(1, 2))
    machine.handle(0, WorkerDied("worker_lost", "SIGSEGV"))
    machine.handle(0, WorkerReady())
    ordered = batch(queue(machine, *(queued(number, lease) for number in (2, 3) for lease in (1, 2))))
    assert leases(ordered) == [1, 1]
    assert leases(batch(answer(machine, ordered))) == [2, 2]


def test_a_lease_that_ended_is_kept_apart_no_longer():
    machine = batcher()
    queue(machine, queued(1, 1), queued(1, 2))
    machine.handle(0, WorkerDied("worker_lost", "SIGSEGV"))
    for lease in (1, 2):
        machine.handle(0, LeaseEnded(queued(1, lease).lease))
    machine.handle(0, WorkerReady())
    assert leases(batch(queue(machine, queued(2, 1), queued(2, 2)))) == [1, 2]


def test_leases_kept_apart_are_bounded():
    machine = batcher(Joining.LEASES)
    for number in range(BATCH_APART):
        machine._keep_apart(number.to_bytes(32, "big"))
    queue(machine, queued(1, 1), queued(1, 2))
    machine.handle(0, WorkerDied("worker_lost", "SIGSEGV"))
    assert len(machine._apart) == BATCH_APART and queued(1, 1).lease in machine._apart
