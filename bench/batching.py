"""What batching gains: runs on a worker that takes exactly as long as a measured curve says, in virtual time.

Clients each have one run under way and think for a moment before the next. Three ways to
serve them: the batcher, the batcher without joining, and a server that waits 5 ms for company.
Figures follow from the seed alone, so tests hold their ratios; only the batcher's own cost is of this machine.

Purity: shell.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Protocol

from bench.rows import Row
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.machine import Effect
from cocoon.core.rng import stream
from cocoon.core.units import KIB, MILLISECOND_NS, SECOND_NS
from cocoon.runtime.batching import BatchAnswered, Batcher, ExecuteBatch, RunsQueued, WorkerReady
from cocoon.runtime.company import Joining, QueuedRun
from cocoon.runtime.curve import Curve, fit

#: SmolLM2-135M, 8-bit, one core: a step walks over all weights, for one row or for eight.
MEMORY_BOUND = fit([(1, 8_333_000), (2, 12_048_000), (4, 14_706_000), (8, 21_220_000)])
#: Magika, one thread: every row is as much arithmetic as the first.
COMPUTE_BOUND = fit([(1, 4_200_000), (2, 8_400_000)])
_WIDE = fit([(1, 1_000_000), (64, 2_000_000)])
WAIT_NS = 5 * MILLISECOND_NS
_THINK_NS = MILLISECOND_NS
_SPAN_NS = 30 * SECOND_NS
_ROWS_WAITED_FOR = 8
_RUNS_COUNTED = 6_400
_FORM = (("x", "float32", (256,)),)


class Server(Protocol):
    """What decides which runs go now; numbers in, numbers out."""

    def arrived(self, now_ns: int, run: int) -> tuple[int, ...]:
        """The batch that leaves because of it, if any."""

    def done(self, now_ns: int) -> tuple[int, ...]:
        """The worker is free: the batch that leaves, if any."""

    def woken(self, now_ns: int) -> tuple[int, ...]:
        """The time that ``wakes_ns`` named has come."""

    def wakes_ns(self) -> int | None:
        """When to ask again though nothing happened."""


class Batching:
    """The product's own machine; every client has a lease of its own."""

    def __init__(self, joining: Joining, curve: Curve) -> None:
        """``curve`` is how long the worker takes; the batcher finds out by itself."""
        self._machine, self._curve = Batcher(joining), curve
        self._machine.handle(0, WorkerReady())
        self._batch: ExecuteBatch | None = None

    def arrived(self, now_ns: int, run: int) -> tuple[int, ...]:
        """The batch that leaves because of it."""
        return self._ordered(self._machine.handle(now_ns, RunsQueued((queued(run, now_ns),))))

    def done(self, now_ns: int) -> tuple[int, ...]:
        """The next batch."""
        assert self._batch is not None
        runs = len(self._batch.runs)
        answered = BatchAnswered(self._batch.batch, (None,) * runs, self._curve.predict_ns(runs))
        return self._ordered(self._machine.handle(now_ns, answered))

    def woken(self, now_ns: int) -> tuple[int, ...]:
        """Never: it waits for nothing."""
        return ()

    def wakes_ns(self) -> int | None:
        """Never."""
        return None

    def _ordered(self, effects: list[Effect]) -> tuple[int, ...]:
        for effect in effects:
            if isinstance(effect, ExecuteBatch):
                self._batch = effect
                return tuple(run.number for run in effect.runs)
        return ()


@dataclass
class FixedWait:
    """Waits until there are eight, or the first has waited for 5 ms."""

    waiting: list[tuple[int, int]] = field(default_factory=list)
    busy: bool = False

    def arrived(self, now_ns: int, run: int) -> tuple[int, ...]:
        """The batch that is full with it."""
        self.waiting.append((now_ns, run))
        return self.woken(now_ns)

    def done(self, now_ns: int) -> tuple[int, ...]:
        """What waits long enough, or is a full batch."""
        self.busy = False
        return self.woken(now_ns)

    def woken(self, now_ns: int) -> tuple[int, ...]:
        """What waits long enough, or is a full batch."""
        due_ns = self.wakes_ns()
        if due_ns is None or now_ns < due_ns and len(self.waiting) < _ROWS_WAITED_FOR:
            return ()
        going, self.waiting = self.waiting[:_ROWS_WAITED_FOR], self.waiting[_ROWS_WAITED_FOR:]
        self.busy = True
        return tuple(run for _, run in going)

    def wakes_ns(self) -> int | None:
        """When the first has waited long enough."""
        return self.waiting[0][0] + WAIT_NS if self.waiting and not self.busy else None


