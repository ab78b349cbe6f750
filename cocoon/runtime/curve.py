"""The curve: how long a batch of so many rows takes, as one model was measured on one device.

Whether batches pay is the model's affair: a product of large matrices takes twice
the time for twice the rows, a walk over large weights hardly more. So it is
measured, at 1, 2, 4, 8 ... rows while it pays, and what is between is interpolated.

Invariants
    The time never falls as rows rise.
    Up to ``best_rows`` a batch takes no longer than its parts one after another.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-4 and JOI-5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, pairwise

from cocoon.core.errors import UsageError
from cocoon.core.limits import BATCH_GAIN_PPM, BATCH_ROWS
from cocoon.core.units import PPM, ceil_div
from cocoon.core.values import Value

#: (rows, nanoseconds) of one execution.
Sample = tuple[int, int]


class Curve(Value):
    """What was measured: (rows, ns), rows rising from 1, ns never falling."""

    points: tuple[Sample, ...]

    def predict_ns(self, rows: int) -> int:
        """Time of a batch of ``rows`` >= 1; beyond what was measured every row costs as much as in the last point."""
        at = bisect_left(self.points, rows, key=lambda point: point[0])
        if at == len(self.points):
            last_rows, last_ns = self.points[-1]
            return ceil_div(last_ns * rows, last_rows)
        more_rows, more_ns = self.points[at]
        if more_rows == rows:
            return more_ns
        less_rows, less_ns = self.points[at - 1]
        return less_ns + ceil_div((more_ns - less_ns) * (rows - less_rows), more_rows - less_rows)

    def best_rows(self) -> int:
        """The largest batch up to which each step pays; 1 for a model that gains nothing."""
        best = 1
        for less, more in pairwise(self.points):
            if not _pays(less, more):
                break
            best = more[0]
        return best


#: Of a model that was not measured: it goes alone, and no deadline is given up before it has passed.
UNMEASURED = Curve(((1, 0),))


def fit(samples: Iterable[Sample]) -> Curve:
    """The curve through the middle sample of each size; noise that falls is levelled.

    Raises:
        UsageError: a sample of no rows or no time, or none of one row.
    """
    by_rows: dict[int, list[int]] = {}
    for rows, took_ns in samples:
        if rows < 1 or took_ns < 1:
            raise UsageError(f"a sample of {rows} rows in {took_ns} ns measures nothing")
        by_rows.setdefault(rows, []).append(took_ns)
    if 1 not in by_rows:
        raise UsageError("a curve begins with one row")
    sizes = sorted(by_rows)
    middles = (sorted(by_rows[rows])[len(by_rows[rows]) // 2] for rows in sizes)
    return Curve(tuple(zip(sizes, accumulate(middles, max), strict=True)))


def next_rows(curve: Curve, most_rows: int) -> int | None:
    """The size to measure next; None when the last one did not pay or the next is too large."""
    last = curve.points[-1][0]
    if curve.best_rows() < last or 2 * last > most_rows:
        return None
    return 2 * last


def rows_in_memory(memory_bytes: int, row_bytes: int) -> int:
    """How many rows of ``row_bytes`` a batch may have; at least one, which the worker's own limit judges."""
    return max(1, min(BATCH_ROWS, memory_bytes // max(1, row_bytes)))


def _pays(less: Sample, more: Sample) -> bool:
    """Whether a row takes enough less time in the larger batch."""
    (less_rows, less_ns), (more_rows, more_ns) = less, more
    return more_ns * less_rows * PPM <= less_ns * more_rows * (PPM - BATCH_GAIN_PPM)
