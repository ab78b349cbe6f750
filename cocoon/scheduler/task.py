"""One task from submit to its single end: find sellers, lease, run every unit, get the receipts.

The machine counts units; their bytes stay with the service. A task is on up to
``spread`` leases at a time, each an attempt with a number of its own, so that a
late word of one is not taken for another's. Units are handed out one by one as
leases have room, so who is faster gets more. A seller that refuses a lease costs
nothing but a try at the next one. One that is lost while units run costs a
moment: what was not accepted goes to the other leases, and to the runner-up or
to whoever a new search finds.

Invariants
    A task ends exactly once, at the latest at its deadline.
    ``AcceptUnits`` names a unit at most once, and is durable before the
    result is delivered: from then on this unit is owed to this provider.
    A unit is out on one lease at a time, and accepted from no other.
    What was accepted, and all that is out on all leases, costs no more than the ceiling.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-11 to SCH-20 and SCH-24 to SCH-28.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from cocoon.core.errors import PeerFault, from_code
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import RECEIPT_REPLY_NS, TASK_LEASES_LOST, TASK_SEARCHES
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.values import Value
from cocoon.scheduler.attempts import Attempt, Attempts, Step
from cocoon.scheduler.selection import AllAboveCeiling, Missed, NoneFits, Quote, Ranked
from cocoon.scheduler.spending import LeasePrice

#: The lease ended before the unit was begun; it may go to another lease without being run twice.
UNBEGUN_CODES = frozenset({"released", "idle", "draining"})
#: Another seller may do better, as after any fault of this one; anything else would fail there as well. Some of these
#: may be our own failure (our disk, our chain): then the next sellers fail alike, and they are few (PROVIDERS_ASKED).
NEXT_SELLER_CODES = UNBEGUN_CODES | {
    # it cannot be reached, or not now
    "unreachable", "stream_closed", "provider_lost", "unavailable", "busy", "storage_full", "wrong_network",
    # it sells something else, dearer, slower or smaller
    "kind_refused", "below_cost", "model_denied", "licence_refused", "bid_expired", "ceiling_exceeded",
    "limit_exceeded", "memory_exceeded", "run_timeout", "deadline_exceeded", "worker_lost",
    # its chain is away, or it takes no money from our lane with it
    "chain_unreachable", "credit_refused", "lane_busy", "lane_closing", "lane_unproven",
    # it says what makes no sense before a run, or asks for a part that the model does not have
    "inputs_mismatch", "run_failed", "run_lost", "not_found",
}
#: A seller said nothing, or was not there to say it.
SILENCE_CODES = frozenset({"unreachable", "stream_closed", "provider_lost"})
#: A unit's own fault: the other units go on.
UNIT_CODES = frozenset({
    "inputs_mismatch", "limit_exceeded", "run_lost", "run_failed", "dtype_unsupported", "memory_exceeded",
})


class WarmLease(Value):
    """A lease for the task's model that is open already."""

    provider: PeerKey
    price: LeasePrice


class TaskSubmitted(Event):
    """``warm`` are leases that take its units, the best first and of different providers: attempts 0, 1 and so on."""

    warm: tuple[WarmLease, ...] = ()


class SellersRanked(Event):
    """The auction ended with this verdict.

    Attributes:
        ceiling_nanoton: What the whole task may cost, if that is known by now.
        missed: Who was called and made no bid.
    """

    verdict: Ranked | NoneFits | AllAboveCeiling
    ceiling_nanoton: int | None = None
    missed: tuple[Missed, ...] = ()


class LeaseOpened(Event):
    """The lease is signed and the model loaded; ``price`` if others of our tasks are on it already."""

    attempt: int
    price: LeasePrice | None = None


class LeaseFailed(Event):
    """The lease did not come about, or ended; what was denied on it was told before."""

    attempt: int
    code: str
    text: str


class UnitsArrived(Event):
    """The user handed in the inputs of the next units."""

    count: int = 1


class UnitsEnded(Event):
    """The user hands in no more."""


class UnitsAnswered(Event):
    """Verified results of units, and what each costs."""

    attempt: int
    units: tuple[int, ...]
    prices_nanoton: tuple[int, ...]


class UnitSpoke(Event):
    """A decoder made a token of a unit: its place from 1, its id, and the running hash."""

    attempt: int
    unit: int
    place: int
    token: int
    head: bytes


class UnitDenied(Event):
    """A unit has no result on this lease."""

    attempt: int
    unit: int
    code: str
    text: str


class ReceiptsSettled(Event):
    """Every accepted unit stands under a verified, countersigned receipt, but for those of providers that were lost."""


class TaskFaulted(Event):
    """The user went away, our disk is full, or the receipt is wrong."""

    code: str
    text: str


