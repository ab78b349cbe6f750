"""A lease, seen by the requester: deliver the model, number the runs, bound the wait.

Units of several tasks may share one warm lease. Each becomes a run with the
next number; what comes back is matched by number. Heartbeats notice a dead
provider; the deadlines here notice one that lives and does not answer.

Invariants
    A number is used once; at most ``RUNS_IN_FLIGHT`` are unanswered, with ``FLIGHT_BYTES`` of inputs, or one.
    Every ordered unit ends in exactly one ``RunsDelivered`` or ``RunDenied``.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-10 to LEA-15.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.ids import TaskId
from cocoon.core.limits import (
    FLIGHT_BYTES,
    LEASE_IDLE_NS,
    LEASE_REPLY_NS,
    MODEL_FILES,
    MODEL_LOAD_NS,
    MODEL_STALL_NS,
    RUNS_IN_FLIGHT,
    WORKER_START_NS,
)
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.core.values import Value

#: What a provider may take beyond the run's own limit: queueing, two commits, the network.
ANSWER_GRACE_NS = 4 * SECOND_NS


class LeaseAgreed(Event):
    """The provider countersigned."""


class ModelPartAsked(Event):
    """The provider asks for chunks ``first`` to ``first + count`` of a file."""

    file: int
    first: int
    count: int


class ModelProgressed(Event):
    """Another chunk left."""


class ModelPartSent(Event):
    """Those chunks left."""


class ModelReady(Event):
    """The provider holds a session; runs may go."""

    load_us: int


class Run(Value):
    """A unit that a task wants run."""

    task: TaskId
    unit: int
    input_bytes: int


class RunsOrdered(Event):
    """A task wants these units run."""

    runs: tuple[Run, ...]


class ResultsVerified(Event):
    """Results arrived whose statements fit inputs, outputs and lease."""

    numbers: tuple[int, ...]


class RunProgressed(Event):
    """A decoder made another token: the provider is not silent."""


class FailureReceived(Event):
    """The provider says that a run has no result."""

    number: int
    code: str
    text: str


class LeaseLost(Event):
    """Refused, closed by the provider, link gone, or a fault of the provider."""

    code: str
    text: str


class LeaseReleased(Event):
    """This side wants no more of it."""


class OfferModel(Effect):
    """Send the manifest."""


class SendModelPart(Effect):
    """Send the hashes and these chunks."""

    file: int
    first: int
    count: int


class LeaseIsReady(Effect):
    """Tell the waiting tasks."""

    load_us: int


class SendRuns(Effect):
    """Send the units' inputs under the numbers from ``first`` on."""

    first: int
    runs: tuple[Run, ...]


class RunsDelivered(Effect):
    """Give the verified results under these numbers to their tasks."""

    numbers: tuple[int, ...]
    runs: tuple[Run, ...]


class RunDenied(Effect):
    """Tell the task that this unit has no result here."""

    task: TaskId
    unit: int
    code: str
    text: str


class EndPurchase(Effect):
    """Close the link; ``code`` is ``released`` when this side wanted it."""

    code: str
    text: str


class Step(Enum):
    """Where a lease stands on the requester's side."""

    PROPOSED = "waiting for the countersignature"
    SENDING = "sending the model"
    LOADING = "waiting for the model to load"
    READY = "ready"
    ENDED = "ended"


