"""The curve: how long a batch of so many rows takes, as one model was measured on one device.

Whether batches pay is the model's affair: a product of large matrices takes twice
the time for twice the rows, a walk over large weights hardly more. So it is
measured, on the runs that people pay for, at 1, 2, 4, 8 ... rows while that does no
harm, and what is between is interpolated.

Invariants
    The time never falls as rows rise.
    Up to ``best_rows`` a batch takes hardly longer than its parts one after another.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-4 and JOI-5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from cocoon.core.errors import UsageError
from cocoon.core.limits import BATCH_GAIN_PPM, BATCH_ROWS, CURVE_BATCHES, CURVE_SAMPLES, ORDER_NS
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
        """The largest batch up to which each step pays, or is short and does no harm."""
        best = 1
        for less, more in pairwise(self.points):
            if not (_pays(less, more) or _is_harmless(self.points[0][1], more)):
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


@dataclass(slots=True)
class Gauge:
    """Measures a curve while it is used: the last few batches of each size count."""

    _samples: dict[int, deque[int]] = field(default_factory=dict)
    _batches: int = 0

    def note(self, rows: int, took_ns: int) -> Curve:
        """A batch of so many rows took so long inside the model; what is known now."""
        self._batches += 1
        if self._batches % CURVE_BATCHES == 0:          # a size that seemed too slow once is tried again
            self._samples = {size: took for size, took in self._samples.items() if size == 1}
        size = rows if 1 in self._samples else 1
        if size & (size - 1) == 0 and size <= BATCH_ROWS:
            took = self._samples.setdefault(size, deque(maxlen=CURVE_SAMPLES))
            took.append(max(1, ceil_div(took_ns * size, rows)))
        return self._curve()

    def _curve(self) -> Curve:
        """With the next size, as if it gained just enough, while nothing is against it."""
        curve = fit((size, took_ns) for size, took in self._samples.items() for took_ns in took)
        rows, took_ns = curve.points[-1]
        if curve.best_rows() < rows or 2 * rows > BATCH_ROWS:
            return curve
        return Curve((*curve.points, (2 * rows, max(took_ns, 2 * took_ns * (PPM - BATCH_GAIN_PPM) // PPM))))


def _pays(less: Sample, more: Sample) -> bool:
    """Whether a row takes enough less time in the larger batch."""
    (less_rows, less_ns), (more_rows, more_ns) = less, more
    return more_ns * less_rows * PPM <= less_ns * more_rows * (PPM - BATCH_GAIN_PPM)


def _is_harmless(alone_ns: int, batch: Sample) -> bool:
    """Whether whoever is first hardly waits for the last, and nobody for the batch."""
    rows, took_ns = batch
    return took_ns <= ORDER_NS and took_ns * PPM <= rows * alone_ns * (PPM + BATCH_GAIN_PPM)
