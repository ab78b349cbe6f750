"""JOI-1, JOI-2, JOI-4, JOI-6 and JOI-9 to JOI-12: what goes next, what is refused, how a run ends."""

from __future__ import annotations

import pytest

from cocoon.core.errors import UsageError
from cocoon.core.limits import BATCH_LEASE_RUNS, BATCH_RUN_BYTES, BATCH_WAITING_BYTES
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import MILLISECOND_NS
from cocoon.runtime.batching import (
    AnswerRun,
    BatchAnswered,
    Batcher,
    FailRun,
    LeaseEnded,
    RefuseRun,
    RunWithdrawn,
    WorkerReady,
)
from cocoon.runtime.company import Joining
from cocoon.runtime.curve import UNMEASURED
from tests.unit.runtime.batch_world import FLAT, GAINS, answer, batch, batcher, numbers, queue, queued, refused

MS = MILLISECOND_NS


# --- who goes, and with whom -------------------------------------------------


def test_an_idle_worker_gets_a_run_at_once_and_alone():
    machine = batcher()
    assert numbers(batch(queue(machine, queued(1)))) == [1]
    assert machine.deadline_ns() is None


def test_what_comes_in_one_frame_goes_in_one_batch():
    assert numbers(batch(queue(batcher(), *(queued(n) for n in range(8))))) == list(range(8))


def test_what_came_while_the_worker_was_busy_goes_together_when_it_is_free():
    machine = batcher()
    first = batch(queue(machine, queued(1)))
    assert [queue(machine, queued(number)) for number in (2, 3, 4)] == [[], [], []]
    assert numbers(batch(answer(machine, first))) == [2, 3, 4]


def test_nothing_is_given_to_a_worker_that_is_not_there():
    machine = Batcher(Joining.LEASES, GAINS)
    assert queue(machine, queued(1), queued(2)) == []
    assert numbers(batch(machine.handle(5, WorkerReady()))) == [1, 2]


def test_a_model_that_gains_nothing_goes_one_by_one():
    machine = batcher(curve=FLAT)
    ordered = batch(queue(machine, *(queued(number) for number in (1, 2, 3))))
    assert numbers(ordered) == [1]
    assert numbers(batch(answer(machine, ordered))) == [2]


def test_only_runs_of_one_form_with_rows_are_joined():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2, length=5), queued(3, rows=None), queued(4, rows=0), queued(5)))
    assert numbers(ordered) == [1, 5]
    for expected in ([2], [3], [4]):
        ordered = batch(answer(machine, ordered))
        assert numbers(ordered) == expected


@pytest.mark.parametrize(
    ("joining", "expected"),
    [
        (Joining.LEASES, [(1, 1), (2, 1), (1, 2), (2, 2)]),
        (Joining.LEASE, [(1, 1), (1, 2)]),
        (Joining.NOTHING, [(1, 1)]),
    ],
)
def test_runs_of_two_leases_share_a_batch_only_where_the_model_is_joinable(joining, expected):
    runs = [queued(number, lease) for number in (1, 2) for lease in (1, 2)]
    ordered = batch(queue(batcher(joining), *runs))
    assert [(run.lease[0], run.number) for run in ordered.runs] == expected


def test_the_first_run_of_a_model_goes_alone_and_says_how_many_go_together_next():
    machine = batcher(curve=UNMEASURED)
    ordered = batch(queue(machine, *(queued(number) for number in range(40))))
    assert numbers(ordered) == [0]
    went = []
    for _ in range(5):
        ordered = batch(answer(machine, ordered, ran_ns=3 * MS * len(ordered.runs)))
        went.append(len(ordered.runs))
    assert went == [2, 4, 8, 4, 4]                              # eight take longer than an order should


def test_a_measured_time_moves_the_moment_from_which_a_run_waits_in_vain():
    machine = batcher(curve=UNMEASURED)
    ordered = batch(queue(machine, *(queued(number, deadline_ns=50 * MS) for number in (1, 2, 3))))
    assert machine.deadline_ns() == 50 * MS + 1
    assert numbers(batch(answer(machine, ordered, ran_ns=30 * MS))) == [2]
    assert machine.deadline_ns() == 20 * MS + 1


def test_a_batch_with_a_fault_measures_nothing():
    machine = batcher(curve=UNMEASURED)
    ordered = batch(queue(machine, queued(1), queued(2), queued(3)))
    effects = machine.handle(0, BatchAnswered(ordered.batch, (("run_failed", ""),), 1))
    assert numbers(batch(effects)) == [2]
    assert machine.curve is UNMEASURED


# --- deadlines ---------------------------------------------------------------


