"""A task from submit to its single end (SCH-11 to SCH-18)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.errors import PEER_CODES
from cocoon.core.ids import PeerKey
from cocoon.core.limits import PROVIDERS_ASKED, RECEIPT_REPLY_NS, RUNS_IN_FLIGHT, TASK_SEARCHES
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.scheduler import task
from cocoon.scheduler.selection import AllAboveCeiling, NoneFits, Quote, Ranked
from tests.unit.scheduler.builders import quote

DEADLINE_NS = 100 * SECOND_NS
FIRST, SECOND = quote(PeerKey(bytes([1]) * 32)), quote(PeerKey(bytes([2]) * 32))


def running(units: int = 1) -> task.Task:
    machine = task.Task(units, DEADLINE_NS)
    assert machine.handle(0, task.TaskSubmitted(warm=False)) == [task.FindSellers()]
    assert machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND)), 2)) == [task.OpenLease(FIRST)]
    assert machine.handle(0, task.LeaseOpened()) == [task.GrantCredit(min(units, 2 * RUNS_IN_FLIGHT))]
    return machine


def ends(effects: list[Effect]) -> list[str | None]:
    return [effect.code for effect in effects if isinstance(effect, task.EndTask)]


def test_one_unit_from_submit_to_receipt() -> None:
    machine = running()
    assert machine.handle(1, task.UnitArrived()) == [task.OrderRun(0)]
    assert machine.handle(2, task.UnitAnswered(0)) == [task.AcceptUnit(0), task.CloseTranche()]
    assert machine.deadline_ns() == 2 + RECEIPT_REPLY_NS
    assert ends(machine.handle(3, task.ReceiptsSettled())) == [None]
    assert machine.deadline_ns() is None


def test_a_warm_lease_skips_the_search() -> None:
    assert task.Task(1, DEADLINE_NS).handle(0, task.TaskSubmitted(warm=True)) == [task.GrantCredit(1)]


def test_a_busy_or_faulty_seller_leads_to_the_next_and_a_bad_model_to_the_end() -> None:
    following = [task.OpenLease(SECOND)]
    verdicts = (
        ("busy", following), ("wrong_lease", following), ("bad_seal", following),
        ("model_refused", [task.EndTask("model_refused", "x")]),
    )
    for code, expected in verdicts:
        machine = task.Task(1, DEADLINE_NS)
        machine.handle(0, task.TaskSubmitted(warm=False))
        machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND)), 2))
        assert machine.handle(0, task.LeaseFailed(code, "x")) == expected


def leasing(*sellers: Quote) -> task.Task:
    """A task that has just proposed a lease to the first of ``sellers``."""
    machine = task.Task(1, DEADLINE_NS)
    machine.handle(0, task.TaskSubmitted(warm=False))
    assert machine.handle(0, task.SellersRanked(Ranked(sellers), len(sellers))) == [task.OpenLease(sellers[0])]
    return machine


@pytest.mark.parametrize("code", [
    "chain_unreachable", "credit_refused", "lane_busy", "lane_closing", "lane_unproven",
])
def test_a_seller_that_takes_no_money_now_costs_a_task_nothing_but_the_next_one(code: str) -> None:
    assert leasing(FIRST, SECOND).handle(0, task.LeaseFailed(code, "x")) == [task.OpenLease(SECOND)]


def test_nothing_that_a_seller_may_say_ends_a_task_but_a_verdict_on_its_model() -> None:
    ending = {code for code in PEER_CODES if ends(leasing(FIRST, SECOND).handle(0, task.LeaseFailed(code, "x")))}
    assert ending == {"model_refused", "dtype_unsupported"}


def test_a_failure_of_our_own_that_every_seller_meets_is_met_once_for_each_and_then_ends_the_task() -> None:
    sellers = [quote(PeerKey(bytes([index]) * 32)) for index in range(PROVIDERS_ASKED)]
    machine = leasing(*sellers)
    for following in sellers[1:]:
        assert machine.handle(0, task.LeaseFailed("chain_unreachable", "x")) == [task.OpenLease(following)]
    assert ends(machine.handle(0, task.LeaseFailed("chain_unreachable", "x"))) == ["chain_unreachable"]


def test_a_wallet_that_is_empty_is_not_tried_on_every_seller() -> None:
    assert ends(leasing(FIRST, SECOND).handle(0, task.LeaseFailed("insufficient_funds", "x"))) == ["insufficient_funds"]


def test_without_a_seller_or_above_the_ceiling_the_task_ends_with_its_code() -> None:
    for verdict, code in ((NoneFits(()), "no_provider"), (AllAboveCeiling(5, 4), "ceiling_exceeded")):
        machine = task.Task(1, DEADLINE_NS)
        machine.handle(0, task.TaskSubmitted(warm=False))
        assert ends(machine.handle(0, task.SellersRanked(verdict, 1))) == [code]


def test_who_meets_only_dear_offers_is_told_the_max_price_that_would_do() -> None:
    machine = task.Task(1, DEADLINE_NS)
    machine.handle(0, task.TaskSubmitted(warm=False))
    (end,) = machine.handle(0, task.SellersRanked(AllAboveCeiling(lowest_nanoton=70, ceiling_nanoton=50), 1))
    text = "the lowest ask is 70 nanoton, above the ceiling of 50; --max-price 70 would take it"
    assert end == task.EndTask("ceiling_exceeded", text)


def test_a_unit_that_was_never_begun_moves_to_a_new_lease() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitArrived())
    machine.handle(0, task.UnitArrived())
    assert machine.handle(0, task.UnitDenied(0, "idle", "x")) == [task.FindSellers()]
    assert machine.handle(0, task.UnitDenied(1, "idle", "x")) == []
    machine.handle(0, task.SellersRanked(Ranked((SECOND,)), 1))
    assert machine.handle(0, task.LeaseOpened()) == [task.OrderRun(0), task.OrderRun(1)]


def test_a_lost_provider_ends_the_task() -> None:
    machine = running()
    machine.handle(0, task.UnitArrived())
    assert ends(machine.handle(0, task.UnitDenied(0, "provider_lost", "x"))) == ["provider_lost"]
    assert machine.handle(0, task.UnitAnswered(0)) == []


def test_a_lease_lost_between_two_units_does_not_leave_the_task_waiting() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitArrived())
    machine.handle(0, task.UnitAnswered(0))
    assert ends(machine.handle(0, task.LeaseFailed("provider_lost", "x"))) == ["provider_lost"]


def test_a_lease_given_back_between_two_units_is_replaced() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitArrived())
    machine.handle(0, task.UnitAnswered(0))
    assert machine.handle(0, task.LeaseFailed("draining", "x")) == [task.FindSellers()]
    assert machine.handle(0, task.UnitArrived()) == []
    machine.handle(0, task.SellersRanked(Ranked((SECOND,)), 1))
    assert machine.handle(0, task.LeaseOpened()) == [task.OrderRun(1)]


def test_providers_that_give_every_lease_back_do_not_keep_a_task_busy() -> None:
    machine = running()
    machine.handle(0, task.UnitArrived())
    for _ in range(TASK_SEARCHES):
        assert machine.handle(0, task.UnitDenied(0, "draining", "x")) == [task.FindSellers()]
        machine.handle(0, task.SellersRanked(Ranked((FIRST,)), 1))
        assert machine.handle(0, task.LeaseOpened()) == [task.OrderRun(0)]
    assert ends(machine.handle(0, task.UnitDenied(0, "draining", "x"))) == ["draining"]


def test_a_faulty_unit_does_not_stop_the_others() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitArrived())
    machine.handle(0, task.UnitArrived())
    denied = machine.handle(0, task.UnitDenied(0, "inputs_mismatch", "x"))
    assert denied == [task.ReportFailure(0, "inputs_mismatch", "x")]
    assert machine.handle(0, task.UnitAnswered(1)) == [task.AcceptUnit(1), task.CloseTranche()]


def test_only_failed_units_need_no_receipt() -> None:
    machine = running()
    machine.handle(0, task.UnitArrived())
    assert ends(machine.handle(0, task.UnitDenied(0, "inputs_mismatch", "x"))) == [None]


def test_a_missing_receipt_ends_the_task_with_its_code() -> None:
    machine = running()
    machine.handle(0, task.UnitArrived())
    machine.handle(0, task.UnitAnswered(0))
    assert ends(machine.handle(RECEIPT_REPLY_NS, DeadlinePassed())) == ["receipt_missing"]


def test_the_deadline_ends_any_phase() -> None:
    for machine in (task.Task(1, DEADLINE_NS), running()):
        assert ends(machine.handle(DEADLINE_NS, DeadlinePassed())) == ["deadline_exceeded"]


class TaskUnderAnyWeather(RuleBasedStateMachine):
    """Leases fail, units come back in any order and twice, time jumps."""

    @initialize(units=st.integers(1, 40))
    def submit(self, units: int) -> None:
        self.now_ns = 0
        self.units = units
        self.accepted: list[int] = []
        self.credit = 0
        self.ends: list[str | None] = []
        self.task = task.Task(units, DEADLINE_NS)
        self.take(self.task.handle(0, task.TaskSubmitted(warm=False)))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case task.AcceptUnit(unit):
                    self.accepted.append(unit)
                case task.GrantCredit(count):
                    self.credit += count
                case task.EndTask(code, _):
                    self.ends.append(code)

    @rule(quotes=st.sampled_from([Ranked((FIRST,)), Ranked((FIRST, SECOND)), NoneFits(())]))
    def ranked(self, quotes: Ranked | NoneFits) -> None:
        self.take(self.task.handle(self.now_ns, task.SellersRanked(quotes, 2)))

    @rule(code=st.sampled_from(["busy", "provider_lost", "model_refused"]))
    def lease_fails(self, code: str) -> None:
        self.take(self.task.handle(self.now_ns, task.LeaseFailed(code, "x")))

    @rule()
    def lease_opens(self) -> None:
        self.take(self.task.handle(self.now_ns, task.LeaseOpened()))

    @precondition(lambda self: self.credit > 0)
    @rule()
    def unit_arrives(self) -> None:
        self.credit -= 1
        self.take(self.task.handle(self.now_ns, task.UnitArrived()))

    @rule(unit=st.integers(0, 40))
    def answered(self, unit: int) -> None:
        self.take(self.task.handle(self.now_ns, task.UnitAnswered(unit)))

    @rule(unit=st.integers(0, 40), code=st.sampled_from(["idle", "inputs_mismatch", "provider_lost"]))
    def denied(self, unit: int, code: str) -> None:
        self.take(self.task.handle(self.now_ns, task.UnitDenied(unit, code, "x")))

    @rule()
    def settled(self) -> None:
        self.take(self.task.handle(self.now_ns, task.ReceiptsSettled()))

    @rule(step_ns=st.integers(0, 20 * SECOND_NS))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.take(self.task.handle(self.now_ns, DeadlinePassed()))

    @invariant()
    def a_task_is_lawful(self) -> None:
        if not hasattr(self, "task"):
            return
        assert len(set(self.accepted)) == len(self.accepted)
        assert len(self.ends) <= 1
        assert self.task.granted <= self.units
        assert self.task.granted - self.task.accepted - self.task.failed <= 2 * RUNS_IN_FLIGHT
        if self.now_ns >= DEADLINE_NS:
            assert len(self.ends) == 1
        if self.ends == [None]:
            assert self.task.accepted + self.task.failed == self.units


TestTaskUnderAnyWeather = TaskUnderAnyWeather.TestCase
TestTaskUnderAnyWeather.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
