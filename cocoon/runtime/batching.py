"""The batcher: which of the runs that wait for one worker it gets next, together.

One worker serves one model on one device; several leases of several requesters
send it runs. An idle worker gets a batch at once, with whatever waits that may
join it; nothing waits for company. Who is next is decided by rounds: in a round
every requester may have as many rows as the largest batch, and among those who
have some left the earliest deadline goes first.

Invariants
    Every run ends once: answered, failed, refused or withdrawn.
    At most one batch is in the worker; while it idles nothing waits.
    Runs of two leases share a batch only where the model allows it.
    What is held is bounded, per lease and in all.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-1 to JOI-16.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from cocoon.core.errors import DeadlineExceeded, LimitExceeded, MemoryExceeded, ProviderBusy, UsageError, WorkerLost
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import (
    BATCH_APART,
    BATCH_LEASE_RUNS,
    BATCH_REQUESTERS,
    BATCH_ROWS,
    BATCH_RUN_BYTES,
    BATCH_WAITING_BYTES,
)
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import MILLISECOND_NS, ceil_div
from cocoon.core.values import replace
from cocoon.runtime.company import Joining, QueuedRun, RunId, Waiting, together, waiting
from cocoon.runtime.curve import UNMEASURED, Curve, Gauge

#: Code and text of an error.
Fault = tuple[str, str]
K = TypeVar("K")
_NEVER_NS = 1 << 63


class RunsQueued(Event):
    """Runs arrived, those of one frame together."""

    runs: tuple[QueuedRun, ...]


class RunWithdrawn(Event):
    """Nobody wants this run any more; who sent it needs no answer."""

    run: RunId


class LeaseEnded(Event):
    """None of the lease's runs is wanted any more."""

    lease: LeaseId


class BatchAnswered(Event):
    """The model ran; for each run in order None, or why it has no outputs of its own.

    Attributes:
        ran_ns: Inside the model, for all of them; 0 if nobody knows.
    """

    batch: int
    faults: tuple[Fault | None, ...]
    ran_ns: int = 0


class BatchFailed(Event):
    """The model gave no outputs for any run of the batch; the worker lives."""

    batch: int
    code: str
    text: str


class WorkerReady(Event):
    """A worker holds the model and takes a batch."""


class WorkerDied(Event):
    """The worker is gone, with the batch that it had.

    Attributes:
        begun: False only if it certainly had not read the batch; then its runs may be executed by another worker.
    """

    code: str
    text: str
    begun: bool = True


class ExecuteBatch(Effect):
    """Give the worker these runs, in this order."""

    batch: int
    runs: tuple[QueuedRun, ...]


class AnswerRun(Effect):
    """Send the outputs of this run."""

    run: RunId


class FailRun(Effect):
    """The run was begun and has no result."""

    run: RunId
    code: str
    text: str


class RefuseRun(Effect):
    """The run was not begun, and will not be."""

    run: RunId
    code: str
    text: str


