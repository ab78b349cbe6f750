"""One task from submit to its single end: find a seller, lease, run every unit, get the receipt.

The machine counts units; their bytes stay with the service. A seller that
refuses the lease costs nothing but a try at the next one. Once units run, a
lost provider ends the task (the runner-up comes with the auction).

Invariants
    A task ends exactly once, at the latest at its deadline.
    ``AcceptUnit`` happens at most once per unit, and is durable before the
    result is delivered: from then on this unit is owed to this provider.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-18.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from cocoon.core.errors import PeerFault, from_code
from cocoon.core.limits import RECEIPT_REPLY_NS, RUNS_IN_FLIGHT, TASK_SEARCHES
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
    "kind_refused", "ceiling_exceeded", "limit_exceeded", "memory_exceeded", "run_timeout", "deadline_exceeded",
    "worker_lost",
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
    """``warm`` says that a lease for this model is open already."""

    warm: bool


@dataclass(frozen=True, slots=True)
class SellersRanked(Event):
    """The gathering ended with this verdict; ``asked`` counts the sellers that were asked."""

    verdict: Ranked | NoneFits | AllAboveCeiling
    asked: int


@dataclass(frozen=True, slots=True)
class LeaseOpened(Event):
    """The lease is signed and the model loaded."""


@dataclass(frozen=True, slots=True)
class LeaseFailed(Event):
    """The lease did not come about, or ended."""

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

    unit: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class ReceiptsSettled(Event):
    """Every accepted unit of this task stands under a verified, countersigned receipt."""


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

    quote: Quote


@dataclass(frozen=True, slots=True)
class GrantCredit(Effect):
    """Let the user hand in this many more units."""

    count: int


@dataclass(frozen=True, slots=True)
class OrderRun(Effect):
    """Put the unit on the lease."""

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
    """Ask the provider for the receipt over what it has answered."""


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
    open_units: set[int] = field(default_factory=set)
    postponed: deque[int] = field(default_factory=deque)
    accepted: int = 0
    failed: int = 0
    sellers: deque[Quote] = field(default_factory=deque)
    settle_at_ns: int | None = None
    searches_left: int = TASK_SEARCHES

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
                self.phase = Phase.RUNNING if warm else Phase.FINDING
                return self._grant() if warm else [FindSellers()]
            case SellersRanked(Ranked(quotes), _) if self.phase is Phase.FINDING:
                self.sellers = deque(quotes)
                self.phase = Phase.LEASING
                return [OpenLease(self.sellers.popleft())]
            case SellersRanked(AllAboveCeiling(lowest, ceiling), _) if self.phase is Phase.FINDING:
                above = f"the lowest ask is {lowest} nanoton, above the ceiling of {ceiling}"
                return self._end("ceiling_exceeded", f"{above}; --max-price {lowest} would take it")
            case SellersRanked(NoneFits(reasons), asked) if self.phase is Phase.FINDING:
                nobody = f"{asked} sellers asked, none answered with an offer"
                return self._end("no_provider", "; ".join(reasons) or nobody)
            case LeaseOpened() if self.phase is Phase.LEASING:
                self.phase = Phase.RUNNING
                postponed = [OrderRun(unit) for unit in self.postponed]
                self.postponed.clear()
                return [*postponed, *self._grant()]
            case LeaseFailed(code, text) if self.phase is Phase.LEASING:
                if self.sellers and _another_may_do(code):
                    return [OpenLease(self.sellers.popleft())]
                return self._end(code, text)
            case LeaseFailed(code, text) if self.phase is Phase.RUNNING and code in UNBEGUN_CODES:
                return self._find_again(code, text)
            case LeaseFailed(code, text) if self.phase is Phase.RUNNING:
                return self._end(code, text)
            case LeaseFailed(code, text) if self.phase is Phase.SETTLING:
                return self._end("receipt_missing", f"the lease ended before the receipt came: {text}")
        return []

    def _unit(self, now_ns: int, event: Event) -> list[Effect]:
        match event:
            case UnitArrived() if self.arrived < self.granted:
                unit = self.arrived
                self.arrived += 1
                self.open_units.add(unit)
                if self.phase is Phase.RUNNING:
                    return [OrderRun(unit)]
                self.postponed.append(unit)
            case UnitAnswered(unit) if unit in self.open_units:
                self.open_units.discard(unit)
                self.accepted += 1
                return [AcceptUnit(unit), *self._grant(), *self._settle(now_ns)]
            case UnitDenied(unit, code, text) if unit in self.open_units and code in UNBEGUN_CODES:
                self.postponed.append(unit)
                return self._find_again(code, text) if self.phase is Phase.RUNNING else []
            case UnitDenied(unit, code, text) if unit in self.open_units and code in UNIT_CODES:
                self.open_units.discard(unit)
                self.failed += 1
                return [ReportFailure(unit, code, text), *self._grant(), *self._settle(now_ns)]
            case UnitDenied(unit, code, text) if unit in self.open_units:
                return self._end(code, text)
        return []

    def _find_again(self, code: str, text: str) -> list[Effect]:
        """Look for another lease; a provider that gives every lease back must not keep the task busy."""
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
        self.postponed.clear()
        return [EndTask(code, text)]


def _another_may_do(code: str) -> bool:
    # Else one peer that answers every lease with nonsense, and is cheapest, would end everybody's tasks.
    return code in NEXT_SELLER_CODES or isinstance(from_code(code, ""), PeerFault)
