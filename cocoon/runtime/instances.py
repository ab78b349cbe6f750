"""Instances: a model in a worker, and the leases that run it.

A lease has the worker for itself while there are cores for another one. Then those of
one public model share: the batcher says whose runs go next, and together; a decoder steps the
sequences of all. A lease that never had company talks to its worker without a detour.

A lease whose run kills a worker that it shares ends, as it would alone. The others wait
until the next worker has loaded the model; runs that had not begun are executed there.

Purity: shell. Never imports numpy, onnx or onnxruntime (RUN-2).
Spec: docs/spec/batching.md, rules JOI-1 to JOI-16; runtime.md, rules RUN-34 to RUN-36.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cocoon.core.alarms import Alarm
from cocoon.core.errors import CocoonError, UsageError, from_code
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import SHARED_PATIENCE_NS
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.turns import Turn
from cocoon.core.units import MICROSECOND_NS, SECOND_NS
from cocoon.core.values import Value, replace
from cocoon.runtime.batching import (
    AnswerRun,
    BatchAnswered,
    Batcher,
    BatchFailed,
    ExecuteBatch,
    FailRun,
    LeaseEnded,
    RefuseRun,
    RunsQueued,
    RunWithdrawn,
    WorkerDied,
    WorkerReady,
)
from cocoon.runtime.chorus import Chorus
from cocoon.runtime.company import Forms, Joining, QueuedRun, RunId
from cocoon.runtime.process import Answer, LoadReport, RunReport, TurnReport, Worker, WorkerLimits

#: What became of a run: its outputs, or why it has none.
Ran = RunReport | Answer | CocoonError


class Wanted(Value):
    """What a lease wants loaded. Leases that want the same may share.

    Attributes:
        model: Its id; None for one that is shared with nobody.
        pieces_file, tolerance: As ``Worker.load`` takes them.
        joining: Whose runs may go together.
    """

    model: bytes | None
    limits: WorkerLimits
    model_file: Path
    pieces_file: Path | None = None
    tolerance: tuple[int, int] | None = (0, 0)
    joining: Joining = Joining.LEASE


@dataclass(slots=True, eq=False)
class _Call:
    """Runs that one lease waits for."""

    outcomes: dict[RunId, Ran | None]
    #: How many are not over.
    left: int
    done: trio.Event = field(default_factory=trio.Event)
    #: Why the lease cannot go on.
    error: CocoonError | None = None

    def end(self, run: RunId, outcome: Ran) -> None:
        """One of them is over."""
        self.outcomes[run] = outcome
        self.left -= 1
        if not self.left:
            self.done.set()


class Instance:
    """One model in one worker, or in the next one after that died."""

    def __init__(
        self, wanted: Wanted, nursery: trio.Nursery, take: Callable[[], Awaitable[Worker]], blame: Callable[[], None]
    ) -> None:
        """
        Args:
            nursery: Of the runtime: what goes on for one lease must not end with another.
            take: Gives a started worker without a model.
            blame: Called when a worker died that several leases shared.
        """
        self.wanted = wanted
        self.leases: set[LeaseId] = set()
        #: Of these, those whose runs killed a worker: nothing more is run for them.
        self.lost: set[LeaseId] = set()
        #: On the monotonic clock, if it is kept for whoever comes next.
        self.idle_since_ns: int | None = None
        self._nursery = nursery
        self._take = take
        self._blame = blame
        self._worker: Worker | None = None
        self._opening, self._singing = trio.CancelScope(), trio.CancelScope()
        self._loaded = trio.Event()
        self._report: LoadReport | None = None
        self._broken: CocoonError | None = None
        self._turn = Turn()
        #: From the second lease on.
        self._batcher: Batcher | None = None
        self._payloads: dict[RunId, bytes] = {}
        self._calls: dict[RunId, _Call] = {}
        self._answers: dict[RunId, Answer] = {}
        self._forms = Forms()
        #: Tells the batcher that time has passed.
        self._alarm = Alarm(lambda: nursery.start_soon(self._pass_time))
        #: Of a decoder.
        self._chorus = Chorus()
        nursery.start_soon(self._open)

    @property
    def broken(self) -> bool:
        """No worker of it will ever run anything any more."""
        return self._broken is not None

    @property
    def idle(self) -> bool:
        """It could run, and nobody wants it to."""
        is_up = self._report is not None and self._worker is not None and self._worker.alive
        return is_up and not self.leases and not self.broken

    def join(self, lease: LeaseId) -> None:
        """One lease more."""
        self.idle_since_ns = None
        self.leases.add(lease)
        if len(self.leases) > 1 and self._batcher is None and self.wanted.pieces_file is None:
            self._batcher = Batcher(self.wanted.joining)
            if self._report is not None:
                self._tell(WorkerReady())

    def leave(self, lease: LeaseId) -> None:
        """One less."""
        self.leases.discard(lease)
        self.lost.discard(lease)
        self._chorus.leave(lease)
        if self._batcher is not None:
            self._tell(LeaseEnded(lease))

    def be_still(self) -> None:
        """Time passes here no more: the runtime is about to end, and nothing may begin in its nursery then."""
        self._alarm.end()

    async def close(self) -> None:
        """Kill the worker; nothing is run here any more."""
        self.be_still()
        for scope in (self._opening, self._singing):
            scope.cancel()
        self._broken = self._broken or UsageError("nobody runs this model any more")
        if self._worker is not None:
            await self._worker.close()

    async def ready(self) -> int:
        """Wait until the model is loaded; microseconds that it took, 0 if it was there.

        Raises:
            CocoonError: as ``Worker.load``, and what kept a worker from starting.
        """
        was_there = self._loaded.is_set()
        await self._loaded.wait()
        if self._broken is not None:
            raise from_code(self._broken.code, self._broken.text)
        return 0 if was_there or self._report is None else self._report.load_us

    async def run_all(
        self, lease: LeaseId, requester: PeerKey, numbers: Sequence[int], payloads: Sequence[bytes]
    ) -> Sequence[Ran]:
        """As ``Worker.run_all``; a lease that is ``lost`` by it gets its error alone."""
        if self._broken is not None:
            raise from_code(self._broken.code, self._broken.text)
        if self._batcher is not None:
            return await self._share(lease, requester, numbers, payloads)
        worker = self._worker
        assert worker is not None                       # a lease runs nothing before it is loaded
        try:
            async with self._turn:
                return await worker.run_all(payloads)
        except CocoonError:
            if not worker.alive:
                self.lost.add(lease)
            raise

    async def turn(self, lease: LeaseId, asked: Sequence[tuple[int, bytes]], cancelled: Sequence[int]) -> TurnReport:
        """As ``Worker.turn``, for the sequences of this lease alone."""
        if self._broken is not None:
            raise from_code(self._broken.code, self._broken.text)
        return await self._chorus.turn(lease, asked, cancelled)

    # --- one lease among several ---------------------------------------------------

    async def _share(
        self, lease: LeaseId, requester: PeerKey, numbers: Sequence[int], payloads: Sequence[bytes]
    ) -> Sequence[Ran]:
        limit_ns = time.monotonic_ns() + self.wanted.limits.run_ns + SHARED_PATIENCE_NS
        runs = [
            QueuedRun(lease, number, requester, *self._forms.of(payload), len(payload), limit_ns)
            for number, payload in zip(numbers, payloads, strict=True)
        ]
        call = _Call(dict.fromkeys(run.id for run in runs), len(runs))
        for run, payload in zip(runs, payloads, strict=True):
            self._payloads[run.id], self._calls[run.id] = payload, call
        try:
            self._tell(RunsQueued(tuple(runs)))
            await call.done.wait()
        finally:
            for run in runs:
                if self._calls.pop(run.id, None) is not None and not call.done.is_set():
                    self._tell(RunWithdrawn(run.id))
                self._payloads.pop(run.id, None)
                self._answers.pop(run.id, None)
        if call.error is not None:
            self.lost.add(lease)
            raise from_code(call.error.code, call.error.text)
        return [outcome for outcome in call.outcomes.values() if outcome is not None]

    def _tell(self, event: Event) -> None:
        assert self._batcher is not None                # nobody tells it anything before a second lease came
        for effect in self._batcher.handle(time.monotonic_ns(), event):
            self._perform(effect)
        # What is late is refused; a time that moved back is noticed when the old one comes.
        if (due_ns := self._batcher.deadline_ns()) is not None:
            self._alarm.set(trio.current_time() + (due_ns - time.monotonic_ns()) / SECOND_NS)
        else:
            self._alarm.off()

    async def _pass_time(self) -> None:
        if not self.broken:
            self._tell(DeadlinePassed())

    def _perform(self, effect: Effect) -> None:
        match effect:
            case ExecuteBatch():
                self._nursery.start_soon(self._execute, effect)
            case AnswerRun(run):
                self._end(run, self._answers.pop(run))
            case FailRun(run, code, text) | RefuseRun(run, code, text):
                self._end(run, from_code(code, text))

    def _end(self, run: RunId, outcome: Ran) -> None:
        if (call := self._calls.get(run)) is not None:
            call.end(run, outcome)

    async def _execute(self, batch: ExecuteBatch) -> None:
        """Have the worker run these, and tell what became of them."""
        has_begun, worker = False, self._worker
        assert worker is not None                       # the batcher waits for WorkerReady
        try:
            async with self._turn:                      # the only lease of before may still have a run there
                has_begun = worker.alive
                outcomes = await self._outcomes(worker, batch.runs)
        except CocoonError as error:
            if worker.alive:
                self._tell(BatchFailed(batch.batch, error.code, error.text))
            else:
                self._lose(batch, error, has_begun=has_begun)
            return
        self._answers |= {
            run.id: outcome for run, outcome in zip(batch.runs, outcomes, strict=True)
            if isinstance(outcome, Answer) and run.id in self._calls
        }
        faults = tuple((one.code, one.text) if isinstance(one, CocoonError) else None for one in outcomes)
        ran_us = sum(outcome.ran_us for outcome in outcomes if isinstance(outcome, Answer))
        self._tell(BatchAnswered(batch.batch, faults, ran_us * MICROSECOND_NS))

    async def _outcomes(self, worker: Worker, runs: Sequence[QueuedRun]) -> list[Answer | CocoonError]:
        """Of all of them, copied: the next order writes over what lies in shared memory."""
        payloads = [self._payloads.get(run.id, b"") for run in runs]    # a lease that has gone runs nothing of worth
        outcomes: list[Answer | CocoonError] = []
        while len(outcomes) < len(payloads):
            outcomes += map(_copied, await worker.run_all(payloads[len(outcomes) :]))
        return outcomes

    def _lose(self, batch: ExecuteBatch, error: CocoonError, *, has_begun: bool) -> None:
        """The worker is gone; a lease that was alone in it goes too."""
        if has_begun and len({run.lease for run in batch.runs}) == 1:
            for run in batch.runs:
                if (call := self._calls.get(run.id)) is not None:
                    call.error = error
        self._reopen()
        self._tell(WorkerDied(error.code, error.text, has_begun))

    # --- the worker ------------------------------------------------------------------

    def _reopen(self) -> None:
        """Another worker for those that are left, which goes on more carefully."""
        self._blame()
        self._report, self.wanted = None, replace(self.wanted, tolerance=None)
        self._nursery.start_soon(self._open)

    async def _open(self) -> None:
        """Take a worker and load the model; whoever waits hears why if that fails."""
        if not self.leases:
            return
        wanted = self.wanted
        try:
            with trio.CancelScope() as self._opening:
                self._worker = worker = await self._take()
                self._report = await worker.load(wanted.model_file, wanted.pieces_file, wanted.tolerance)
        except CocoonError as error:
            self._broken = error
            for call in set(self._calls.values()):
                call.error = error
                call.done.set()
            self._chorus.fail(error, all_wait=False)
        self._loaded.set()
        if self._report is not None:
            if wanted.pieces_file is not None:
                self._nursery.start_soon(self._sing, worker)
            elif self._batcher is not None:
                self._tell(WorkerReady())

    async def _sing(self, worker: Worker) -> None:
        """Have a decoder take turns, until it is gone; then the next one, for leases that did not lose it alone."""
        if not self.leases:
            return
        try:
            with trio.CancelScope() as self._singing:
                await self._chorus.run(worker.turn)
            return                                      # the last lease has left
        except CocoonError as error:
            hit = self._chorus.fail(error, all_wait=True)
        await worker.close()
        if len(hit) == 1:
            self.lost |= hit
        if self.leases - self.lost:
            self._reopen()


@dataclass(slots=True, eq=False)
class Seat:
    """A lease's part in an instance; the caller's to close."""

    instance: Instance
    lease: LeaseId
    requester: PeerKey
    load_us: int
    give_back: Callable[[Instance, LeaseId], Awaitable[None]]

    @property
    def alive(self) -> bool:
        """Whether it can run anything more."""
        return self.lease not in self.instance.lost and not self.instance.broken

    async def run_all(self, numbers: Sequence[int], payloads: Sequence[bytes]) -> Sequence[Ran]:
        """Run the model on each of these, in order; what became of each, or of the first ones.

        Args:
            numbers: Of the runs, as their lease counts.

        Raises:
            RunTimeout, WorkerLost, LimitExceeded: as ``Worker.run_all``; unless ``alive``, nothing follows.
        """
        return await self.instance.run_all(self.lease, self.requester, numbers, payloads)

    async def turn(self, asked: Sequence[tuple[int, bytes]], cancelled: Sequence[int] = ()) -> TurnReport:
        """As ``Worker.turn``, for sequences with the numbers of this lease."""
        return await self.instance.turn(self.lease, asked, cancelled)

    async def close(self) -> None:
        """Give it back. Safe to repeat."""
        await self.give_back(self.instance, self.lease)


def _copied(ran: RunReport | CocoonError) -> Answer | CocoonError:
    return ran if isinstance(ran, CocoonError) else Answer(bytes(ran.outputs), ran.ran_us, ran.joined, ran.place)
