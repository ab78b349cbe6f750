"""Runs as tests queue them, and a worker that takes exactly as long as its curve says."""

from __future__ import annotations

from collections.abc import Iterable

from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.machine import Effect
from cocoon.core.units import KIB, MILLISECOND_NS, SECOND_NS
from cocoon.runtime.batching import (
    BatchAnswered,
    Batcher,
    ExecuteBatch,
    RefuseRun,
    RunsQueued,
    WorkerReady,
)
from cocoon.runtime.company import Form, Joining, QueuedRun
from cocoon.runtime.curve import Curve

#: Eight rows take a fifth more than one.
GAINS = Curve(((1, 10 * MILLISECOND_NS), (8, 12 * MILLISECOND_NS)))
#: Twice the rows, twice the time; and two together would be a long order.
FLAT = Curve(((1, 11 * MILLISECOND_NS), (2, 22 * MILLISECOND_NS)))
LATER_NS = 3_600 * SECOND_NS


def form(length: int = 4) -> Form:
    """One float32 input with this length behind its rows."""
    return (("x", "float32", (length,)),)


def queued(
    number: int,
    lease: int = 1,
    requester: int | None = None,
    rows: int | None = 1,
    deadline_ns: int = LATER_NS,
    length: int = 4,
    size_bytes: int = KIB,
) -> QueuedRun:
    """A run; its requester has the lease's number unless it is named."""
    return QueuedRun(
        LeaseId(bytes([lease]) * 32),
        number,
        PeerKey(bytes([lease if requester is None else requester]) * 32),
        form(length),
        rows,
        size_bytes,
        deadline_ns,
    )


def batcher(joining: Joining = Joining.LEASES, curve: Curve = GAINS) -> Batcher:
    """One whose worker is ready."""
    made = Batcher(joining, curve)
    assert made.handle(0, WorkerReady()) == []
    return made


def queue(machine: Batcher, *runs: QueuedRun, now_ns: int = 0) -> list[Effect]:
    """All in one frame."""
    return machine.handle(now_ns, RunsQueued(runs))


def batches(effects: Iterable[Effect]) -> list[ExecuteBatch]:
    """The orders to the worker among these."""
    return [effect for effect in effects if isinstance(effect, ExecuteBatch)]


def batch(effects: Iterable[Effect]) -> ExecuteBatch:
    """The only order to the worker among these."""
    found = batches(effects)
    assert len(found) == 1
    return found[0]


def refused(effects: Iterable[Effect]) -> list[tuple[int, int, str]]:
    """Lease, number and code of every run that is refused among these."""
    return [(effect.run[0][0], effect.run[1], effect.code) for effect in effects if isinstance(effect, RefuseRun)]


def numbers(ordered: ExecuteBatch) -> list[int]:
    """Of its runs, in order."""
    return [run.number for run in ordered.runs]


def answer(machine: Batcher, ordered: ExecuteBatch, now_ns: int = 0, ran_ns: int = 0) -> list[Effect]:
    """The worker answers every run of the batch."""
    return machine.handle(now_ns, BatchAnswered(ordered.batch, (None,) * len(ordered.runs), ran_ns))