@dataclass(slots=True)
class Batcher:
    """Feed facts by ``handle``."""

    joining: Joining
    curve: Curve = UNMEASURED
    ready: bool = False
    _gauge: Gauge = field(default_factory=Gauge)
    _most_rows: int = 1
    #: A larger batch found no memory.
    _memory_rows: int = BATCH_ROWS
    _batches: int = 0
    _seq: int = 0
    #: What the worker has.
    _executing: list[Waiting] | None = None
    #: By deadline, then as they came.
    _line: list[Waiting] = field(default_factory=list)
    #: When the first of the line can no longer be in time.
    _late_ns: int = _NEVER_NS
    #: All that have not ended: in the line or in the worker.
    _held: dict[RunId, QueuedRun] = field(default_factory=dict)
    _lease_runs: Counter[LeaseId] = field(default_factory=Counter)
    _weights_bytes: Counter[PeerKey] = field(default_factory=Counter)
    #: The same of all requesters together.
    _held_bytes: int = 0
    #: Rows that each requester may still have in this round; below zero, what it had too much.
    _rows_left: dict[PeerKey, int] = field(default_factory=dict)
    #: Leases that are joined with no other.
    _apart: OrderedDict[LeaseId, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._most_rows = self.curve.best_rows()

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; whatever it was, an idle worker then gets what waits."""
        return [*self._take(now_ns, event), *self._refuse_late(now_ns), *self._execute(now_ns)]

    def deadline_ns(self) -> int | None:
        """When the first of those that wait can no longer meet its deadline; never to wait for company."""
        return self._late_ns if self._line else None

    def _take(self, now_ns: int, event: Event) -> list[Effect]:
        match event:
            case RunsQueued(runs):
                return [effect for run in runs for effect in self._queue(now_ns, run)]
            case RunWithdrawn(run):
                self._withdraw([self._held[run]] if run in self._held else [])
            case LeaseEnded(lease):
                self._withdraw([run for run in self._held.values() if run.lease == lease])
                self._apart.pop(lease, None)
            case BatchAnswered(batch, faults, ran_ns) if self._executing is not None and batch == self._batches:
                return self._answered(self._executing, faults, ran_ns)
            case BatchFailed(batch, code, text) if self._executing is not None and batch == self._batches:
                return self._failed(self._executing, code, text)
            case WorkerReady():
                self.ready = True
            case WorkerDied(code, text, begun):
                return self._died(code, text, begun)
            case DeadlinePassed():
                pass                                    # who is late is refused whatever happened
        return []

    # --- the line ------------------------------------------------------------

    def _queue(self, now_ns: int, run: QueuedRun) -> list[Effect]:
        if run.id in self._held:
            return []                                   # asked again while it is under way
        if self._lease_runs[run.lease] >= BATCH_LEASE_RUNS:
            return [RefuseRun(run.id, LimitExceeded.code, f"{BATCH_LEASE_RUNS} runs of this lease wait already")]
        one = waiting(run, self._seq, self.curve)
        if one.latest_ns < now_ns:
            return [_late(now_ns, one)]
        yielding = self._who_yields(run)
        if yielding is None:
            return [_full(run)]
        self._seq += 1
        self._hold(run)
        self._enter(one)
        self._withdraw([other.run for other in yielding])
        return [_full(other.run) for other in yielding]

    def _enter(self, one: Waiting) -> None:
        insort(self._line, one, key=lambda other: (other.run.deadline_ns, other.seq))
        self._late_ns = min(self._late_ns, one.latest_ns + 1)
        self._know(one.run.requester)

    def _stand(self, line: list[Waiting]) -> None:
        """From now on these wait, in this order."""
        self._line = line
        self._late_ns = min((one.latest_ns + 1 for one in line), default=_NEVER_NS)

    def _hold(self, run: QueuedRun) -> None:
        self._held[run.id] = run
        self._lease_runs[run.lease] += 1
        self._weights_bytes[run.requester] += _weight_bytes(run)
        self._held_bytes += _weight_bytes(run)

    def _end(self, run: QueuedRun) -> bool:
        """Let go of a run; False if it had ended before. Whatever is said of a run's end is said behind this."""
        if self._held.get(run.id) is not run:
            return False
        del self._held[run.id]
        _lessen(self._lease_runs, run.lease, 1)
        _lessen(self._weights_bytes, run.requester, _weight_bytes(run))
        self._held_bytes -= _weight_bytes(run)
        return True

    def _withdraw(self, runs: list[QueuedRun]) -> None:
        ended = {run.id for run in runs if self._end(run)}
        if ended:
            self._stand([one for one in self._line if one.run.id not in ended])

    def _who_yields(self, new: QueuedRun) -> list[Waiting] | None:
        """Who makes room: the last runs of whoever holds most; None if that is ``new`` itself."""
        over_bytes = self._held_bytes + _weight_bytes(new) - BATCH_WAITING_BYTES
        if over_bytes <= 0:
            return []
        weights_bytes = Counter(self._weights_bytes)
        weights_bytes[new.requester] += _weight_bytes(new)
        line = [one for one in self._line if not one.again]     # what was begun is not refused
        yielding: list[Waiting] = []
        while over_bytes > 0:
            most = max(weights_bytes, key=lambda peer: (weights_bytes[peer], peer == new.requester, peer))
            theirs = [one for one in line if one.run.requester == most]
            if most == new.requester or not theirs:
                return None
            line.remove(theirs[-1])
            yielding.append(theirs[-1])
            weights_bytes[most] -= _weight_bytes(theirs[-1].run)
            over_bytes -= _weight_bytes(theirs[-1].run)
        return yielding

    def _refuse_late(self, now_ns: int) -> list[Effect]:
        if now_ns < self._late_ns:
            return []
        late = [one for one in self._line if one.latest_ns < now_ns]
        self._withdraw([one.run for one in late])
        return [_late(now_ns, one) for one in late]

    # --- the next batch ------------------------------------------------------

    def _execute(self, now_ns: int) -> list[Effect]:
        """The next batch, if the worker idles and anybody waits."""
        if not self.ready or self._executing is not None or not self._line:
            return []
        order = self._order()
        group = self._group(order[0])
        taken = order[:1]
        if group is not None:
            taken = together(now_ns, order, lambda one: self._group(one) == group, self.curve, self._most_rows)
        self._charge(taken)
        going = {one.seq for one in taken}
        self._stand([one for one in self._line if one.seq not in going])
        if not self._line:
            self._rows_left.clear()                     # what nobody else wanted is held against nobody
        self._batches += 1
        self._executing = taken
        return [ExecuteBatch(self._batches, tuple(one.run for one in taken))]

    def _group(self, one: Waiting) -> object:
        """Equal for runs that may be joined; None for one that goes alone."""
        run = one.run
        if not run.rows or one.again or self.joining is Joining.NOTHING:
            return None
        apart = self.joining is Joining.LEASE or run.lease in self._apart
        return run.form, run.lease if apart else None

    def _order(self) -> list[Waiting]:
        """Who has rows left in this round, by deadline; then the others, who had least too much first."""
        requesters = {one.run.requester for one in self._line}
        if all(self._rows_left[requester] <= 0 for requester in requesters):
            self._begin_round(requesters)
        behind = {requester: max(0, 1 - self._rows_left[requester]) for requester in requesters}
        return sorted(self._line, key=lambda one: behind[one.run.requester])

    def _begin_round(self, requesters: set[PeerKey]) -> None:
        """Rows of one batch for everybody, or of as many as it takes until somebody has some left."""
        batches = 1 + min(-self._rows_left[requester] for requester in requesters) // self._most_rows
        self._rows_left = {
            requester: min(rows + batches * self._most_rows, self._most_rows)
            for requester, rows in self._rows_left.items()
            if rows < 0 or requester in requesters
        }

    def _charge(self, taken: list[Waiting]) -> None:
        """The first pays its rows; company fills room that would be empty, so it overdraws by one batch at most."""
        first, *company = taken
        self._rows_left[first.run.requester] -= first.rows
        for one in company:
            had = self._rows_left[one.run.requester]
            self._rows_left[one.run.requester] = max(had - one.rows, min(had, -self._most_rows))

    def _know(self, requester: PeerKey) -> None:
        """A newcomer has no rows before the next round, so that newcomers cannot prolong this one."""
        if requester not in self._rows_left and len(self._rows_left) >= BATCH_REQUESTERS:
            present = {one.run.requester for one in self._line}
            self._rows_left = {peer: rows for peer, rows in self._rows_left.items() if peer in present}
        self._rows_left.setdefault(requester, 0)

    # --- how a batch ends ----------------------------------------------------

    def _answered(self, batch: list[Waiting], faults: tuple[Fault | None, ...], ran_ns: int) -> list[Effect]:
        if len(faults) != len(batch):
            raise UsageError(f"{len(faults)} answers for a batch of {len(batch)} runs")
        self._executing = None
        if ran_ns and faults == (None,) * len(batch):
            self._measured(self._gauge.note(sum(one.rows for one in batch), ran_ns))
        effects: list[Effect] = []
        for one, fault in zip(batch, faults, strict=True):
            if fault is not None:
                effects += self._fail(one, *fault)
            elif self._end(one.run):
                effects.append(AnswerRun(one.run.id))
        return effects

    def _measured(self, curve: Curve) -> None:
        if curve != self.curve:
            self.curve, self._most_rows = curve, min(curve.best_rows(), self._memory_rows)
            self._stand([waiting(one.run, one.seq, curve, one.again) for one in self._line])

    def _failed(self, batch: list[Waiting], code: str, text: str) -> list[Effect]:
        """Alone, the run failed; in company nobody knows whose inputs did it, so each is tried alone."""
        self._executing = None
        if len(batch) == 1:
            return self._fail(batch[0], code, text)
        if code == MemoryExceeded.code:
            self._memory_rows = max(1, sum(one.rows for one in batch) // 2)
            self._most_rows = min(self._most_rows, self._memory_rows)
        self._enter_again([replace(one, again=True) for one in batch])
        return []

    def _fail(self, one: Waiting, code: str, text: str) -> list[Effect]:
        if one.again:
            self._keep_apart(one.run.lease)             # it spoiled a batch of others
        return [FailRun(one.run.id, code, text)] if self._end(one.run) else []

    def _died(self, code: str, text: str, begun: bool) -> list[Effect]:
        """What was begun is lost, what was not waits on."""
        batch, self._executing, self.ready = self._executing, None, False
        if batch is None:
            return []
        if not begun:
            self._enter_again(batch)
            return []
        if len(batch) == 1:
            return self._fail(batch[0], code, text)
        for one in batch:
            self._keep_apart(one.run.lease)
        lost = f"the worker ended ({code}) while it ran this and {len(batch) - 1} other runs"
        return [effect for one in batch for effect in self._fail(one, WorkerLost.code, lost)]

    def _enter_again(self, members: list[Waiting]) -> None:
        for one in members:
            if self._held.get(one.run.id) is one.run:   # not withdrawn meanwhile
                self._enter(waiting(one.run, one.seq, self.curve, one.again))

    def _keep_apart(self, lease: LeaseId) -> None:
        self._apart[lease] = None
        while len(self._apart) > BATCH_APART:
            self._apart.popitem(last=False)


def _weight_bytes(run: QueuedRun) -> int:
    return max(run.size_bytes, BATCH_RUN_BYTES)


def _lessen(counter: Counter[K], key: K, amount: int) -> None:
    counter[key] -= amount
    if counter[key] == 0:
        del counter[key]


def _full(run: QueuedRun) -> RefuseRun:
    return RefuseRun(run.id, ProviderBusy.code, f"{BATCH_WAITING_BYTES} bytes of runs wait for this model already")


def _late(now_ns: int, one: Waiting) -> Effect:
    left_ms, takes_ms = (one.run.deadline_ns - now_ns) // MILLISECOND_NS, ceil_div(one.alone_ns, MILLISECOND_NS)
    text = f"the run takes {takes_ms} ms here and {left_ms} ms are left"
    return (FailRun if one.again else RefuseRun)(one.run.id, DeadlineExceeded.code, text)
