"""Registration: what a worker finds out about a model before it joins runs of it.

Two questions, both answered by executing drawn inputs: does a row come out the same,
alone and in company; and what does company save. Nothing that a model declares is
believed: an axis named ``batch`` may be anything.

What it finds is true of honest models. One that is made to can behave here, and copy
another row when it sees a sign; so runs of two leases are joined only if the owner of
the provider declared the model joinable.

Imports numpy, so only a worker imports it. The seed and the time inside the model are given.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-3 to JOI-5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cocoon.core.errors import LimitExceeded, MemoryExceeded, RunFailed
from cocoon.core.limits import CURVE_NS, CURVE_SAMPLES, JOIN_DIFFERENCE, JOIN_SIZES
from cocoon.core.units import MICROSECOND_NS
from cocoon.core.values import Value
from cocoon.runtime.company import Joining
from cocoon.runtime.curve import UNMEASURED, Curve, fit, next_rows, rows_in_memory
from cocoon.runtime.rows import Tensors, join, split
from cocoon.runtime.specs import TensorSpec
from cocoon.wire.tensors import STRING, Array

#: One execution, as ``session.Model.run``: outputs by name, and microseconds inside the model.
Run = Callable[[dict[str, Array]], tuple[dict[str, Array], int]]
#: Inputs of one row; each call draws others.
Draw = Callable[[], dict[str, Array]]

#: Length of a dynamic axis behind the first one, when inputs are drawn.
_AXIS = 16
#: Integers are drawn below the first; a model that looks them up in a smaller table gets some below the second.
_BELOW = (128, 2)
_NOT_THESE = (RunFailed, MemoryExceeded, LimitExceeded)


class Registration(Value):
    """What was found.

    Attributes:
        difference: Largest between a row alone and in company, in parts of the largest number if that is above 1;
            infinite if the rows cannot be told apart, or depend on each other.
    """

    joining: Joining
    difference: float
    curve: Curve


def register(
    run: Run, specs: Sequence[TensorSpec], memory_bytes: int, seed: int, declared: float | None = None
) -> Registration:
    """Find out what may be joined, and what it saves.

    Args:
        specs: Of the model's inputs.
        memory_bytes: What the tensors of one batch may take.
        seed: From the operating system, so that no model can be made for what is drawn.
        declared: The difference up to which the provider's owner declares the model joinable; 0 for equal bits,
            None if it is not declared.
    """
    draw = drawing(run, specs, seed)
    if draw is None:
        return Registration(Joining.NOTHING, float("inf"), UNMEASURED)
    difference = row_difference(run, draw)
    joining = grade(difference, declared)
    curve = UNMEASURED if joining is Joining.NOTHING else measure(run, draw, memory_bytes)
    return Registration(joining, difference, curve)


def grade(difference: float, declared: float | None) -> Joining:
    """What may be joined, of a model whose rows differ by ``difference`` in company."""
    if declared is not None and difference <= declared:
        return Joining.LEASES
    return Joining.LEASE if difference <= JOIN_DIFFERENCE else Joining.NOTHING


def drawing(run: Run, specs: Sequence[TensorSpec], seed: int) -> Draw | None:
    """What draws inputs of one row; None if not all inputs have a free first axis, or the model takes none drawn."""
    if not specs or not all(spec.shape and isinstance(spec.shape[0], str) for spec in specs):
        return None
    generator = np.random.default_rng(seed)
    for below in _BELOW:

        def draw(below: int = below) -> dict[str, Array]:
            return {spec.name: _one_row(generator, spec, below) for spec in specs}

        try:
            run(draw())
        except _NOT_THESE:
            continue
        return draw
    return None


def row_difference(run: Run, draw: Draw) -> float:
    """Largest difference of a row, alone and in company of each size; alone is tried twice, for models that draw."""
    rows = [draw() for _ in range(max(JOIN_SIZES))]
    try:
        alone = [run(row)[0] for row in rows]
        return max(
            _difference(one, other)
            for size in JOIN_SIZES
            for one, other in zip(alone, split(run(join(rows[:size]))[0], [1] * size), strict=False)
        )
    except _NOT_THESE:
        return float("inf")


def measure(run: Run, draw: Draw, memory_bytes: int) -> Curve:
    """The curve at 1, 2, 4, 8 ... rows, while it pays, fits the memory and ``CURVE_NS``."""
    row = draw()
    most_rows = rows_in_memory(memory_bytes, _size_bytes(row) + _size_bytes(run(row)[0]))
    curve, samples, left_ns = UNMEASURED, [], CURVE_NS
    rows: int | None = 1
    while rows is not None and CURVE_SAMPLES * curve.predict_ns(rows) <= left_ns:
        inputs = join([draw() for _ in range(rows)])
        try:
            took_ns = [max(1, run(inputs)[1]) * MICROSECOND_NS for _ in range(CURVE_SAMPLES)]
        except _NOT_THESE:
            break
        samples += [(rows, each_ns) for each_ns in took_ns]
        left_ns -= sum(took_ns)
        curve = fit(samples)
        rows = next_rows(curve, most_rows)
    return curve


def _one_row(generator: np.random.Generator, spec: TensorSpec, below: int) -> Array:
    shape = (1, *(axis if isinstance(axis, int) else _AXIS for axis in (spec.shape or ())[1:]))
    if spec.dtype.startswith("float"):
        return generator.standard_normal(shape).astype(spec.dtype)
    drawn = generator.integers(0, 2 if spec.dtype == "bool" else below, shape)
    return drawn.astype(str).astype(object) if spec.dtype == STRING else drawn.astype(spec.dtype)


def _difference(one: Tensors, other: Tensors) -> float:
    return max((_apart(one[name], other[name]) for name in one), default=0.0)


def _apart(one: Array, other: Array) -> float:
    """0 for equal bits; infinite for what is no number, or not of one shape."""
    if one.shape != other.shape:
        return float("inf")
    if np.array_equal(one, other) if one.dtype == object else one.tobytes() == other.tobytes():
        return 0.0
    if one.dtype.kind != "f":
        return float("inf")
    wide, against = one.astype(np.float64), other.astype(np.float64)
    worst = float(np.max(np.abs(wide - against)) / max(1.0, float(np.max(np.abs(wide)))))
    return worst if worst >= 0 else float("inf")        # a comparison with what is not a number is false


def _size_bytes(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())
