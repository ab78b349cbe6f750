"""JOI-7 and JOI-8: who joins whom, and that nobody pays for it with a deadline."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cocoon.core.limits import PAYLOAD_BYTES
from cocoon.runtime.company import Waiting, form_of, together, waiting
from cocoon.runtime.curve import Curve, fit
from tests.unit.runtime.batch_world import queued

GAINS = Curve(((1, 10), (8, 12)))


def stands(curve: Curve, number: int, rows: int, deadline_ns: int, size_bytes: int = 1) -> Waiting:
    """A run in the line."""
    run = queued(number, rows=rows, deadline_ns=deadline_ns, size_bytes=size_bytes)
    return waiting(run, number, curve)


def chosen(curve: Curve, order: list[Waiting], mates: list[bool] | None = None, most_rows: int = 8) -> list[int]:
    """Numbers of those that go now, at time 0."""
    taken = together(0, order, lambda one: mates is None or mates[one.seq], curve, most_rows)
    return [one.run.number for one in taken]


def line(*deadlines_ns: int) -> list[Waiting]:
    """Runs of one row."""
    return [stands(GAINS, number, 1, deadline_ns) for number, deadline_ns in enumerate(deadlines_ns)]


def test_all_that_fit_go_together_in_their_order():
    assert chosen(GAINS, line(*[100] * 10)) == list(range(8))


def test_one_that_is_too_large_is_passed_over_and_a_smaller_one_joins():
    order = [stands(GAINS, number, rows, 100) for number, rows in enumerate([5, 4, 3, 1])]
    assert chosen(GAINS, order) == [0, 2]


def test_a_run_above_the_largest_batch_goes_alone():
    assert chosen(GAINS, [stands(GAINS, 0, 9, 100), *line(100)]) == [0]


def test_inputs_of_a_batch_fit_one_message():
    half = PAYLOAD_BYTES // 2
    order = [stands(GAINS, number, 1, 100, size) for number, size in enumerate([half, half, 1])]
    assert chosen(GAINS, order) == [0, 1]
    order = [stands(GAINS, number, 1, 100, size) for number, size in enumerate([half, half + 1, 1])]
    assert chosen(GAINS, order) == [0, 2]


def test_company_never_costs_the_first_its_deadline():
    assert chosen(GAINS, line(10, 100, 100)) == [0]
    assert chosen(GAINS, line(11, 100, 100, 100, 100, 100)) == [0, 1, 2, 3]     # four rows take 11


def test_a_run_that_would_be_late_in_company_does_not_join():
    """Its turn comes too late one by one as well, so nothing is lost."""
    assert chosen(GAINS, line(100, 10, 100)) == [0, 2]


def test_who_is_overtaken_still_meets_its_deadline():
    """One row, then the odd run, would end at 20; with company the odd run would end at 21 at the soonest."""
    assert chosen(GAINS, line(100, 20, 100), [True, False, True]) == [0]
    assert chosen(GAINS, line(100, 21, 100), [True, False, True]) == [0, 2]


def test_two_who_are_overtaken_both_meet_their_deadlines():
    assert chosen(GAINS, line(100, 30, 30, 100), [True, False, False, True]) == [0]
    assert chosen(GAINS, line(100, 31, 31, 100), [True, False, False, True]) == [0, 3]


def test_company_that_would_be_late_alone_costs_nobody_further_back():
    """One by one the second run is late and refused, so the odd one begins at 10 and is just in time."""
    assert chosen(GAINS, line(100, 12, 20), [True, True, False]) == [0]
    assert chosen(GAINS, line(100, 12, 21), [True, True, False]) == [0, 1]


def test_the_form_of_tensors_is_all_but_their_first_lengths_whatever_their_order():
    one = form_of([("b", "int64", (3, 2)), ("a", "float32", (3,))])
    assert one == form_of([("a", "float32", (3,)), ("b", "int64", (3, 2))])
    assert one == ((("a", "float32", ()), ("b", "int64", (2,))), 3)


@pytest.mark.parametrize("shapes", [
    [], [("a", "float32", ())], [("a", "float32", (0, 2))], [("a", "float32", (3,)), ("b", "float32", (2,))],
])
def test_tensors_without_rows_in_common_have_none(shapes):
    assert form_of(shapes)[1] is None


curves = st.lists(st.integers(1, 60), min_size=1, max_size=5).map(
    lambda took: fit([(1 << step, took_ns) for step, took_ns in enumerate(took)])
)
lines = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 200), st.booleans()), min_size=1, max_size=12)


def in_time(begin_ns: int, order: list[Waiting]) -> list[Waiting]:
    """Who is in time when each is executed alone in its turn, and not at all if it would be late."""
    found = []
    for one in order:
        if begin_ns + one.alone_ns <= one.run.deadline_ns:
            begin_ns += one.alone_ns
            found.append(one)
    return found


@given(curves, lines)
@example(GAINS, [(1, 100, True), (1, 12, True), (1, 20, False)])
def test_company_harms_nobody_by_the_curve(curve, wanted):
    """Whoever waits, with whatever deadlines, in whatever order."""
    order = [stands(curve, number, rows, deadline_ns) for number, (rows, deadline_ns, _) in enumerate(wanted)]
    assume(order[0].alone_ns <= order[0].run.deadline_ns)
    mates = [True, *(mate for *_, mate in wanted[1:])]
    before = in_time(0, order)
    taken = together(0, order, lambda one: mates[one.seq], curve, curve.best_rows())
    end_ns = curve.predict_ns(sum(one.rows for one in taken))
    assert all(end_ns <= one.run.deadline_ns for one in taken)
    assert all(mates[one.run.number] for one in taken)
    assert len(taken) == 1 or sum(one.rows for one in taken) <= curve.best_rows()
    left = [one for one in before if one not in taken]
    assert in_time(end_ns, left) == left


@given(curves, lines)
def test_a_line_that_is_in_time_one_by_one_is_in_time_in_batches(curve, wanted):
    order = [
        stands(curve, number, rows, deadline_ns)
        for number, (rows, deadline_ns, _) in enumerate(sorted(wanted, key=lambda one: one[1]))
    ]
    order = in_time(0, order)
    now_ns = 0
    while order:
        odd = order[0].seq % 2
        taken = together(now_ns, order, lambda one, odd=odd: one.seq % 2 == odd, curve, curve.best_rows())
        now_ns += curve.predict_ns(sum(one.rows for one in taken))
        assert all(now_ns <= one.run.deadline_ns for one in taken)
        order = [one for one in order if one not in taken]
