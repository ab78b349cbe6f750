"""JOI-4 and JOI-5: what was measured, what lies between, and how large a batch pays."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import UsageError
from cocoon.core.limits import BATCH_ROWS
from cocoon.runtime.curve import UNMEASURED, Curve, fit, next_rows, rows_in_memory

times = st.integers(1, 10**10)
#: Times at 1, 2, 4, 8 ... rows, in any order of size.
doublings = st.lists(times, min_size=1, max_size=9).map(
    lambda took: [(1 << step, took_ns) for step, took_ns in enumerate(took)]
)


def test_what_was_measured_is_predicted_and_what_lies_between_is_rounded_up():
    curve = Curve(((1, 100), (2, 101), (4, 110)))
    assert [curve.predict_ns(rows) for rows in (1, 2, 3, 4)] == [100, 101, 106, 110]


def test_beyond_the_last_size_every_row_costs_as_much_as_in_it():
    assert Curve(((1, 100), (4, 110))).predict_ns(5) == 138     # 110 / 4 * 5 = 137.5


def test_the_middle_sample_of_each_size_counts():
    assert fit([(1, 90), (2, 95), (1, 5_000), (1, 80), (2, 94), (2, 96)]) == Curve(((1, 90), (2, 95)))


def test_a_time_that_falls_is_levelled():
    assert fit([(1, 100), (2, 90), (4, 120)]).points == ((1, 100), (2, 100), (4, 120))


@pytest.mark.parametrize("samples", [[], [(2, 5)], [(0, 5), (1, 5)], [(1, 0)]])
def test_samples_that_measure_nothing_make_no_curve(samples):
    with pytest.raises(UsageError):
        fit(samples)


@pytest.mark.parametrize(
    ("points", "best"),
    [
        (((1, 100), (2, 200), (4, 400)), 1),                    # bound by arithmetic
        (((1, 100), (2, 190)), 1),                              # a twentieth is noise
        (((1, 100), (2, 180)), 2),                              # a tenth is gain
        (((1, 100), (2, 110), (4, 130), (8, 250)), 4),          # bound by arithmetic from 4 on
        (((1, 100), (2, 200), (4, 210)), 1),                    # what did not pay is not jumped over
        (((1, 8_333), (2, 12_048), (4, 14_706), (8, 21_220)), 8),   # SmolLM2 on one core, in microseconds
    ],
)
def test_the_largest_batch_is_where_the_gain_ends(points, best):
    assert Curve(points).best_rows() == best


def test_a_model_that_was_not_measured_goes_alone_and_gives_up_no_deadline():
    assert UNMEASURED.best_rows() == 1 and UNMEASURED.predict_ns(100) == 0


def test_sizes_double_while_they_pay_and_fit():
    assert next_rows(Curve(((1, 100),)), 256) == 2
    assert next_rows(Curve(((1, 100), (2, 110))), 256) == 4
    assert next_rows(Curve(((1, 100), (2, 110))), 3) is None
    assert next_rows(Curve(((1, 100), (2, 200))), 256) is None


@given(doublings, st.integers(1, 2_000), st.integers(0, 2_000))
def test_more_rows_never_take_less_time(samples, rows, more):
    curve = fit(samples)
    assert curve.predict_ns(rows) <= curve.predict_ns(rows + more)


@given(doublings, st.lists(st.integers(1, 256), min_size=1, max_size=20))
@example([(1, 100), (2, 180), (4, 324)], [1, 1, 1])
def test_a_batch_that_pays_takes_no_longer_than_its_runs_one_by_one(samples, parts):
    curve = fit(samples)
    if sum(parts) <= curve.best_rows():
        assert curve.predict_ns(sum(parts)) <= sum(map(curve.predict_ns, parts))


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 34), doublings)
def test_no_size_is_measured_that_memory_does_not_hold(memory_bytes, row_bytes, samples):
    most_rows = rows_in_memory(memory_bytes, row_bytes)
    assert most_rows == 1 or most_rows * row_bytes <= memory_bytes
    assert 1 <= most_rows <= BATCH_ROWS
    assert (next_rows(fit(samples), most_rows) or 1) <= most_rows