def test_the_earliest_deadline_goes_first_whichever_lease_it_is_of():
    machine = batcher(curve=FLAT)
    ordered = batch(queue(machine, queued(1)))
    late, soon, sooner = (
        queued(9, lease, requester=7, deadline_ns=ms * MS) for lease, ms in ((1, 900), (2, 500), (3, 400))
    )
    queue(machine, late, soon, sooner)
    went = []
    for _ in range(3):
        ordered = batch(answer(machine, ordered))
        went.append(ordered.runs[0])
    assert went == [sooner, soon, late]


def test_a_run_that_cannot_meet_its_deadline_is_refused_when_it_comes():
    machine = batcher()
    text = "the run takes 10 ms here and 9 ms are left"
    assert queue(machine, queued(1, deadline_ns=19 * MS), now_ns=10 * MS) == [
        RefuseRun(queued(1).id, "deadline_exceeded", text)
    ]
    assert numbers(batch(queue(machine, queued(2, deadline_ns=20 * MS), now_ns=10 * MS))) == [2]


def test_a_run_that_waits_in_vain_is_refused_as_soon_as_it_is_in_vain():
    machine = batcher()
    queue(machine, queued(1))
    queue(machine, queued(2, deadline_ns=30 * MS))
    assert machine.deadline_ns() == 20 * MS + 1
    assert machine.handle(20 * MS, DeadlinePassed()) == []
    assert refused(machine.handle(20 * MS + 1, DeadlinePassed())) == [(1, 2, "deadline_exceeded")]
    assert machine.deadline_ns() is None
    assert machine.handle(21 * MS, DeadlinePassed()) == []


# --- fairness ----------------------------------------------------------------


def served(machine, leases_of, rounds):
    """Rows that each requester got while all of its leases always have eight runs in flight, most urgent first."""
    number, got = 0, dict.fromkeys(leases_of, 0)
    runs = []
    for requester, leases in leases_of.items():
        for lease in leases:
            for _ in range(8):
                number += 1
                runs.append(queued(number, lease, requester))
    ordered = batch(queue(machine, *runs))
    for _ in range(rounds):
        again = []
        for run in ordered.runs:
            number += 1
            got[run.requester[0]] += run.rows
            again.append(queued(number, run.lease[0], run.requester[0]))
        ordered = batch([*queue(machine, *again), *answer(machine, ordered)])
    return got


@pytest.mark.parametrize("curve", [GAINS, FLAT], ids=["gains", "flat"])
@pytest.mark.parametrize("joining", list(Joining), ids=lambda joining: joining.name)
def test_sixty_four_leases_of_one_requester_do_not_starve_one_of_another(joining, curve):
    got = served(batcher(joining, curve), {200: range(1, 65), 201: [100]}, rounds=40)
    assert got[200] <= 2 * got[201] and got[201] <= 2 * got[200]


def test_a_requester_with_earlier_deadlines_has_no_more_than_its_rows_of_a_round():
    machine = batcher(Joining.NOTHING, GAINS)
    ordered = batch(queue(machine, queued(0, lease=3)))
    queue(machine, *(queued(number, lease=1, deadline_ns=5_000 * MS) for number in range(40)))
    queue(machine, *(queued(number, lease=2, deadline_ns=9_000 * MS) for number in range(40)))
    went = []
    for _ in range(32):
        ordered = batch(answer(machine, ordered))
        went.append(ordered.runs[0].lease[0])
    assert went == ([1] * 8 + [2] * 8) * 2


def test_newcomers_do_not_prolong_the_round_of_those_who_wait():
    """Each newcomer has another name and an earlier deadline; whoever waited has its rows all the same."""
    machine = batcher(Joining.NOTHING, GAINS)
    ordered = batch(queue(machine, queued(0, lease=2)))
    queue(machine, *(queued(number, lease=1) for number in range(20)))
    went = []
    for newcomer in range(3, 19):
        queue(machine, queued(1, lease=newcomer, deadline_ns=10_000 * MS))
        ordered = batch(answer(machine, ordered))
        went.append(ordered.runs[0].lease[0])
    assert went.count(1) >= 8


def test_a_run_of_many_rows_is_paid_for_in_later_rounds():
    machine = batcher(Joining.NOTHING, GAINS)
    ordered = batch(queue(machine, queued(0, lease=3)))
    queue(machine, queued(1, lease=1, rows=80, deadline_ns=900_000 * MS), queued(2, lease=1, deadline_ns=900_000 * MS))
    queue(machine, *(queued(number, lease=2) for number in range(100)))
    went = []
    for _ in range(90):
        ordered = batch(answer(machine, ordered))
        went.append(ordered.runs[0].lease[0])
    assert [position for position, lease in enumerate(went) if lease == 1] == [0, 81]


def test_room_that_nobody_else_fills_is_filled_and_keeps_nobody_waiting():
    """One requester has one run for each batch, the other would fill them all."""
    machine = batcher()
    ordered = batch(queue(machine, queued(0, lease=3)))
    queue(machine, *(queued(number, lease=1) for number in range(200)))
    others = 0
    for number in range(20):
        queue(machine, queued(number, lease=2))
        ordered = batch(answer(machine, ordered))
        assert len(ordered.runs) == 8
        others += [run.lease[0] for run in ordered.runs].count(2)
        assert others >= number