class FindSellers(Effect):
    """Look up sellers and gather their offers."""


class OpenLease(Effect):
    """Propose a lease under this quote, for as many units as have no answer yet."""

    attempt: int
    quote: Quote


class GrantCredit(Effect):
    """Let the user hand in this many more units."""

    count: int


class OrderRuns(Effect):
    """Put these units on the lease of this attempt."""

    attempt: int
    units: tuple[int, ...]


class TellToken(Effect):
    """Show the user a token of a unit that has no result yet."""

    unit: int
    place: int
    token: int
    head: bytes


class AcceptUnits(Effect):
    """Record that these units are accepted from this provider, then deliver them."""

    attempt: int
    units: tuple[int, ...]
    durable: ClassVar[bool] = True


class ReportFailure(Effect):
    """Tell the user that this unit has no result."""

    unit: int
    code: str
    text: str


class CloseTranche(Effect):
    """Ask each provider for the receipt over what it has answered."""


class EndTask(Effect):
    """The single terminal state; ``code`` is None when every unit was answered, if only by its own failure."""

    code: str | None
    text: str


class Phase(Enum):
    """Where a task stands."""

    NEW = "it was submitted"
    OPEN = "units were open"
    SETTLING = "waiting for the receipts"
    ENDED = "ended"


@dataclass(slots=True)
class Task:
    """``units`` is how many there are, or fewer if the user ends; they arrive in order as credit is granted."""

    units: int
    deadline_at_ns: int
    #: The leases of the task, and what they may cost.
    attempts: Attempts = field(default_factory=lambda: Attempts(1, None))
    #: Number of the newest.
    attempt: int = 0
    phase: Phase = Phase.NEW
    arrived: int = 0
    granted: int = 0
    #: Units that arrived and are on no lease.
    waiting: set[int] = field(default_factory=set)
    accepted: int = 0
    failed: int = 0
    is_searching: bool = False
    #: Runners-up, the best first.
    sellers: deque[Quote] = field(default_factory=deque)
    #: Who lost a lease of this task, or lied on it: out of this task.
    spurned: set[PeerKey] = field(default_factory=set)
    settle_at_ns: int | None = None
    searches_left: int = TASK_SEARCHES
    leases_lost: int = 0
    #: Code and text by which the last lease ended, came to nothing or became too dear; and by which the last was lost.
    why: tuple[str, str] = ("no_provider", "nobody is left")
    cause: tuple[str, str] | None = None

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; nothing happens after the end."""
        match event:
            case _ if self.phase is Phase.ENDED:
                return []
            case UnitSpoke(number, unit, place, token, head):
                is_out = number in self.attempts.live and unit in self.attempts.live[number].out
                return [TellToken(unit, place, token, head)] if is_out else []
            case TaskFaulted(code, text):
                return self._end(code, text)
            case UnitsEnded() if self.phase in (Phase.NEW, Phase.OPEN):
                self.units = self.arrived
                return self._proceed(now_ns)
            case DeadlinePassed():
                return self._late(now_ns)
            case ReceiptsSettled() if self.phase is Phase.SETTLING:
                return self._end(None, f"{self.accepted} units accepted, {self.failed} failed")
            case LeaseFailed(number, _, text) if self.phase is Phase.SETTLING:
                return self._receipt_lost(number, text)
            case TaskSubmitted(warm) if self.phase is Phase.NEW:
                return [*self._begin(warm), *self._proceed(now_ns)]
            case _ if self.phase is Phase.OPEN:
                effects = [*self._lease(event), *self._unit(now_ns, event), *self._proceed(now_ns)]
                # What runs next does not wait until what was accepted is recorded (MAC-4).
                return sorted(effects, key=lambda effect: not isinstance(effect, OrderRuns))
        return []

    def deadline_ns(self) -> int | None:
        """The task's deadline, or sooner that of the receipts."""
        if self.phase is Phase.ENDED:
            return None
        return min(self.deadline_at_ns, self.settle_at_ns or self.deadline_at_ns)

    # --- leases ----------------------------------------------------------------

    def _begin(self, warm: Sequence[WarmLease]) -> list[Effect]:
        self.phase = Phase.OPEN
        for number, lease in enumerate(warm[: self.attempts.spread]):
            self.attempts.live[number] = Attempt(lease.provider, lease.price, Step.RUNNING)
            self.attempt = number
        return self._search() if self.attempts.wants_more(self._rest) else []

    def _lease(self, event: Event) -> list[Effect]:
        attempts = self.attempts
        match event:
            case SellersRanked(verdict, ceiling, missed) if self.is_searching:
                self.is_searching = False
                attempts.ceiling_nanoton = attempts.ceiling_nanoton if ceiling is None else ceiling
                return self._ranked(verdict, missed)
            case LeaseOpened(number, price) if attempts.at(number, Step.LEASING):
                one = attempts.live[number]
                one.step, one.price = Step.RUNNING, price or one.price
            case LeaseFailed(number, code, text) if attempts.at(number, Step.LEASING):
                del attempts.live[number]
                return self._not_leased(code, text)
            case LeaseFailed(number, code, text) if number in attempts.live:
                self.waiting |= attempts.live[number].out       # nothing comes from it any more
                attempts.live[number].out.clear()
                return self._leave(number, code, text)
        return []

    def _ranked(self, verdict: Ranked | NoneFits | AllAboveCeiling, missed: Sequence[Missed]) -> list[Effect]:
        match verdict:
            case Ranked(quotes):
                self.sellers = deque(quote for quote in quotes if quote.provider not in self.spurned)
                return [] if self.sellers else self._nobody("no_provider", "no other sells it")
            case AllAboveCeiling(lowest, ceiling):
                above = f"the lowest ask is {lowest} nanoton, above the ceiling of {ceiling}"
                return self._nobody("ceiling_exceeded", f"{above}; --max-price {lowest} would take it")
            case NoneFits(reasons):
                return self._nobody(*(("no_provider", "; ".join(reasons)) if reasons else _nobody_bid(missed)))

    def _nobody(self, code: str, text: str) -> list[Effect]:
        """No seller; if one was lost before, that is the cause, and not that there is no second one."""
        if self.attempts.live:
            return []
        if self.cause is None:
            return self._end(code, text)
        lost, why = self.cause
        return self._end(lost, f"{why}; and nobody took over: {text}")

    def _not_leased(self, code: str, text: str) -> list[Effect]:
        """A lease that came to nothing is the end if no other is there or may come."""
        self.why = code, text
        if not _another_may_do(code):
            self.sellers.clear()
        if self.attempts.live or self.is_searching:
            return []
        # A runner-up that fails after another was lost is not the end either.
        over = not _another_may_do(code) or (not self.sellers and self.cause is None)
        return self._end(code, text) if over else []

    def _leave(self, number: int, code: str, text: str) -> list[Effect]:
        """Order nothing more on this lease; what is out on it may still come, and is paid for."""
        if not _another_may_do(code):
            return self._end(code, text)
        one = self.attempts.live[number]
        if one.step is Step.RUNNING:
            one.step, one.leaving = Step.LEAVING, (code, text)
        return self._part(number)

    def _part(self, number: int) -> list[Effect]:
        """A lease that is left is over when nothing is out on it; no provider keeps the task busy for ever."""
        one = self.attempts.live[number]
        if one.step is not Step.LEAVING or one.out:
            return []
        del self.attempts.live[number]
        self.why = code, text = one.leaving
        if code in UNBEGUN_CODES:
            if not self.attempts.live:
                self.sellers.clear()                    # who gave it back may be the best again
            return []
        self.spurned.add(one.provider)
        self.leases_lost += 1
        self.cause = self.why
        return self._end(code, text) if self.leases_lost > TASK_LEASES_LOST else []

    def _receipt_lost(self, number: int, text: str) -> list[Effect]:
        """What a provider delivered that is lost now is settled as a debt; but one of them must give its receipt."""
        if self.attempts.live.pop(number, None) is None or self.attempts.live:
            return []
        return self._end("receipt_missing", f"the lease ended before the receipt came: {text}")

    # --- units -----------------------------------------------------------------

    def _unit(self, now_ns: int, event: Event) -> list[Effect]:
        attempts = self.attempts
        match event:
            case UnitsArrived(count):
                before, self.arrived = self.arrived, min(self.arrived + count, self.granted)
                self.waiting.update(range(before, self.arrived))
            case UnitsAnswered(number, units, prices_nanoton) if number in attempts.live:
                accepted = attempts.accept(now_ns, number, zip(units, prices_nanoton, strict=True))
                self.accepted += len(accepted)
                self.searches_left = TASK_SEARCHES if accepted else self.searches_left
                return [AcceptUnits(number, accepted), *self._part(number)] if accepted else []
            case UnitDenied(number, unit, code, text) if attempts.holds(number, unit):
                attempts.live[number].out.remove(unit)
                if code in UNIT_CODES:
                    self.failed += 1
                    return [ReportFailure(unit, code, text), *self._part(number)]
                self.waiting.add(unit)
                return self._leave(number, code, text)
        return []

    @property
    def _rest(self) -> int:
        """Units without an answer that are on no lease, arrived or not."""
        return self.units - self.accepted - self.failed - self.attempts.out

    # --- what goes on ------------------------------------------------------------

    def _proceed(self, now_ns: int) -> list[Effect]:
        """Whatever may begin now: units on leases, more leases, more units."""
        if self.phase is not Phase.OPEN:
            return []
        if self.accepted + self.failed == self.units:
            return self._settle(now_ns)
        if self.attempts.drop_dear(self._rest):
            self.why = "ceiling_exceeded", f"{self._rest} more units would cost more than the ceiling leaves"
        going = [*self._hand_out(), *self._lease_more(), *self._grant()]
        # While nothing waits and the user may hand in more, nobody is looked for: a lease that is not used costs too.
        is_quiet = not self.waiting and self.arrived < self.granted
        return going if self.attempts.live or self.is_searching or is_quiet else [*going, *self._search_again()]

    def _hand_out(self) -> list[Effect]:
        """Put units on leases as these have room: whoever is faster has room more often."""
        handed = self.attempts.hand_out(sorted(self.waiting), self._rest)
        self.waiting.difference_update(*handed.values())
        return [OrderRuns(number, tuple(units)) for number, units in handed.items()]

    def _lease_more(self) -> list[Effect]:
        orders: list[Effect] = []
        for quote in tuple(self.sellers):
            if not self.attempts.wants_more(self._rest):
                break
            price = LeasePrice.of(quote)
            is_known = quote.provider in self.spurned or self.attempts.have(quote.provider)
            if is_known or not self.attempts.can_take(price, self._rest):
                continue
            self.sellers.remove(quote)
            self.attempt += 1
            self.attempts.live[self.attempt] = Attempt(quote.provider, price)
            orders.append(OpenLease(self.attempt, quote))
        return orders

    def _search(self) -> list[Effect]:
        self.is_searching = True
        return [FindSellers()]

    def _search_again(self) -> list[Effect]:
        if self.searches_left == 0:
            return self._end(*self.why)
        self.searches_left -= 1
        return self._search()

    def _grant(self) -> list[Effect]:
        """Keep as many units under way as the leases take, and as many as one takes waiting."""
        if not (windows := self.attempts.windows):
            return []
        room = sum(windows) + max(windows) - (self.granted - self.accepted - self.failed)
        count = min(room, self.units - self.granted)
        # A credit frame per answered unit would double the local traffic.
        if count <= 0 or (count < max(windows) and self.granted + count < self.units):
            return []
        self.granted += count
        return [GrantCredit(count)]

    # --- the end -----------------------------------------------------------------

    def _settle(self, now_ns: int) -> list[Effect]:
        if self.accepted == 0:
            return self._end(None, f"no unit of {self.units} has a result")
        self.phase = Phase.SETTLING
        self.settle_at_ns = now_ns + RECEIPT_REPLY_NS
        self.attempts.live = {number: one for number, one in self.attempts.live.items() if one.accepted}
        return [CloseTranche()]

    def _late(self, now_ns: int) -> list[Effect]:
        if now_ns >= self.deadline_at_ns:
            done = f"{self.accepted} of {self.units} units were done"
            return self._end("deadline_exceeded", f"the deadline passed while {self._doing()}; {done}")
        if self.settle_at_ns is not None and now_ns >= self.settle_at_ns:
            return self._end("receipt_missing", "a provider gave no valid receipt in time")
        return []

    def _doing(self) -> str:
        if self.phase is not Phase.OPEN:
            return str(self.phase.value)
        steps = {one.step for one in self.attempts.live.values()}
        doing = [step.value for step in (Step.RUNNING, Step.LEAVING, Step.LEASING) if step in steps]
        return doing[0] if doing else "looking for a provider"

    def _end(self, code: str | None, text: str) -> list[Effect]:
        self.phase = Phase.ENDED
        self.attempts.live.clear()
        self.waiting.clear()
        return [EndTask(code, text)]


def _nobody_bid(missed: Sequence[Missed]) -> tuple[str, str]:
    """Code and text of an auction without a bid: what all who were called said, if that is one thing."""
    said = {one.code for one in missed}
    if len(said) == 1 and said <= NEXT_SELLER_CODES - SILENCE_CODES:
        others = f"; so say all {len(missed)} sellers" if len(missed) > 1 else ""
        return missed[0].code, missed[0].text + others
    why = "; ".join(f"{peer_id(one.peer)} {one.code}" for one in missed)
    return "no_provider", f"{len(missed)} sellers called, none made a bid" + (f": {why}" if why else "")


def _another_may_do(code: str) -> bool:
    # Else one peer that answers every lease with nonsense, and is cheapest, would end everybody's tasks.
    return code in NEXT_SELLER_CODES or isinstance(from_code(code, ""), PeerFault)
