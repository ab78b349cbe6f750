"""JOI-4 and JOI-5: what was measured, what lies between, and how large a batch pays."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import UsageError
from cocoon.core.limits import BATCH_ROWS, CURVE_BATCHES, ORDER_NS
from cocoon.core.units import MILLISECOND_NS
from cocoon.runtime.curve import UNMEASURED, Curve, Gauge, fit

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
        (((1, 8_333), (2, 12_048), (4, 14_706), (8, 21_220)), 8),   # SmolLM2 on one core, a thousand times
    ],
)
def test_the_largest_long_batch_is_where_the_gain_ends(points, best):
    """In milliseconds."""
    assert Curve(tuple((rows, took_ms * MILLISECOND_NS) for rows, took_ms in points)).best_rows() == best


def test_a_model_that_was_not_measured_goes_alone_and_gives_up_no_deadline():
    assert UNMEASURED.best_rows() == 1 and UNMEASURED.predict_ns(100) == 0


@pytest.mark.parametrize(
    ("points", "best"),
    [
        (((1, 1), (2, 2), (4, 4)), 4),                          # no gain, and nobody waits
        (((1, 5), (2, 10), (4, 20), (8, 40)), 4),               # as long as an order may be
        (((1, 5), (2, 12), (4, 12)), 1),                        # company costs more than a tenth
        (((1, 10), (2, 12), (4, 21)), 4),                       # longer, but it pays
    ],
)
def test_a_short_batch_that_does_no_harm_may_be_as_large(points, best):
    """In milliseconds; an order has 20."""
    assert Curve(tuple((rows, took_ms * MILLISECOND_NS) for rows, took_ms in points)).best_rows() == best


def measured(sizes_ns, gauge=None):
    """The curve after batches of these (rows, ns)."""
    gauge = gauge or Gauge()
    return [gauge.note(rows, took_ns) for rows, took_ns in sizes_ns][-1]


def test_the_next_size_is_tried_while_nothing_is_against_it():
    assert measured([(1, 100)]).best_rows() == 2
    assert measured([(1, 100), (2, 110)]).best_rows() == 4
    assert measured([(1, 100), (2, 300)]).best_rows() == 1
    assert measured([(1, 100)] + [(1 << step, 100) for step in range(1, 7)]).best_rows() == BATCH_ROWS
    assert measured([(1, ORDER_NS)]).best_rows() == 2
    assert measured([(1, ORDER_NS), (2, 2 * ORDER_NS)]).best_rows() == 1


def test_a_first_batch_of_many_rows_is_no_reason_to_join_as_many():
    assert measured([(9, 900)]).predict_ns(1) == 100
    assert measured([(9, 900)]).best_rows() == 2


def test_sizes_between_the_doublings_are_not_counted():
    assert measured([(1, 100), (3, 10_000)]) == measured([(1, 100)])


def test_the_last_batches_count_and_of_them_the_one_in_the_middle():
    assert measured([(1, 900), (1, 900), (1, 100), (1, 100), (1, 5_000)]).predict_ns(1) == 100


def test_a_size_that_seemed_too_slow_once_is_tried_again():
    gauge = Gauge()
    assert measured([(1, 100), *[(2, 900)] * 3], gauge).best_rows() == 1
    assert measured([(1, 100)] * CURVE_BATCHES, gauge).best_rows() == 2


@given(doublings, st.integers(1, 2_000), st.integers(0, 2_000))
def test_more_rows_never_take_less_time(samples, rows, more):
    curve = fit(samples)
    assert curve.predict_ns(rows) <= curve.predict_ns(rows + more)


@given(doublings, st.lists(st.integers(1, 256), min_size=1, max_size=20))
@example([(1, 100), (2, 180), (4, 324)], [1, 1, 1])
def test_a_batch_takes_hardly_longer_than_its_runs_one_by_one(samples, parts):
    """A tenth of all rows alone, and the rounding of what lies between."""
    curve = fit(samples)
    if sum(parts) <= curve.best_rows():
        alone_ns = sum(parts) * curve.predict_ns(1)
        assert curve.predict_ns(sum(parts)) <= alone_ns * 11 / 10 + 1


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 10**9)), min_size=1, max_size=40))
def test_whatever_is_measured_no_batch_is_larger_than_an_order(batches):
    assert 1 <= measured(batches).best_rows() <= BATCH_ROWS