# --- ends --------------------------------------------------------------------


def test_a_withdrawn_run_is_not_executed():
    machine = batcher()
    ordered = batch(queue(machine, queued(1)))
    queue(machine, queued(2), queued(3))
    assert machine.handle(0, RunWithdrawn(queued(2).id)) == []
    assert numbers(batch(answer(machine, ordered))) == [3]


def test_a_run_that_is_withdrawn_while_it_is_executed_is_not_answered():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2)))
    assert machine.handle(0, RunWithdrawn(queued(1).id)) == []
    assert answer(machine, ordered) == [AnswerRun(queued(2).id)]


def test_a_lease_that_ends_takes_all_its_runs_along():
    machine = batcher()
    ordered = batch(queue(machine, queued(1, lease=1), queued(1, lease=2)))
    queue(machine, queued(2, lease=1), queued(2, lease=2))
    assert machine.handle(0, LeaseEnded(queued(1).lease)) == []
    answered, following = answer(machine, ordered)
    assert answered == AnswerRun(queued(1, lease=2).id)
    assert batch([following]).runs == (queued(2, lease=2),)


def test_a_run_is_answered_once_however_often_its_batch_is():
    machine = batcher()
    ordered = batch(queue(machine, queued(1)))
    assert len(answer(machine, ordered)) == 1
    assert answer(machine, ordered) == []


def test_an_answer_for_a_batch_that_the_worker_has_no_more_changes_nothing():
    machine = batcher()
    first = batch(queue(machine, queued(1)))
    queue(machine, queued(2))
    second = batch(answer(machine, first))
    assert answer(machine, first) == []
    assert answer(machine, second) == [AnswerRun(queued(2).id)]


def test_a_run_that_is_queued_again_while_it_is_held_is_executed_once():
    machine = batcher()
    ordered = batch(queue(machine, queued(1)))
    assert queue(machine, queued(1), queued(2), queued(2)) == []
    assert numbers(batch(answer(machine, ordered))) == [2]


def test_a_fault_of_one_run_is_not_told_to_the_others():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2)))
    effects = machine.handle(0, BatchAnswered(ordered.batch, (("limit_exceeded", "too many bytes"), None)))
    assert effects == [
        FailRun(queued(1).id, "limit_exceeded", "too many bytes"), AnswerRun(queued(2).id)
    ]


def test_a_batch_with_too_few_answers_is_an_error_of_the_caller_and_changes_nothing():
    machine = batcher()
    ordered = batch(queue(machine, queued(1), queued(2)))
    with pytest.raises(UsageError, match="1 answers for a batch of 2 runs"):
        machine.handle(0, BatchAnswered(ordered.batch, (None,)))
    assert len(answer(machine, ordered)) == 2


# --- bounds ------------------------------------------------------------------


def test_one_lease_holds_no_more_runs_than_its_limit():
    machine = batcher()
    ordered = batch(queue(machine, queued(0)))
    assert queue(machine, *(queued(number) for number in range(1, BATCH_LEASE_RUNS))) == []
    assert refused(queue(machine, queued(BATCH_LEASE_RUNS))) == [(1, BATCH_LEASE_RUNS, "limit_exceeded")]
    answer(machine, ordered)
    assert queue(machine, queued(BATCH_LEASE_RUNS)) == []


def test_a_full_line_refuses_whoever_fills_it():
    machine = batcher()
    queue(machine, queued(0))
    rest_bytes = BATCH_WAITING_BYTES - BATCH_RUN_BYTES
    assert queue(machine, queued(1, size_bytes=rest_bytes)) == []
    assert refused(queue(machine, queued(2))) == [(1, 2, "busy")]


def test_in_a_full_line_whoever_holds_most_makes_room():
    machine = batcher()
    queue(machine, queued(0, lease=3))
    most = BATCH_WAITING_BYTES // BATCH_RUN_BYTES - 1
    greedy = [queued(number, lease=number % 64 + 1, requester=200) for number in range(most)]
    assert queue(machine, *greedy) == []
    assert refused(queue(machine, queued(1, lease=100))) == [(greedy[-1].lease[0], greedy[-1].number, "busy")]


def test_nobody_yields_to_a_run_that_has_to_yield_itself():
    machine = batcher()
    queue(machine, queued(0, lease=3))
    quarter = BATCH_WAITING_BYTES // 4
    for lease in (1, 2, 4):
        assert queue(machine, queued(1, lease=lease, size_bytes=quarter)) == []
    assert refused(queue(machine, queued(1, lease=5, size_bytes=2 * quarter))) == [(5, 1, "busy")]
