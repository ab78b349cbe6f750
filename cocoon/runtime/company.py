"""Company: which of the runs that wait go into the worker together.

The first of an order always goes. Others join it while the batch ends before the
deadline of each, by the curve, and while nobody pays for it: a run that would have
met its deadline if all were executed one by one in that order still can.

Invariants
    A batch of several keeps every member's deadline.
    No run, joined, overtaken or further back, is late that would not be so one by one.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-6 to JOI-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import cached_property

from cocoon.core.errors import Malformed
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import PAYLOAD_BYTES
from cocoon.core.values import Value
from cocoon.runtime.curve import Curve
from cocoon.wire.layout import Heads, laid_out

#: Of each input, by name: dtype and the lengths of all axes but the first. Equal ones can be joined.
Form = tuple[tuple[str, str, tuple[int, ...]], ...]
#: What names a run: its lease, and its number there.
RunId = tuple[LeaseId, int]
_NEVER_NS = 1 << 63


class Joining(Enum):
    """Whose runs may be in one batch."""

    NOTHING = "every run alone"
    LEASE = "runs of one lease"
    LEASES = "runs of any leases"


def form_of(shapes: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[Form, int | None]:
    """Form of tensors with these names, dtypes and lengths, and the rows that all of them have.

    Returns:
        None for the rows if they do not agree, or there are none.
    """
    ordered = sorted(shapes)
    lengths = {axes[0] if axes else 0 for _, _, axes in ordered}
    rows = lengths.pop() if len(lengths) == 1 else 0
    return tuple((name, dtype, axes[1:]) for name, dtype, axes in ordered), rows or None


class Forms:
    """Form and rows of encoded inputs; of those that are laid out like the last ones they are known."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._heads: Heads | None = None
        self._found: tuple[Form, int | None] = (), None

    def of(self, payload: bytes) -> tuple[Form, int | None]:
        """As ``form_of``; no form and no rows of what is no tensors: the worker says what is wrong with it."""
        if self._heads is None or not self._heads.fit(payload):
            try:
                shapes, self._heads = laid_out(payload)
                self._found = form_of(shapes)
            except Malformed:
                self._heads, self._found = None, ((), None)
        return self._found


class QueuedRun(Value, dict=True):
    """One run as the batcher knows it; its tensors stay with the shell.

    Attributes:
        rows: Length of the batch axis; None if its inputs share none.
        size_bytes: Of all inputs.
    """

    lease: LeaseId
    number: int
    requester: PeerKey
    form: Form
    rows: int | None
    size_bytes: int
    deadline_ns: int

    @cached_property
    def id(self) -> RunId:
        """Lease and number."""
        return self.lease, self.number


class Waiting(Value):
    """A run in the line, as the curve sees it.

    Attributes:
        rows: At least one: without a batch axis a run counts as one row.
        latest_ns: When it must begin to meet its deadline alone.
        again: Its batch gave no outputs; this time it goes alone.
    """

    run: QueuedRun
    seq: int
    rows: int
    alone_ns: int
    latest_ns: int
    again: bool = False


def waiting(run: QueuedRun, seq: int, curve: Curve, again: bool = False) -> Waiting:
    """The run with the number ``seq`` in the line."""
    rows = run.rows or 1
    alone_ns = curve.predict_ns(rows)
    return Waiting(run, seq, rows, alone_ns, run.deadline_ns - alone_ns, again)


def together(
    now_ns: int, order: Sequence[Waiting], mate: Callable[[Waiting], bool], curve: Curve, most_rows: int
) -> list[Waiting]:
    """The runs of ``order`` that go now: its first, and company.

    Args:
        order: Who is next, after that, and so on; each could meet its deadline alone now.
        mate: Whether this one may be in one batch with the first, whatever time says.
        most_rows: Of a batch of several.
    """
    first = order[0]
    taken, rows, size_bytes = [first], first.rows, first.run.size_bytes
    in_time, begin_by_ns = _one_by_one(now_ns, order)
    end_by_ns, overtaken_ns = first.run.deadline_ns, 0
    for at, one in enumerate(order[1:], start=1):
        if rows >= most_rows:
            break
        if (
            rows + one.rows <= most_rows
            and size_bytes + one.run.size_bytes <= PAYLOAD_BYTES
            and mate(one)
            and (ends_ns := now_ns + curve.predict_ns(rows + one.rows)) <= min(end_by_ns, one.run.deadline_ns)
            and ends_ns + overtaken_ns <= begin_by_ns[at + 1]
        ):
            taken.append(one)
            rows, size_bytes = rows + one.rows, size_bytes + one.run.size_bytes
            end_by_ns = min(end_by_ns, one.run.deadline_ns)
        elif in_time[at]:
            # Whoever joins after it overtakes it: it begins when the batch is over, and those overtaken before it.
            end_by_ns = min(end_by_ns, one.latest_ns - overtaken_ns)
            overtaken_ns += one.alone_ns
    return taken


def _one_by_one(now_ns: int, order: Sequence[Waiting]) -> tuple[list[bool], list[int]]:
    """What would be if each were executed alone in its turn, and not at all if it would be late.

    Returns:
        Which are in time; and, by position, when those from there on must begin for each to be in time as before.
    """
    if min(one.latest_ns for one in order) >= now_ns + sum(one.alone_ns for one in order):
        return [True] * len(order), [_NEVER_NS] * (len(order) + 1)     # in time in any order
    in_time = []
    for one in order:
        in_time.append(now_ns <= one.latest_ns)
        now_ns += one.alone_ns if in_time[-1] else 0
    begin_by_ns = [_NEVER_NS]
    for one, counts in zip(reversed(order), reversed(in_time), strict=True):
        begin_by_ns.append(min(one.latest_ns, begin_by_ns[-1] - one.alone_ns) if counts else begin_by_ns[-1])
    return in_time, begin_by_ns[::-1]