WAYS: dict[str, Callable[[Curve], Server]] = {
    "batcher": lambda curve: Batching(Joining.LEASES, curve),
    "one by one": lambda curve: Batching(Joining.NOTHING, curve),
    "wait of 5 ms": lambda curve: FixedWait(),
}


@dataclass(frozen=True)
class Served:
    """What clients saw."""

    runs_per_s: float
    p50_ms: float


def queued(number: int, now_ns: int) -> QueuedRun:
    """A run of one row whose client is patient."""
    name = number.to_bytes(32, "big")
    return QueuedRun(LeaseId(name), number, PeerKey(name), _FORM, 1, KIB, now_ns + 3_600 * SECOND_NS)


def serve(way: str, curve: Curve, clients: int, seed: int = 1) -> Served:
    """``clients`` at a time for half a minute of virtual time."""
    server, thoughts = WAYS[way](curve), stream(seed, b"", "think")
    heap: list[tuple[int, int, str, tuple[int, ...]]] = []
    order, numbers, asked_ns, took_ns = count(), count(1), {}, []

    def at(when_ns: int, what: str, runs: tuple[int, ...] = ()) -> None:
        heapq.heappush(heap, (when_ns, next(order), what, runs))

    def think(now_ns: int) -> None:
        uniform = (thoughts.bits64() + 1) / 2**64
        at(now_ns - int(_THINK_NS * math.log(uniform)), "ask", (next(numbers),))

    for _ in range(clients):
        think(0)
    while heap[0][0] < _SPAN_NS:
        now_ns, _, what, runs = heapq.heappop(heap)
        if what == "ask":
            asked_ns[runs[0]] = now_ns
            leaving = server.arrived(now_ns, runs[0])
        elif what == "done":
            for run in runs:
                took_ns.append(now_ns - asked_ns.pop(run))
                think(now_ns)
            leaving = server.done(now_ns)
        else:
            leaving = server.woken(now_ns)
        if leaving:
            at(now_ns + curve.predict_ns(len(leaving)), "done", leaving)
        elif (wakes_ns := server.wakes_ns()) is not None:
            at(wakes_ns, "wake")
    return Served(len(took_ns) * SECOND_NS / _SPAN_NS, median(took_ns) / MILLISECOND_NS)


def batching() -> list[Row]:
    """Three ways to serve, two models, one client and 64; and what the batcher itself costs."""
    rows = []
    for what, curve in (("bound by memory", MEMORY_BOUND), ("bound by arithmetic", COMPUTE_BOUND)):
        for clients in (1, 64):
            for way in WAYS:
                seen = serve(way, curve, clients)
                figures = f"{seen.runs_per_s:.0f}/s, {seen.p50_ms:.1f} ms"
                rows.append(Row(f"{what}, {clients} at a time, {way}", figures))
    return [*rows, _own_cost(MEMORY_BOUND, 64), _own_cost(MEMORY_BOUND, 1_000), _own_cost(_WIDE, 128)]


def _own_cost(curve: Curve, waiting: int) -> Row:
    """CPU of the batcher for each run, while so many of as many leases wait."""
    machine, numbers, most_rows = Batcher(Joining.LEASES, curve), count(1), curve.best_rows()
    machine.handle(0, WorkerReady())
    effects = machine.handle(0, RunsQueued(tuple(queued(next(numbers), 0) for _ in range(waiting))))
    done, began = 0, time.process_time()
    while done < _RUNS_COUNTED:
        (batch,) = (effect for effect in effects if isinstance(effect, ExecuteBatch))
        done += len(batch.runs)
        machine.handle(0, RunsQueued(tuple(queued(next(numbers), 0) for _ in batch.runs)))
        effects = machine.handle(0, BatchAnswered(batch.batch, (None,) * len(batch.runs)))
    took_us = (time.process_time() - began) * 1_000_000 / done
    return Row(f"the batcher itself, batches of {most_rows}, {waiting:,} waiting", f"{took_us:.0f} us a run")
