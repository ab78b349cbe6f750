"""A lease, seen by the provider: get the model, run what is asked, once each.

Runs are numbered by the requester in rising order, so one number tells which
runs may ever have been begun: it is recorded ahead of them, as far as there were
any, so that a busy lease hardly ever waits for the disk. A run up to it is answered
with ``run_lost`` after a crash, and never executed again.

Invariants
    A run number is started at most once, over all restarts.
    One batch of runs is with the worker, at most ``BATCH_RUNS``, or ``LEASE_SEQUENCES`` of a decoder.
    At most ``RUNS_IN_FLIGHT`` wait, with ``FLIGHT_BYTES`` of inputs, or one.
    ``StartRuns`` names only numbers up to one that is durable.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-1 to LEA-9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import ClassVar

from cocoon.core.limits import (
    BATCH_RUNS,
    FLIGHT_BYTES,
    LEASE_IDLE_NS,
    LEASE_SEQUENCES,
    MODEL_LOAD_NS,
    MODEL_STALL_NS,
    RUNS_IN_FLIGHT,
    RUNS_RESERVED,
    WORKER_START_NS,
)
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS


class ModelNamed(Event):
    """The requester sent the manifest.

    Attributes:
        held: Its files are here already.
        speaks: It is a decoder, whose runs go on beside each other.
    """

    held: bool
    speaks: bool = False


class ModelProgressed(Event):
    """Another verified chunk arrived."""


class ModelFetched(Event):
    """Every chunk is here and verified."""


class ModelLoaded(Event):
    """A worker holds the session; ``load_us`` is what it took, in microseconds."""

    load_us: int


class RunsRequested(Event):
    """The requester asks for runs: the number of each, and how long its inputs are."""

    runs: tuple[tuple[int, int], ...]


class RunsFinished(Event):
    """The worker answered these runs; their statements are made. Ascending."""

    numbers: tuple[int, ...]


class RunBroke(Event):
    """The run has no outputs; ``worker_lost`` says that the worker process is gone too."""

    number: int
    code: str
    text: str
    worker_lost: bool


class LeaseBroke(Event):
    """The lease cannot go on: bad model, lost link, closed by the requester, draining."""

    code: str
    text: str


class DrainAsked(Event):
    """The provider shuts down: what is under way is finished, nothing new is begun."""


class FetchModel(Effect):
    """Ask the requester for the model's chunks."""


class LoadModel(Effect):
    """Start a worker with the model."""


class SayReady(Effect):
    """Tell the requester that runs may come."""

    load_us: int


class ReserveRuns(Effect):
    """Record that runs up to this number may have been begun."""

    through: int
    durable: ClassVar[bool] = True


class StartRuns(Effect):
    """Give these runs to the worker, together; ascending. All that waited: nothing waits for company.

    Those of a decoder join what runs already.
    """

    numbers: tuple[int, ...]


class AnswerRuns(Effect):
    """Send outputs and statement of each of these runs, in this order."""

    numbers: tuple[int, ...]
    durable: ClassVar[bool] = True


class FailRun(Effect):
    """Tell the requester that run ``number`` has no result, and why."""

    number: int
    code: str
    text: str


class EndSale(Effect):
    """Close the link, stop the worker, delete a private model."""

    code: str
    text: str


class Stage(Enum):
    """Where a lease stands on the provider's side."""

    NAMED = "waiting for the manifest"
    FETCHING = "receiving the model"
    LOADING = "loading the model"
    READY = "ready"
    ENDED = "ended"