@dataclass(slots=True)
class LeasePurchase:
    """One lease at one provider. ``run_ms`` is the agreed limit of a single run."""

    opened_ns: int
    duration_s: int
    max_runs: int
    run_ms: int
    #: Shorter than the provider's patience, so that it is this side that gives an idle lease back.
    idle_ns: int = LEASE_IDLE_NS // 2
    step: Step = Step.PROPOSED
    quiet_since_ns: int = 0
    parts_asked: int = 0
    next_number: int = 1
    sent: dict[int, Run] = field(default_factory=dict)
    queued: deque[Run] = field(default_factory=deque)
    #: Inputs of those that are sent.
    flight_bytes: int = 0

    def __post_init__(self) -> None:
        self.quiet_since_ns = self.opened_ns

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; after the end an ordered unit is denied at once."""
        match event:
            case RunsOrdered(runs) if self.step is Step.ENDED:
                return [RunDenied(one.task, one.unit, "released", "the lease has ended") for one in runs]
            case _ if self.step is Step.ENDED:
                return []
            case DeadlinePassed():
                return self._late() if now_ns >= self.deadline_ns() else []
            case RunsOrdered(runs):
                return self._ordered(now_ns, runs)
        self.quiet_since_ns = now_ns
        return self._progress(event)

    def _progress(self, event: Event) -> list[Effect]:
        match event:
            case LeaseAgreed() if self.step is Step.PROPOSED:
                self.step = Step.LOADING
                return [OfferModel()]
            case ModelPartAsked(file, first, count) if self.step in (Step.LOADING, Step.SENDING):
                self.parts_asked += 1
                if self.parts_asked > MODEL_FILES:      # once a file; each question costs us an upload
                    return self._end("out_of_order", f"the provider asked {self.parts_asked} times for the model")
                self.step = Step.SENDING
                return [SendModelPart(file, first, count)]
            case ModelPartSent() if self.step is Step.SENDING:
                self.step = Step.LOADING
            case ModelReady(load_us) if self.step is Step.LOADING:
                self.step = Step.READY
                return [LeaseIsReady(load_us), *self._send()]
            case ResultsVerified(numbers):
                known = tuple(number for number in numbers if number in self.sent)
                done = [RunsDelivered(known, tuple(map(self._answered, known)))] if known else []
                return [*done, *self._send()]
            case FailureReceived(number, code, text) if number in self.sent:
                one = self._answered(number)
                return [RunDenied(one.task, one.unit, code, text), *self._send()]
            case LeaseLost(code, text):
                return self._end(code, text)
            case LeaseReleased():
                return self._end("released", "the requester needs it no more")
        return []

    def deadline_ns(self) -> int:
        """The sooner of the lease's end and the patience with the present step."""
        ends_ns = self.opened_ns + self.duration_s * SECOND_NS
        if self.step is Step.ENDED:
            return ends_ns
        match self.step:                                # no table: hashing a step costs as much as all of this
            case Step.PROPOSED:
                patience_ns = LEASE_REPLY_NS
            case Step.SENDING:
                patience_ns = MODEL_STALL_NS
            case Step.LOADING:                          # the provider's own limit comes first and says what was wrong
                patience_ns = MODEL_LOAD_NS + WORKER_START_NS + ANSWER_GRACE_NS
            case _:
                patience_ns = self.run_ms * MILLISECOND_NS + ANSWER_GRACE_NS if self.sent else self.idle_ns
        return min(ends_ns, self.quiet_since_ns + patience_ns)

    @property
    def exhausted(self) -> bool:
        """No number is left; a new unit needs a new lease."""
        return self.next_number + len(self.queued) > self.max_runs

    def _ordered(self, now_ns: int, runs: Sequence[Run]) -> list[Effect]:
        if not self.sent and not self.queued:
            self.quiet_since_ns = now_ns
        left = max(0, self.max_runs - self.next_number + 1 - len(self.queued))
        self.queued.extend(runs[:left])
        spent = [RunDenied(one.task, one.unit, "released", "no run is left on this lease") for one in runs[left:]]
        return [*spent, *self._send()]

    def _answered(self, number: int) -> Run:
        one = self.sent.pop(number)
        self.flight_bytes -= one.input_bytes
        return one

    def _send(self) -> list[Effect]:
        first, going = self.next_number, []
        while self.step is Step.READY and self.queued and self._has_room(self.queued[0]):
            one = self.sent[self.next_number] = self.queued.popleft()
            self.flight_bytes += one.input_bytes
            self.next_number += 1
            going.append(one)
        return [SendRuns(first, tuple(going))] if going else []

    def _has_room(self, one: Run) -> bool:
        is_light = not self.sent or self.flight_bytes + one.input_bytes <= FLIGHT_BYTES
        return len(self.sent) < RUNS_IN_FLIGHT and is_light

    def _late(self) -> list[Effect]:
        if self.step is Step.READY and not self.sent:
            return self._end("released", "idle")
        return self._end("provider_lost", f"the provider is silent while {self._waiting_for()}")

    def _waiting_for(self) -> str:
        return f"run {min(self.sent)} is out" if self.step is Step.READY else f"this side is {self.step.value}"

    def _end(self, code: str, text: str) -> list[Effect]:
        self.step = Step.ENDED
        lost = [*self.sent.values(), *self.queued]
        self.sent.clear()
        self.queued.clear()
        self.flight_bytes = 0
        return [*(RunDenied(one.task, one.unit, code, text) for one in lost), EndPurchase(code, text)]
