"""JOI-3 to JOI-5: how a model is graded and measured; models here are functions, real sessions have their own tests."""

from __future__ import annotations

import numpy as np
import pytest

from cocoon.core.errors import MemoryExceeded, RunFailed
from cocoon.core.limits import CURVE_NS, CURVE_SAMPLES, JOIN_SIZES
from cocoon.core.units import MIB, MICROSECOND_NS
from cocoon.runtime.company import Joining
from cocoon.runtime.curve import UNMEASURED
from cocoon.runtime.registration import drawing, grade, measure, register, row_difference
from cocoon.runtime.specs import TensorSpec

X = [TensorSpec("x", "float32", ("n", 4))]
#: As JOI-3 has it.
SIZES = {1, 2, 3, 8}


class Model:
    """``y = answer(x)``; takes ``took_us(rows)``, and remembers which sizes it was given."""

    def __init__(self, answer=lambda x: x * 2, took_us=lambda rows: 100):
        self.answer, self.took_us = answer, took_us
        self.sizes = []

    def run(self, feeds):
        x = feeds["x"]
        self.sizes.append(len(x))
        return {"y": self.answer(x)}, self.took_us(len(x))


def tipped(x):
    """The last bit of a row changes in company."""
    return x if len(x) == 1 else np.nextafter(x, np.float32(9))


def peeping(x):
    """Copies its neighbour when it sees a number that nobody draws."""
    return np.where(x[:, :1] == 1234.5, np.roll(x, 1, axis=0), x)


@pytest.mark.parametrize(
    ("difference", "declared", "expected"),
    [
        (0.0, None, Joining.LEASE),
        (0.0, 0.0, Joining.LEASES),
        (1.4e-3, 0.0, Joining.LEASE),
        (1.4e-3, 2e-3, Joining.LEASES),
        (0.5, None, Joining.NOTHING),
        (0.5, 0.1, Joining.NOTHING),
        (float("inf"), 1.0, Joining.NOTHING),
    ],
)
def test_leases_are_joined_only_where_it_is_declared_and_measured(difference, declared, expected):
    assert grade(difference, declared) is expected


def test_equal_bits_in_batches_of_one_two_three_and_eight_are_asked_for():
    model = Model()
    assert register(model.run, X, MIB, 1, 0.0).joining is Joining.LEASES
    assert set(JOIN_SIZES) == SIZES <= set(model.sizes)


def test_a_last_bit_that_changes_in_company_keeps_leases_apart():
    found = register(Model(tipped).run, X, MIB, 1, 0.0)
    assert found.joining is Joining.LEASE and 0 < found.difference < 1e-6


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x - x.mean(axis=0),
        lambda x: x[::-1],
        lambda x: x.sum(axis=0, keepdims=True),
        lambda x: x.sum(),
        lambda x: (x - x.mean(axis=0)).astype("i8"),
        lambda x: np.where(len(x) > 1, np.nan, x),
    ],
    ids=["centred", "reversed", "summed", "scalar", "integers", "not a number"],
)
def test_rows_that_depend_on_each_other_go_alone(answer):
    found = register(Model(lambda x: np.asarray(answer(x))).run, X, MIB, 1, 1.0)
    assert (found.joining, found.curve) == (Joining.NOTHING, UNMEASURED)


def test_a_model_that_peeps_is_not_found_out_and_joins_no_leases_all_the_same():
    """Nothing drawn shows what it does; that its owner would have to be believed is why leases stay apart."""
    found = register(Model(peeping).run, X, MIB, 1)
    assert found.difference == 0 and found.joining is Joining.LEASE


@pytest.mark.parametrize(
    "specs",
    [
        [],
        [TensorSpec("x", "float32", ())],
        [TensorSpec("x", "float32", (1, 4))],
        [TensorSpec("x", "float32", None)],
        [*X, TensorSpec("scale", "float32", ())],
    ],
    ids=["no inputs", "scalar", "fixed", "open rank", "one without"],
)
def test_a_model_without_a_batch_axis_is_not_executed_at_all(specs):
    model = Model()
    assert register(model.run, specs, MIB, 1, 1.0).joining is Joining.NOTHING
    assert model.sizes == []


def test_smaller_integers_are_drawn_when_large_ones_are_refused():
    specs = [TensorSpec("x", "int64", ("n", "t"))]

    def run(feeds):
        if feeds["x"].max() > 2:
            raise RunFailed("index out of bounds")
        return {"y": feeds["x"]}, 1

    draw = drawing(run, specs, 1)
    assert draw is not None and draw()["x"].max() <= 1
    assert row_difference(run, draw) == 0


def test_drawn_inputs_follow_from_the_seed():
    first, again, other = (drawing(Model().run, X, seed) for seed in (1, 1, 2))
    assert first()["x"].tobytes() == again()["x"].tobytes() != other()["x"].tobytes()


# --- the curve ---------------------------------------------------------------


def curve_of(model, memory_bytes=MIB):
    """As it is measured."""
    return measure(model.run, drawing(model.run, X, 1), memory_bytes)


def test_sizes_are_measured_while_they_pay():
    model = Model(took_us=lambda rows: 100 + rows if rows <= 8 else 100 * rows)
    assert curve_of(model).points == tuple(
        (rows, us * MICROSECOND_NS) for rows, us in ((1, 101), (2, 102), (4, 104), (8, 108), (16, 1_600))
    )
    flat = Model(took_us=lambda rows: 100 * rows)
    assert curve_of(flat).best_rows() == 1 and max(flat.sizes) == 2


def test_no_size_is_measured_that_memory_does_not_hold():
    """A row takes 16 bytes, and so does its output."""
    model = Model()
    assert curve_of(model, memory_bytes=32 * 11).best_rows() == 8
    assert max(model.sizes) == 8


def test_a_size_without_memory_ends_the_measurement():
    def answer(x):
        if len(x) > 4:
            raise MemoryExceeded("no memory")
        return x

    assert curve_of(Model(answer)).best_rows() == 4


def test_a_slow_model_is_measured_no_longer_than_its_time():
    each_us = CURVE_NS // CURVE_SAMPLES // MICROSECOND_NS // 2
    model = Model(took_us=lambda rows: each_us)
    assert curve_of(model).points == ((1, each_us * MICROSECOND_NS),)
