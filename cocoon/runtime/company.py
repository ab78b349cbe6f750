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

from collections.abc import Sequence
from enum import Enum

from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import BATCH_BYTES
from cocoon.core.values import Value
from cocoon.runtime.curve import Curve

#: Of each input, by name: dtype and the lengths of all axes but the first. Equal ones can be joined.
Form = tuple[tuple[str, str, tuple[int, ...]], ...]
#: What names a run: its lease, and its number there.
RunId = tuple[LeaseId, int]
_NEVER_NS = 1 << 63


class Joining(Enum):
    """What of a model may be executed together, as it was measured at registration."""

    NOTHING = "every run alone"
    LEASE = "runs of one lease"
    LEASES = "runs of any leases"


class QueuedRun(Value):
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

    @property
    def id(self) -> RunId:
        """Lease and number."""
        return self.lease, self.number


class Waiting(Value):
    """A run in the line, and what it takes alone by the curve."""

    run: QueuedRun
    seq: int
    alone_ns: int
    again: bool = False             # its batch gave no outputs; this time it goes alone

    @property
    def rows(self) -> int:
        """Rows of it; one that has no batch axis counts as one."""
        return self.run.rows or 1

    @property
    def latest_ns(self) -> int:
        """When it must begin at the latest to meet its deadline alone."""
        return self.run.deadline_ns - self.alone_ns


class Seat(Value):
    """Where a run stood in its batch: enough to cut out its rows, and to execute the same batch again.

    Attributes:
        batch: Its number, for this worker.
        runs: How many runs it had; this one was at ``position`` of them, from 0.
        rows: How many rows it had; those of this run begin at ``first_row``.
    """

    batch: int
    runs: int
    position: int
    rows: int
    first_row: int
    own_rows: int


def seats(batch: int, rows: Sequence[int]) -> tuple[Seat, ...]:
    """The seats of runs with so many ``rows``, in their order."""
    return tuple(
        Seat(batch, len(rows), position, sum(rows), sum(rows[:position]), own)
        for position, own in enumerate(rows)
    )


def together(
    now_ns: int, order: Sequence[Waiting], mates: Sequence[bool], curve: Curve, most_rows: int
) -> list[Waiting]:
    """The runs of ``order`` that go now: its first, and company.

    Args:
        order: Who is next, after that, and so on; each could meet its deadline alone now.
        mates: Whether each may be in one batch with the first, whatever time says.
        most_rows: Of a batch of several.
    """
    first = order[0]
    taken, rows, size_bytes = [first], first.rows, first.run.size_bytes
    if rows >= most_rows or not any(mates[1:]):
        return taken
    in_time = _in_time_one_by_one(now_ns, order)
    begin_by_ns = _begin_by(order, in_time)
    end_by_ns, overtaken_ns = first.run.deadline_ns, 0
    for at, one in enumerate(order[1:], start=1):
        ends_ns = now_ns + curve.predict_ns(rows + one.rows)
        if (
            mates[at]
            and rows + one.rows <= most_rows
            and size_bytes + one.run.size_bytes <= BATCH_BYTES
            and ends_ns <= min(end_by_ns, one.run.deadline_ns)
            and ends_ns + overtaken_ns <= begin_by_ns[at + 1]
        ):
            taken.append(one)
            rows, size_bytes = rows + one.rows, size_bytes + one.run.size_bytes
            end_by_ns = min(end_by_ns, one.run.deadline_ns)
            if rows == most_rows:
                break
        elif in_time[at]:
            # Whoever joins after it overtakes it: it begins when the batch is over, and those overtaken before it.
            end_by_ns = min(end_by_ns, one.latest_ns - overtaken_ns)
            overtaken_ns += one.alone_ns
    return taken


def _in_time_one_by_one(now_ns: int, order: Sequence[Waiting]) -> list[bool]:
    """Which runs meet their deadlines if each is executed alone in its turn, and not at all if it would be late."""
    in_time = []
    for one in order:
        in_time.append(now_ns <= one.latest_ns)
        now_ns += one.alone_ns if in_time[-1] else 0
    return in_time


def _begin_by(order: Sequence[Waiting], in_time: Sequence[bool]) -> list[int]:
    """By position in the order: when those from there on must begin, one by one, for each to be in time as before."""
    begin_by_ns = [_NEVER_NS]
    for one, counts in zip(reversed(order), reversed(in_time), strict=True):
        begin_by_ns.append(min(one.latest_ns, begin_by_ns[-1] - one.alone_ns) if counts else begin_by_ns[-1])
    return begin_by_ns[::-1]
