"""One task from submit to its single end: find a seller, lease, run every unit, get the receipt.

The machine counts units; their bytes stay with the service. A seller that
refuses the lease costs nothing but a try at the next one. One that is lost
while units run costs a moment: what was not accepted goes to the runner-up,
then to whoever a new search finds, as soon as nothing more can come from the
lease before. Each lease has the number of its attempt, so that a late word of
an earlier one is not taken for the present one's.

Invariants
    A task ends exactly once, at the latest at its deadline.
    ``AcceptUnit`` happens at most once per unit, and is durable before the
    result is delivered: from then on this unit is owed to this provider.
    All units that are out are on one lease.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-18 and SCH-20.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from cocoon.core.errors import PeerFault, from_code
from cocoon.core.ids import PeerKey
from cocoon.core.limits import RECEIPT_REPLY_NS, RUNS_IN_FLIGHT, TASK_LEASES_LOST, TASK_SEARCHES
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.scheduler.selection import AllAboveCeiling, NoneFits, Quote, Ranked

#: The lease ended before the unit was begun; it may go to another lease without being run twice.
UNBEGUN_CODES = frozenset({"released", "idle", "draining"})
#: Another seller may do better, as after any fault of this one; anything else would fail there as well. Some of these
#: may be our own failure (our disk, our chain): then the next sellers fail alike, and they are few (PROVIDERS_ASKED).
NEXT_SELLER_CODES = UNBEGUN_CODES | {
    # it cannot be reached, or not now
    "unreachable", "stream_closed", "provider_lost", "unavailable", "busy", "storage_full", "wrong_network",
    # it sells something else, dearer, slower or smaller
    "kind_refused", "model_denied", "bid_expired", "ceiling_exceeded", "limit_exceeded", "memory_exceeded",
    "run_timeout", "deadline_exceeded", "worker_lost",
    # its chain is away, or it takes no money from our lane with it
    "chain_unreachable", "credit_refused", "lane_busy", "lane_closing", "lane_unproven",
    # it says what makes no sense before a run, or asks for a part that the model does not have
    "inputs_mismatch", "run_failed", "run_lost", "not_found",
}
#: A unit's own fault: the other units go on.
UNIT_CODES = frozenset({
    "inputs_mismatch", "limit_exceeded", "run_lost", "run_failed", "dtype_unsupported", "memory_exceeded",
})


@dataclass(frozen=True, slots=True)
class TaskSubmitted(Event):
    """``warm`` is the provider of a lease for this model that is open already; that is attempt 0."""

    warm: PeerKey | None


@dataclass(frozen=True, slots=True)
class SellersRanked(Event):
    """The gathering ended with this verdict; ``asked`` counts the sellers that were asked."""

    verdict: Ranked | NoneFits | AllAboveCeiling
    asked: int


@dataclass(frozen=True, slots=True)
class LeaseOpened(Event):
    """The lease is signed and the model loaded."""

    attempt: int


@dataclass(frozen=True, slots=True)
class LeaseFailed(Event):
    """The lease did not come about, or ended; what was denied on it was told before."""

    attempt: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class UnitArrived(Event):
    """The user handed in the inputs of the next unit."""


@dataclass(frozen=True, slots=True)
class UnitAnswered(Event):
    """A verified result of a unit."""

    unit: int


@dataclass(frozen=True, slots=True)
class UnitDenied(Event):
    """A unit has no result on this lease."""

    attempt: int
    unit: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class ReceiptsSettled(Event):
    """Every accepted unit stands under a verified, countersigned receipt, but for those of providers that were lost."""


@dataclass(frozen=True, slots=True)
class TaskFaulted(Event):
    """The user went away, our disk is full, or the receipt is wrong."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class FindSellers(Effect):
    """Look up sellers and gather their offers."""


@dataclass(frozen=True, slots=True)
class OpenLease(Effect):
    """Propose a lease under this quote."""

    attempt: int
    quote: Quote


@dataclass(frozen=True, slots=True)
class GrantCredit(Effect):
    """Let the user hand in this many more units."""

    count: int


@dataclass(frozen=True, slots=True)
class OrderRun(Effect):
    """Put the unit on the lease of this attempt."""

    attempt: int
    unit: int


@dataclass(frozen=True, slots=True)
class AcceptUnit(Effect):
    """Record that this unit is accepted from this provider, then deliver it."""

    unit: int
    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ReportFailure(Effect):
    """Tell the user that this unit has no result."""

    unit: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class CloseTranche(Effect):
    """Ask each provider for the receipt over what it has answered."""


