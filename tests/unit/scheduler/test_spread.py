"""A task over several leases at once: who gets what, the ceiling over all, and any weather (SCH-24 to SCH-28)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    RUNS_AHEAD_NS,
    RUNS_AT_FIRST,
    RUNS_IN_FLIGHT,
    SPREAD_LEASES,
    SPREAD_UNITS,
    USUAL_CEILING_NANOTON,
)
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import SECOND_NS, bill_nanoton, ceil_div
from cocoon.scheduler import task
from cocoon.scheduler.attempts import Attempts, Step
from cocoon.scheduler.selection import AllAboveCeiling, NoneFits, Quote, Ranked, expected_cost_nanoton, usual_spread
from cocoon.scheduler.spending import LeasePrice, Stake, most_nanoton
from tests.unit.scheduler.builders import quote

DEADLINE_NS = 100 * SECOND_NS


def seller(number: int, setup_nanoton: int = 0, per_1000: int = 0) -> Quote:
    """A seller with these prices."""
    return quote(PeerKey(bytes([number]) * 32), setup_nanoton=setup_nanoton, prices=((1, per_1000),))


def spread(units: int, sellers: Sequence[Quote], *, ceiling: int = 1 << 40, most: int = 3) -> task.Task:
    """A task whose leases are proposed."""
    machine = task.Task(units, DEADLINE_NS, Attempts(most, ceiling))
    machine.handle(0, task.TaskSubmitted())
    machine.handle(0, task.SellersRanked(Ranked(tuple(sellers))))
    return machine


def arrive(machine: task.Task, units: int) -> list[Effect]:
    """So many units come in."""
    return [effect for _ in range(units) for effect in machine.handle(0, task.UnitsArrived())]


def ordered(effects: Sequence[Effect]) -> list[tuple[int, int]]:
    """(attempt, unit) of each order."""
    return [(effect.attempt, unit) for effect in effects if isinstance(effect, task.OrderRuns) for unit in effect.units]


def leased(effects: Sequence[Effect]) -> list[PeerKey]:
    """Providers of the leases that are to be opened."""
    return [effect.quote.provider for effect in effects if isinstance(effect, task.OpenLease)]


def ends(effects: Sequence[Effect]) -> list[str | None]:
    """Codes with which the task ended."""
    return [effect.code for effect in effects if isinstance(effect, task.EndTask)]


FREE = [seller(number) for number in range(1, 6)]


# --- who gets what -------------------------------------------------------------


def test_a_small_task_stays_on_one_lease_and_a_large_one_takes_three() -> None:
    assert (usual_spread(SPREAD_UNITS - 1), usual_spread(SPREAD_UNITS)) == (1, SPREAD_LEASES)


def test_a_task_is_leased_to_as_many_sellers_as_it_spreads_over_and_to_no_more() -> None:
    machine = task.Task(100, DEADLINE_NS, Attempts(3, 0))
    machine.handle(0, task.TaskSubmitted())
    effects = machine.handle(0, task.SellersRanked(Ranked(tuple(FREE))))
    assert effects == [task.OpenLease(number, FREE[number - 1]) for number in (1, 2, 3)]
    assert [one.provider for one in machine.sellers] == [FREE[3].provider, FREE[4].provider]


def test_no_lease_is_opened_that_would_have_nothing_to_do() -> None:
    machine = spread(2 * RUNS_AT_FIRST, FREE)
    assert len(machine.attempts.live) == 2


def test_units_go_to_who_has_least_to_do_and_a_faster_provider_gets_more() -> None:
    machine = spread(100, FREE, most=2)
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    assert ordered(arrive(machine, 4)) == [(1, 0), (2, 1), (1, 2), (2, 3)]
    rest = 2 * RUNS_AT_FIRST - 4
    assert len(ordered(arrive(machine, rest))) == rest
    assert ordered(arrive(machine, 3)) == [], "more than a lease takes is out on it"
    next_unit = 2 * RUNS_AT_FIRST
    for now_ns, unit in ((RUNS_AHEAD_NS, 1), (2 * RUNS_AHEAD_NS, 3)):
        assert ordered(machine.handle(now_ns, task.UnitsAnswered(2, (unit,), (0,)))) == [(2, next_unit)]
        next_unit += 1


def test_the_first_lease_that_opens_begins_while_the_others_are_still_agreed_on() -> None:
    machine = spread(100, FREE)
    assert machine.handle(0, task.LeaseOpened(2)) == [task.GrantCredit(2 * RUNS_AT_FIRST)]
    assert ordered(arrive(machine, 2)) == [(2, 0), (2, 1)]


def test_a_lease_that_cannot_be_opened_while_another_runs_is_not_the_end() -> None:
    for code in ("busy", "insufficient_funds", "model_refused"):
        machine = spread(100, FREE[:2])
        machine.handle(0, task.LeaseOpened(1))
        assert machine.handle(0, task.LeaseFailed(2, code, "x")) == []
        assert ordered(arrive(machine, 1)) == [(1, 0)]


def test_what_every_seller_would_say_is_not_heard_from_every_seller() -> None:
    machine = spread(100, FREE)
    for number in (1, 2):
        assert machine.handle(0, task.LeaseFailed(number, "insufficient_funds", "x")) == []
    assert ends(machine.handle(0, task.LeaseFailed(3, "insufficient_funds", "x"))) == ["insufficient_funds"]


def test_a_task_begins_on_all_warm_leases_and_looks_for_more_meanwhile() -> None:
    machine = task.Task(100, DEADLINE_NS, Attempts(3, None))
    warm = tuple(task.WarmLease(one.provider, LeasePrice()) for one in FREE[:2])
    effects = machine.handle(0, task.TaskSubmitted(warm))
    assert effects == [task.FindSellers(), task.GrantCredit(3 * RUNS_AT_FIRST)]
    assert ordered(arrive(machine, 2)) == [(0, 0), (1, 1)]
    found = machine.handle(0, task.SellersRanked(Ranked((FREE[0], FREE[2])), 0))
    assert leased(found) == [FREE[2].provider], "one provider twice"


@pytest.mark.parametrize("verdict", [NoneFits(()), AllAboveCeiling(5, 4)])
def test_who_finds_no_further_seller_goes_on_with_those_it_has(verdict: NoneFits | AllAboveCeiling) -> None:
    machine = task.Task(100, DEADLINE_NS, Attempts(3, None))
    machine.handle(0, task.TaskSubmitted((task.WarmLease(FREE[0].provider, LeasePrice()),)))
    assert machine.handle(0, task.SellersRanked(verdict, 4)) == []
    assert ordered(arrive(machine, 1)) == [(0, 0)]


# --- losses --------------------------------------------------------------------


def test_what_a_lost_provider_held_goes_to_the_others_and_a_new_lease_is_opened() -> None:
    machine = spread(100, FREE, most=2)
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    arrive(machine, 4)
    effects = machine.handle(0, task.UnitDenied(1, 0, "provider_lost", "x"))
    assert ordered(effects) == [(2, 0)] and leased(effects) == [], "the lost lease still has a unit"
    effects = machine.handle(0, task.UnitDenied(1, 2, "provider_lost", "x"))
    assert ordered(effects) == [(2, 2)] and leased(effects) == [FREE[2].provider]
    assert FREE[0].provider in machine.spurned
    assert machine.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == []


def test_a_lease_that_ends_takes_nothing_of_the_others_with_it() -> None:
    machine = spread(100, FREE[:2])
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    arrive(machine, 2)
    assert ordered(machine.handle(0, task.LeaseFailed(2, "provider_lost", "x"))) == [(1, 1)]
    assert machine.handle(0, task.UnitsAnswered(2, (1,), (0,))) == [], "it is out elsewhere, and owed there"
    assert machine.handle(0, task.UnitsAnswered(1, (1,), (0,)))[0] == task.AcceptUnits(1, (1,))
    assert machine.handle(0, task.UnitsAnswered(1, (1,), (0,))) == [], "once"


def test_when_the_last_of_several_is_lost_a_search_finds_others() -> None:
    machine = spread(100, FREE[:2])
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    arrive(machine, 2)
    machine.handle(0, task.LeaseFailed(1, "provider_lost", "x"))
    assert machine.handle(0, task.LeaseFailed(2, "worker_lost", "x")) == [task.FindSellers()]
    assert leased(machine.handle(0, task.SellersRanked(Ranked(tuple(FREE[:3]))))) == [FREE[2].provider]


def test_all_providers_are_asked_for_their_receipts_and_who_is_lost_then_is_settled_later() -> None:
    machine = spread(2 * RUNS_AT_FIRST, FREE)
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    out = ordered(arrive(machine, 2 * RUNS_AT_FIRST))
    answers = [task.UnitsAnswered(number, (unit,), (0,)) for number, unit in out]
    effects = [effect for answer in answers for effect in machine.handle(0, answer)]
    assert effects[-1] == task.CloseTranche()
    assert machine.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == []
    assert ends(machine.handle(0, task.LeaseFailed(2, "provider_lost", "x"))) == ["receipt_missing"]


# --- the ceiling ---------------------------------------------------------------


def test_a_further_lease_is_opened_only_if_its_set_up_and_all_the_rest_at_its_price_fit() -> None:
    cheap, dear = seller(1, 10, 1_000), seller(2, 20, 2_000)
    for ceiling, count in ((229, 1), (230, 2)):
        assert len(spread(100, (cheap, dear), ceiling=ceiling).attempts.live) == count


def test_the_exact_price_of_one_provider_is_enough_for_it_alone_however_it_is_rounded() -> None:
    machine = spread(1_000, (seller(1, 7, 333), seller(2, 7, 333)), ceiling=7 + 333)
    assert list(machine.attempts.live) == [1]
    machine.handle(0, task.LeaseOpened(1))
    spent, unit, effects = 0, 0, machine.handle(0, task.UnitsArrived())
    while not machine.settle_at_ns:
        assert ordered(effects) == [(1, unit)]
        price = bill_nanoton(unit + 1, 333) - bill_nanoton(unit, 333) + (0 if unit else 7)
        spent, unit = spent + price, unit + 1
        machine.handle(0, task.UnitsAnswered(1, (unit - 1,), (price,)))
        effects = [] if machine.settle_at_ns else machine.handle(0, task.UnitsArrived())
    assert spent == 7 + 333 and machine.accepted == 1_000


def test_after_a_loss_the_ceiling_counts_what_was_paid_and_what_is_out_on_every_lease() -> None:
    """The lost one was cheap: its units would now be run at the price of the dear one."""
    cheap, dear = seller(1, 0, 1_000), seller(2, 0, 100_000)
    machine = spread(20, (cheap, dear), ceiling=100 * 20)
    machine.handle(0, task.LeaseOpened(1))
    machine.handle(0, task.LeaseOpened(2))
    arrive(machine, 4)
    machine.handle(0, task.UnitsAnswered(2, (1,), (100,)))
    assert ordered(machine.handle(0, task.LeaseFailed(1, "provider_lost", "x"))) == [(2, 0), (2, 2)]
    lower = spread(20, (cheap, dear), ceiling=100 * 20 - 1)
    assert lower.attempts.live[1].provider == cheap.provider and len(lower.attempts.live) == 1
    lower.handle(0, task.LeaseOpened(1))
    arrive(lower, 4)
    assert lower.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == [task.FindSellers()]


@pytest.mark.parametrize(("per_1000", "taken"), [(20_000, True), (20_001, False)])
def test_a_runner_up_is_asked_only_if_it_fits_into_what_is_left_of_the_ceiling(per_1000: int, taken: bool) -> None:
    """It was ranked by what the whole task costs there; since then something was paid to another."""
    cheap, dear = seller(1, 0, 10_000), seller(2, 0, per_1000)
    machine = spread(20, (cheap, dear), ceiling=300, most=1)
    machine.handle(0, task.LeaseOpened(1))
    for attempt, unit in ordered(arrive(machine, 10)):
        machine.handle(0, task.UnitsAnswered(attempt, (unit,), (10,)))
    for unit in (8, 9):
        machine.handle(0, task.UnitsAnswered(1, (unit,), (10,)))
    arrive(machine, 1)
    effects = machine.handle(0, task.LeaseFailed(1, "provider_lost", "x"))
    assert machine.attempts.spent_nanoton == 100
    assert effects == ([task.OpenLease(2, dear)] if taken else [task.FindSellers()])


@pytest.mark.parametrize(("per_1000", "taken"), [(10_000, True), (10_001, False)])
def test_what_may_still_come_from_a_lease_that_is_left_counts(per_1000: int, taken: bool) -> None:
    first, other = seller(1, 0, 10_000), seller(2, 30, per_1000)
    machine = spread(20, (first, other), ceiling=229, most=2)
    machine.handle(0, task.LeaseOpened(1))
    arrive(machine, 8)
    machine.attempts.ceiling_nanoton = 70 + 30 + 130
    effects = machine.handle(0, task.UnitDenied(1, 0, "worker_lost", "x"))
    assert len(machine.attempts.live[1].out) == 7 and leased(effects) == ([other.provider] if taken else [])


def test_a_warm_lease_without_a_ceiling_is_bound_by_the_usual_one() -> None:
    price = LeasePrice(0, USUAL_CEILING_NANOTON)
    machine = task.Task(2_000, DEADLINE_NS, Attempts(1, None))
    effects = machine.handle(0, task.TaskSubmitted((task.WarmLease(FREE[0].provider, price),)))
    assert effects == [task.FindSellers()], "two coins, and nobody said that this may be spent"


def test_another_task_on_the_lease_makes_every_unit_count_as_rounded_up() -> None:
    alone = LeasePrice(5, 1)
    assert alone.cost_nanoton(8) == 6
    after = alone.after([6])
    assert after == LeasePrice(0, 1, 1) and after.cost_nanoton(8) == 0
    assert after.after([1]) == LeasePrice(0, 1, 2, shared=True) and after.after([1]).cost_nanoton(8) == 8


def figures(*most: int) -> st.SearchStrategy[tuple[int, ...]]:
    """As many integers from 0, each up to its own bound."""
    return st.tuples(*(st.integers(0, one) for one in most))


@given(st.lists(figures(50, 5_000, 3_000, 8, 40), min_size=1, max_size=5))
@example([(0, 2_000, 0, 0, 1), (0, 1_000, 0, 8, 0)])
@example([(0, 1_999, 0, 0, 1), (7, 1_001, 0, 0, 1), (0, 1_001, 0, 8, 0)])
def test_no_way_to_share_the_rest_out_costs_more_than_the_bound(
    leases: list[tuple[int, ...]]
) -> None:
    """Set-up, price, billed before, out now, and what it gets of the rest."""
    stakes = [Stake(LeasePrice(setup, price, billed), out) for setup, price, billed, out, _ in leases]
    paid = sum(stake.price.cost_nanoton(stake.out + lease[4]) for stake, lease in zip(stakes, leases, strict=True))
    assert paid <= most_nanoton(stakes, (), sum(lease[4] for lease in leases))
    if len(leases) == 1:
        assert paid == most_nanoton(stakes, (), leases[0][4]) or not leases[0][4]


# --- any weather ---------------------------------------------------------------

PRICES = [(0, 0), (7, 1_000), (3, 333), (20, 1_500), (50, 9_999), (0, 1)]
SELLERS = [seller(number + 1, *price) for number, price in enumerate(PRICES)]
PRICE_OF = {one.provider: price for one, price in zip(SELLERS, PRICES, strict=True)}


class SpreadUnderAnyWeather(RuleBasedStateMachine):
    """Leases open, fail and are lost in any order, answers come late and twice, prices differ."""

    @initialize(
        units=st.integers(1, 60), most=st.integers(1, 4), slack=st.none() | st.integers(-50, 50),
        warmed=st.lists(st.integers(0, len(PRICES) - 1), max_size=1), found=st.permutations(range(len(PRICES))),
    )
    def submit(self, units: int, most: int, slack: int | None, warmed: list[int], found: list[int]) -> None:
        """The ceiling, if there is one, is about what all units cost at the second seller that is found first."""
        warm = [SELLERS[number] for number in warmed]
        ceiling = slack if slack is None else max(0, expected_cost_nanoton(SELLERS[found[1]].offer, units) + slack)
        self.now_ns = 0
        self.units = units
        self.most = most
        self.accepted: list[int] = []
        self.credit = self.spent = 0
        self.ends: list[str | None] = []
        #: The attempt whose lease a unit is on, as ordered and not denied or answered.
        self.on: dict[int, int] = {}
        #: Provider and units billed of every lease, open or not; attempts that are open.
        self.leases = {number: (one.provider, 0) for number, one in enumerate(warm[:most])}
        self.open = set(self.leases)
        self.opening: set[int] = set()
        #: Attempts on whose lease another task has units too.
        self.shared: set[int] = set()
        self.ceiling = ceiling
        self.task = task.Task(units, DEADLINE_NS, Attempts(most, ceiling))
        self.take(self.task.handle(0, task.TaskSubmitted(tuple(
            task.WarmLease(one.provider, LeasePrice.of(one)) for one in warm
        ))))
        if self.task.is_searching:
            self.ranked(found)
        for attempt in sorted(self.opening):
            self.open_lease(attempt, None)
        self.units_arrive(units)

    def bill(self, attempt: int, first: int, last: int) -> int:
        """What the units from ``first`` to ``last`` of this lease cost, counted from 0."""
        setup, per_1000 = PRICE_OF[self.leases[attempt][0]]
        whole = bill_nanoton(last, per_1000) - bill_nanoton(first, per_1000)
        return whole + (setup if first == 0 and last > 0 else 0)

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case task.AcceptUnits(attempt, units):
                    for unit in units:
                        assert self.on.pop(unit) == attempt, "accepted from a lease on which it is not out"
                    self.accepted += units
                case task.OpenLease(attempt, chosen):
                    self.leases[attempt] = (chosen.provider, 0)
                    self.opening.add(attempt)
                case task.OrderRuns(attempt, units):
                    assert not {*units} & {*self.on, *self.accepted}, "a unit goes out twice"
                    assert attempt in self.open
                    self.on.update(dict.fromkeys(units, attempt))
                    assert list(self.on.values()).count(attempt) <= RUNS_IN_FLIGHT
                case task.GrantCredit(count):
                    self.credit += count
                case task.EndTask(code, _):
                    self.ends.append(code)

    def tell(self, event: Event) -> None:
        self.take(self.task.handle(self.now_ns, event))

    @precondition(lambda self: self.task.is_searching)
    @rule(numbers=st.lists(st.integers(0, len(PRICES) - 1), max_size=6, unique=True), usual=st.integers(0, 400))
    def ranked(self, numbers: list[int], usual: int = 100) -> None:
        chosen = [SELLERS[number] for number in numbers]
        if self.ceiling is None and chosen:
            # As the service does: reckoned once, and never below what the task has at stake already.
            self.ceiling = usual + self.at_stake()
        self.tell(task.SellersRanked(Ranked(tuple(chosen)) if chosen else NoneFits(()), self.ceiling))

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), others=st.none() | st.integers(0, 5))
    def lease_opens(self, data: st.DataObject, others: int | None) -> None:
        self.open_lease(data.draw(st.sampled_from(sorted(self.opening))), others)

    def open_lease(self, attempt: int, others: int | None) -> None:
        """``others`` are units of another task that are on its bill already."""
        self.opening.remove(attempt)
        self.open.add(attempt)
        if others is None:
            self.tell(task.LeaseOpened(attempt))
            return
        provider, _ = self.leases[attempt]
        setup, per_1000 = PRICE_OF[provider]
        self.leases[attempt] = (provider, others)
        self.shared.add(attempt)
        price = LeasePrice(0 if others else setup, per_1000, others, shared=True)
        self.tell(task.LeaseOpened(attempt, price))

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), code=st.sampled_from(["busy", "wrong_lease", "insufficient_funds"]))
    def lease_is_refused(self, data: st.DataObject, code: str) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.opening)))
        self.opening.remove(attempt)
        self.tell(task.LeaseFailed(attempt, code, "x"))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), code=st.sampled_from(["idle", "provider_lost", "worker_lost", "bad_seal"]))
    def lease_ends(self, data: st.DataObject, code: str) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.open)))
        for unit in sorted(unit for unit, on in self.on.items() if on == attempt):
            del self.on[unit]                           # told before, as a lease does
            self.tell(task.UnitDenied(attempt, unit, code, "x"))
        self.open.discard(attempt)
        self.tell(task.LeaseFailed(attempt, code, "x"))

    @precondition(lambda self: self.credit > 0)
    @rule(count=st.integers(1, 60))
    def units_arrive(self, count: int) -> None:
        arrived = min(count, self.credit)
        self.credit -= arrived
        self.tell(task.UnitsArrived(arrived))

    @precondition(lambda self: self.on)
    @rule(data=st.data(), count=st.integers(1, 8), again=st.booleans())
    def answered(self, data: st.DataObject, count: int, again: bool) -> None:
        for _ in range(min(count, len(self.on))):
            unit = data.draw(st.sampled_from(sorted(self.on)))
            attempt = self.on[unit]
            provider, billed = self.leases[attempt]
            billed += data.draw(st.integers(0, 3)) if attempt in self.shared else 0
            price = self.bill(attempt, billed, billed + 1)
            self.leases[attempt] = (provider, billed + 1)
            self.spent += price
            self.tell(task.UnitsAnswered(attempt, (unit,) * (1 + again), (price,) * (1 + again)))
            self.on.pop(unit, None)                     # of a task that has ended

    @rule(unit=st.integers(0, 60), attempt=st.integers(0, 8), price=st.integers(0, 9))
    def answered_by_who_does_not_have_it(self, unit: int, attempt: int, price: int) -> None:
        if self.on.get(unit) != attempt:
            self.tell(task.UnitsAnswered(attempt, (unit,), (price,)))
            self.tell(task.UnitDenied(attempt, unit, "provider_lost", "x"))

    @precondition(lambda self: self.on)
    @rule(data=st.data(), code=st.sampled_from(["idle", "inputs_mismatch", "provider_lost"]), again=st.booleans())
    def denied(self, data: st.DataObject, code: str, again: bool) -> None:
        unit = data.draw(st.sampled_from(sorted(self.on)))
        attempt = self.on.pop(unit)
        for _ in range(1 + again):                      # whoever says so twice means the same lease
            if self.on.get(unit) != attempt:
                self.tell(task.UnitDenied(attempt, unit, code, "x"))

    @precondition(lambda self: self.task.settle_at_ns is not None)
    @rule()
    def settled(self) -> None:
        self.tell(task.ReceiptsSettled())

    @rule(step_ns=st.integers(0, 3 * SECOND_NS))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.tell(DeadlinePassed())

    def at_stake(self) -> int:
        """What was paid, and all that is out if every unit of it is answered."""
        out = {attempt: list(self.on.values()).count(attempt) for attempt in set(self.on.values())}
        return self.spent + sum(self.at_most(attempt, count) for attempt, count in out.items())

    def at_most(self, attempt: int, count: int) -> int:
        """The most that so many units more cost on this lease; wherever on its bill they come if it is shared."""
        provider, billed = self.leases[attempt]
        if attempt not in self.shared:
            return self.bill(attempt, billed, billed + count)
        setup, per_1000 = PRICE_OF[provider]
        return count * ceil_div(per_1000, 1_000) + (0 if billed else setup)

    @invariant()
    def a_task_is_lawful(self) -> None:
        if not hasattr(self, "task"):
            return
        live = self.task.attempts.live.values()
        assert len(set(self.accepted)) == len(self.accepted)
        assert len(self.ends) <= 1
        assert self.task.granted <= self.units and len(live) <= self.most
        assert len({one.provider for one in live}) == len(live), "two leases with one provider"
        if self.ends == [None]:
            assert self.task.accepted + self.task.failed == self.units
        if self.now_ns >= DEADLINE_NS:
            assert len(self.ends) == 1

    @invariant()
    def the_ceiling_holds_over_all_leases(self) -> None:
        if hasattr(self, "task") and not self.ends:
            assert self.task.attempts.spent_nanoton == self.spent
            assert self.at_stake() <= (USUAL_CEILING_NANOTON if self.ceiling is None else self.ceiling)

    @invariant()
    def a_task_that_has_not_ended_waits_for_somebody(self) -> None:
        if not hasattr(self, "task") or self.ends or self.task.phase is task.Phase.SETTLING:
            return
        runs = any(one.step is Step.RUNNING for one in self.task.attempts.live.values())
        may_hand_in = self.credit > 0 and (runs or not self.task.waiting)
        assert self.on or self.opening or self.task.is_searching or may_hand_in


TestSpreadUnderAnyWeather = SpreadUnderAnyWeather.TestCase
TestSpreadUnderAnyWeather.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