@dataclass(slots=True)
class LeaseSale:
    """One lease of one requester; ``highest`` is the last number that was asked for, or may have been begun before."""

    opened_ns: int
    duration_s: int
    max_runs: int
    idle_ns: int = LEASE_IDLE_NS
    highest: int = 0
    #: Numbers up to this one are recorded as begun.
    reserved: int = field(init=False)
    stage: Stage = Stage.NAMED
    quiet_since_ns: int = 0
    running: set[int] = field(default_factory=set)
    #: By rising number, with the length of the inputs.
    waiting: dict[int, int] = field(default_factory=dict)
    waiting_bytes: int = 0
    draining: bool = False
    speaks: bool = False

    def __post_init__(self) -> None:
        self.quiet_since_ns = self.opened_ns
        self.reserved = self.highest

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; nothing happens after the end."""
        if self.stage is Stage.ENDED:
            return []
        if not isinstance(event, DeadlinePassed):
            self.quiet_since_ns = now_ns
        match event:
            case ModelNamed(held, speaks) if self.stage is Stage.NAMED:
                self.speaks = speaks
                self.stage = Stage.LOADING if held else Stage.FETCHING
                return [LoadModel() if held else FetchModel()]
            case ModelFetched() if self.stage is Stage.FETCHING:
                self.stage = Stage.LOADING
                return [LoadModel()]
            case ModelLoaded(load_us) if self.stage is Stage.LOADING:
                self.stage = Stage.READY
                return [SayReady(load_us)]
            case RunsRequested(runs):
                refused = [refusal for number, input_bytes in runs for refusal in self._requested(number, input_bytes)]
                return [*refused, *self._next()]
            case RunsFinished(numbers):
                finished = tuple(number for number in numbers if number in self.running)
                self.running.difference_update(finished)
                answers = [AnswerRuns(finished)] if finished else []
                going = self._next()
                # What can begin does not wait until the answers are recorded; the end does.
                is_end = any(isinstance(effect, EndSale) for effect in going)
                return [*answers, *going] if is_end else [*going, *answers]
            case RunBroke(number, code, text, worker_lost) if number in self.running:
                self.running.discard(number)
                return [FailRun(number, code, text), *(self._end(code, text) if worker_lost else self._next())]
            case DrainAsked():
                self.draining = True
                return self._next()
            case LeaseBroke(code, text):
                return self._end(code, text)
            case DeadlinePassed() if now_ns >= self.deadline_ns():
                return self._late(now_ns)
        return []

    def deadline_ns(self) -> int:
        """The sooner of the lease's end and the patience of its stage."""
        patience_ns = self.idle_ns if self.stage is Stage.READY else MODEL_STALL_NS
        if self.stage is Stage.LOADING:                 # the worker's own limit comes first and says what was wrong
            patience_ns = WORKER_START_NS + MODEL_LOAD_NS
        ends_ns = self.opened_ns + self.duration_s * SECOND_NS
        # A running model has its own limit in the worker's supervisor.
        return ends_ns if self.running else min(ends_ns, self.quiet_since_ns + patience_ns)

    def _requested(self, number: int, input_bytes: int) -> list[Effect]:
        """Let it wait for its turn, or say why it has none."""
        if self.stage is not Stage.READY:
            return [FailRun(number, "out_of_order", "the model is not ready")]
        if number in self.running or number in self.waiting:
            return []                                   # asked again while it is under way
        if not 1 <= number <= self.max_runs:
            return [FailRun(number, "limit_exceeded", f"the lease holds runs 1 to {self.max_runs}")]
        if number <= self.highest:
            return [FailRun(number, "run_lost", f"run {number} was begun before and is never executed twice")]
        if len(self.waiting) >= RUNS_IN_FLIGHT:
            return [FailRun(number, "limit_exceeded", f"{RUNS_IN_FLIGHT} runs wait already")]
        if self.waiting_bytes and self.waiting_bytes + input_bytes > FLIGHT_BYTES:
            return [FailRun(number, "limit_exceeded", f"runs with {self.waiting_bytes} bytes of inputs wait already")]
        self.waiting[number] = input_bytes
        self.waiting_bytes += input_bytes
        self.highest = number
        return []

    def _next(self) -> list[Effect]:
        if (room := self._room()) <= 0:
            return []
        if self.waiting:
            batch = tuple(islice(self.waiting, room))
            self.waiting_bytes -= sum(map(self.waiting.pop, batch))
            self.running.update(batch)
            return self._start(batch)
        return self._end("draining", "the provider is shutting down") if self.draining and not self.running else []

    def _start(self, batch: tuple[int, ...]) -> list[Effect]:
        """Reserve as many numbers ahead as there were: before these begin if need be, or while they run."""
        last, ahead = batch[-1], min(batch[-1], RUNS_RESERVED)
        if self.reserved == self.max_runs or self.reserved - last >= ahead // 2:
            return [StartRuns(batch)]
        is_due, self.reserved = last > self.reserved, min(last + ahead - 1, self.max_runs)
        reserve = ReserveRuns(self.reserved)
        return [reserve, StartRuns(batch)] if is_due else [StartRuns(batch), reserve]

    def _room(self) -> int:
        """How many runs may begin now."""
        if self.speaks:
            return LEASE_SEQUENCES - len(self.running)
        return 0 if self.running else BATCH_RUNS

    def _late(self, now_ns: int) -> list[Effect]:
        if now_ns >= self.opened_ns + self.duration_s * SECOND_NS:
            return self._end("deadline_exceeded", f"the lease of {self.duration_s} s is over")
        if self.stage is Stage.READY:
            return self._end("idle", f"no run for {self.idle_ns // SECOND_NS} s")
        return self._end("deadline_exceeded", f"no progress while {self.stage.value}")

    def _end(self, code: str, text: str) -> list[Effect]:
        self.stage = Stage.ENDED
        self.running.clear()
        self.waiting.clear()
        self.waiting_bytes = 0
        return [EndSale(code, text)]