@dataclass(frozen=True, slots=True)
class EndTask(Effect):
    """The single terminal state; ``code`` is None when every unit was answered, if only by its own failure."""

    code: str | None
    text: str


class Phase(Enum):
    """Where a task stands."""

    NEW = "new"
    FINDING = "looking for a provider"
    LEASING = "agreeing on a lease"
    RUNNING = "running"
    LEAVING = "waiting for the last answers of a provider that is given up"
    SETTLING = "waiting for the receipt"
    ENDED = "ended"


@dataclass(slots=True)
class Task:
    """``units`` is how many there are; they arrive in order as credit is granted."""

    units: int
    deadline_at_ns: int
    phase: Phase = Phase.NEW
    arrived: int = 0
    granted: int = 0
    #: Units without an answer, each with the attempt whose lease it is on; None while it waits for one.
    open_units: dict[int, int | None] = field(default_factory=dict)
    accepted: int = 0
    failed: int = 0
    #: The runner-up, and who came after it.
    sellers: deque[Quote] = field(default_factory=deque)
    #: Who lost a lease of this task, or lied on it: out of this task.
    spurned: set[PeerKey] = field(default_factory=set)
    settle_at_ns: int | None = None
    searches_left: int = TASK_SEARCHES
    leases_lost: int = 0
    #: Code and text by which the present lease is left, and by which the last one was lost.
    leaving: tuple[str, str] = ("", "")
    cause: tuple[str, str] | None = None
    attempt: int = 0
    provider: PeerKey | None = None

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; nothing happens after the end."""
        if self.phase is Phase.ENDED:
            return []
        match event:
            case TaskFaulted(code, text):
                return self._end(code, text)
            case DeadlinePassed():
                return self._late(now_ns)
            case TaskSubmitted() | SellersRanked() | LeaseOpened() | LeaseFailed():
                return self._lease(event)
            case ReceiptsSettled() if self.phase is Phase.SETTLING:
                return self._end(None, f"{self.accepted} units accepted, {self.failed} failed")
        return self._unit(now_ns, event)

    def deadline_ns(self) -> int | None:
        """The task's deadline, or sooner that of the receipt."""
        if self.phase is Phase.ENDED:
            return None
        return min(self.deadline_at_ns, self.settle_at_ns or self.deadline_at_ns)

    def _lease(self, event: Event) -> list[Effect]:
        match event:
            case TaskSubmitted(warm) if self.phase is Phase.NEW:
                self.provider = warm
                self.phase = Phase.FINDING if warm is None else Phase.RUNNING
                return [FindSellers()] if warm is None else self._grant()
            case SellersRanked(Ranked(quotes), _) if self.phase is Phase.FINDING:
                self.sellers = deque(quote for quote in quotes if quote.provider not in self.spurned)
                return self._next_seller() if self.sellers else self._nobody("no_provider", "no other sells it")
            case SellersRanked(AllAboveCeiling(lowest, ceiling), _) if self.phase is Phase.FINDING:
                above = f"the lowest ask is {lowest} nanoton, above the ceiling of {ceiling}"
                return self._nobody("ceiling_exceeded", f"{above}; --max-price {lowest} would take it")
            case SellersRanked(NoneFits(reasons), asked) if self.phase is Phase.FINDING:
                nobody = f"{asked} sellers asked, none answered with an offer"
                return self._nobody("no_provider", "; ".join(reasons) or nobody)
            case LeaseOpened(attempt) if attempt == self.attempt and self.phase is Phase.LEASING:
                self.phase = Phase.RUNNING
                return [*map(self._order, sorted(self.open_units)), *self._grant()]
            case LeaseFailed(attempt, code, text) if attempt == self.attempt:
                return self._lease_failed(code, text)
        return []

    def _lease_failed(self, code: str, text: str) -> list[Effect]:
        match self.phase:
            case Phase.LEASING if _another_may_do(code) and self.sellers:
                return self._next_seller()
            case Phase.LEASING if _another_may_do(code) and self.cause is not None:
                return self._find_again(code, text)     # a runner-up that fails is not the end either
            case Phase.LEASING:
                return self._end(code, text)
            case Phase.RUNNING | Phase.LEAVING:
                self.open_units = dict.fromkeys(self.open_units)    # nothing comes from it any more
                return self._leave(code, text)
            case Phase.SETTLING:
                return self._end("receipt_missing", f"the lease ended before the receipt came: {text}")
        return []

    def _nobody(self, code: str, text: str) -> list[Effect]:
        """No seller; if one was lost before, that is the cause, and not that there is no second one."""
        if self.cause is None:
            return self._end(code, text)
        lost, why = self.cause
        return self._end(lost, f"{why}; and nobody took over: {text}")

    def _next_seller(self) -> list[Effect]:
        quote = self.sellers.popleft()
        self.phase, self.provider = Phase.LEASING, quote.provider
        self.attempt += 1
        return [OpenLease(self.attempt, quote)]

    def _unit(self, now_ns: int, event: Event) -> list[Effect]:
        match event:
            case UnitArrived() if self.arrived < self.granted:
                unit = self.arrived
                self.arrived += 1
                self.open_units[unit] = None
                return [self._order(unit)] if self.phase is Phase.RUNNING else []
            case UnitAnswered(unit) if unit in self.open_units:
                del self.open_units[unit]
                self.accepted += 1
                return [AcceptUnit(unit), *self._grant(), *self._settle(now_ns), *self._move_on()]
            case UnitDenied(attempt, unit, code, text) if self.open_units.get(unit) == attempt:
                return self._denied(now_ns, unit, code, text)
        return []

    def _order(self, unit: int) -> OrderRun:
        self.open_units[unit] = self.attempt
        return OrderRun(self.attempt, unit)

    def _denied(self, now_ns: int, unit: int, code: str, text: str) -> list[Effect]:
        if code in UNIT_CODES:
            del self.open_units[unit]
            self.failed += 1
            return [ReportFailure(unit, code, text), *self._grant(), *self._settle(now_ns), *self._move_on()]
        self.open_units[unit] = None
        return self._leave(code, text)

    def _leave(self, code: str, text: str) -> list[Effect]:
        """Order nothing more on this lease; what is out on it may still come, and is paid for."""
        if not _another_may_do(code):
            return self._end(code, text)
        if self.phase is Phase.RUNNING:
            self.phase, self.leaving = Phase.LEAVING, (code, text)
        return self._move_on()

    def _move_on(self) -> list[Effect]:
        """Another lease for what is not accepted, once nothing is out; no provider keeps the task busy for ever."""
        if self.phase is not Phase.LEAVING or any(on is not None for on in self.open_units.values()):
            return []
        code, text = self.leaving
        if code in UNBEGUN_CODES:
            return self._find_again(code, text)
        if self.provider is not None:
            self.spurned.add(self.provider)
        self.leases_lost += 1
        self.cause = code, text
        if self.leases_lost > TASK_LEASES_LOST:
            return self._end(code, text)
        return self._next_seller() if self.sellers else self._find_again(code, text)

    def _find_again(self, code: str, text: str) -> list[Effect]:
        if self.searches_left == 0:
            return self._end(code, text)
        self.searches_left -= 1
        self.phase = Phase.FINDING
        return [FindSellers()]

    def _grant(self) -> list[Effect]:
        """Keep as many units under way as one lease takes, and as many again waiting."""
        room = 2 * RUNS_IN_FLIGHT - (self.granted - self.accepted - self.failed)
        count = min(room, self.units - self.granted)
        # A credit frame per answered unit would double the local traffic.
        if count <= 0 or (count < RUNS_IN_FLIGHT and self.granted + count < self.units):
            return []
        self.granted += count
        return [GrantCredit(count)]

    def _settle(self, now_ns: int) -> list[Effect]:
        if self.accepted + self.failed < self.units:
            return []
        if self.accepted == 0:
            return self._end(None, f"no unit of {self.units} has a result")
        self.phase = Phase.SETTLING
        self.settle_at_ns = now_ns + RECEIPT_REPLY_NS
        return [CloseTranche()]

    def _late(self, now_ns: int) -> list[Effect]:
        if now_ns >= self.deadline_at_ns:
            done = f"{self.accepted} of {self.units} units were done"
            return self._end("deadline_exceeded", f"the deadline passed while {self.phase.value}; {done}")
        if self.settle_at_ns is not None and now_ns >= self.settle_at_ns:
            return self._end("receipt_missing", "the provider gave no valid receipt in time")
        return []

    def _end(self, code: str | None, text: str) -> list[Effect]:
        self.phase = Phase.ENDED
        self.open_units.clear()
        return [EndTask(code, text)]


def _another_may_do(code: str) -> bool:
    # Else one peer that answers every lease with nonsense, and is cheapest, would end everybody's tasks.
    return code in NEXT_SELLER_CODES or isinstance(from_code(code, ""), PeerFault)
