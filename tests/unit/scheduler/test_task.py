"""A task on one lease at a time, from submit to its single end (SCH-11 to SCH-20)."""

from __future__ import annotations

import pytest

from cocoon.core.errors import PEER_CODES
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import PROVIDERS_ASKED, RECEIPT_REPLY_NS, RUNS_AT_FIRST, TASK_LEASES_LOST, TASK_SEARCHES
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.scheduler import task
from cocoon.scheduler.attempts import Step
from cocoon.scheduler.selection import AllAboveCeiling, Missed, NoneFits, Quote, Ranked
from cocoon.scheduler.spending import LeasePrice
from tests.unit.scheduler.builders import quote

DEADLINE_NS = 100 * SECOND_NS
FIRST, SECOND, THIRD = (quote(PeerKey(bytes([number]) * 32)) for number in (1, 2, 3))
WARM = PeerKey(bytes([9]) * 32)


def running(units: int = 1) -> task.Task:
    machine = task.Task(units, DEADLINE_NS)
    assert machine.handle(0, task.TaskSubmitted()) == [task.FindSellers()]
    assert machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND)))) == [task.OpenLease(1, FIRST)]
    assert machine.handle(0, task.LeaseOpened(1)) == [task.GrantCredit(min(units, 2 * RUNS_AT_FIRST))]
    return machine


def ends(effects: list[Effect]) -> list[str | None]:
    return [effect.code for effect in effects if isinstance(effect, task.EndTask)]


def test_one_unit_from_submit_to_receipt() -> None:
    machine = running()
    assert machine.handle(1, task.UnitsArrived()) == [task.OrderRuns(1, (0,))]
    assert machine.handle(2, task.UnitsAnswered(1, (0,), (0,))) == [task.AcceptUnits(1, (0,)), task.CloseTranche()]
    assert machine.deadline_ns() == 2 + RECEIPT_REPLY_NS
    assert ends(machine.handle(3, task.ReceiptsSettled())) == [None]
    assert machine.deadline_ns() is None


def test_a_warm_lease_skips_the_search() -> None:
    submitted = task.TaskSubmitted((task.WarmLease(WARM, LeasePrice()),))
    assert task.Task(1, DEADLINE_NS).handle(0, submitted) == [task.GrantCredit(1)]


def test_a_busy_or_faulty_seller_leads_to_the_next_and_a_bad_model_to_the_end() -> None:
    following = [task.OpenLease(2, SECOND)]
    verdicts = (
        ("busy", following), ("wrong_lease", following), ("bad_seal", following),
        ("model_refused", [task.EndTask("model_refused", "x")]),
    )
    for code, expected in verdicts:
        machine = task.Task(1, DEADLINE_NS)
        machine.handle(0, task.TaskSubmitted())
        machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND))))
        assert machine.handle(0, task.LeaseFailed(1, code, "x")) == expected


def leasing(*sellers: Quote) -> task.Task:
    """A task that has just proposed a lease to the first of ``sellers``."""
    machine = task.Task(1, DEADLINE_NS)
    machine.handle(0, task.TaskSubmitted())
    assert machine.handle(0, task.SellersRanked(Ranked(sellers))) == [task.OpenLease(1, sellers[0])]
    return machine


@pytest.mark.parametrize("code", [
    "chain_unreachable", "credit_refused", "lane_busy", "lane_closing", "lane_unproven",
])
def test_a_seller_that_takes_no_money_now_costs_a_task_nothing_but_the_next_one(code: str) -> None:
    assert leasing(FIRST, SECOND).handle(0, task.LeaseFailed(1, code, "x")) == [task.OpenLease(2, SECOND)]


def test_nothing_that_a_seller_may_say_ends_a_task_but_a_verdict_on_its_model() -> None:
    ending = {code for code in PEER_CODES if ends(leasing(FIRST, SECOND).handle(0, task.LeaseFailed(1, code, "x")))}
    assert ending == {"model_refused", "dtype_unsupported"}


def test_a_failure_of_our_own_that_every_seller_meets_is_met_once_for_each_and_then_ends_the_task() -> None:
    sellers = [quote(PeerKey(bytes([index]) * 32)) for index in range(PROVIDERS_ASKED)]
    machine = leasing(*sellers)
    for attempt, following in enumerate(sellers[1:], start=2):
        failed = task.LeaseFailed(attempt - 1, "chain_unreachable", "x")
        assert machine.handle(0, failed) == [task.OpenLease(attempt, following)]
    assert ends(machine.handle(0, task.LeaseFailed(attempt, "chain_unreachable", "x"))) == ["chain_unreachable"]


def test_a_wallet_that_is_empty_is_not_tried_on_every_seller() -> None:
    code = "insufficient_funds"
    assert ends(leasing(FIRST, SECOND).handle(0, task.LeaseFailed(1, code, "x"))) == [code]


def test_without_a_seller_or_above_the_ceiling_the_task_ends_with_its_code() -> None:
    for verdict, code in ((NoneFits(()), "no_provider"), (AllAboveCeiling(5, 4), "ceiling_exceeded")):
        machine = task.Task(1, DEADLINE_NS)
        machine.handle(0, task.TaskSubmitted())
        assert ends(machine.handle(0, task.SellersRanked(verdict))) == [code]


def test_who_meets_only_dear_offers_is_told_the_max_price_that_would_do() -> None:
    machine = task.Task(1, DEADLINE_NS)
    machine.handle(0, task.TaskSubmitted())
    (end,) = machine.handle(0, task.SellersRanked(AllAboveCeiling(lowest_nanoton=70, ceiling_nanoton=50)))
    text = "the lowest ask is 70 nanoton, above the ceiling of 50; --max-price 70 would take it"
    assert end == task.EndTask("ceiling_exceeded", text)


def test_a_unit_that_was_never_begun_moves_to_a_new_lease() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsArrived())
    assert machine.handle(0, task.UnitDenied(1, 0, "idle", "x")) == []
    assert machine.handle(0, task.UnitDenied(1, 1, "idle", "x")) == [task.FindSellers()]
    machine.handle(0, task.SellersRanked(Ranked((SECOND,))))
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (0, 1))]


# --- failover ------------------------------------------------------------------


def test_what_a_lost_provider_did_not_deliver_goes_to_the_runner_up() -> None:
    machine = running(units=3)
    for _ in range(3):
        machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsAnswered(1, (1,), (0,)))
    assert machine.handle(0, task.UnitDenied(1, 0, "provider_lost", "x")) == []
    assert machine.handle(0, task.UnitDenied(1, 2, "provider_lost", "x")) == [task.OpenLease(2, SECOND)]
    assert machine.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == []
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (0, 2))]
    machine.handle(1, task.UnitsAnswered(2, (2,), (0,)))
    assert machine.handle(1, task.UnitsAnswered(2, (0,), (0,))) == [task.AcceptUnits(2, (0,)), task.CloseTranche()]


def test_a_provider_lost_between_two_units_is_replaced_before_the_next_one_comes() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsAnswered(1, (0,), (0,)))
    assert machine.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == [task.OpenLease(2, SECOND)]
    assert machine.handle(0, task.UnitsArrived()) == []
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (1,))]


def test_after_the_last_seller_a_search_finds_others_and_who_was_lost_is_out_of_the_task() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    assert machine.handle(0, task.UnitDenied(1, 0, "bad_seal", "x")) == [task.OpenLease(2, SECOND)]
    machine.handle(0, task.LeaseOpened(2))
    assert machine.handle(0, task.UnitDenied(2, 0, "provider_lost", "x")) == [task.FindSellers()]
    assert machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND, THIRD)))) == [task.OpenLease(3, THIRD)]
    assert machine.handle(0, task.LeaseFailed(3, "busy", "x")) == [task.FindSellers()]
    (end,) = machine.handle(0, task.SellersRanked(Ranked((FIRST, SECOND))))
    assert end == task.EndTask("provider_lost", "x; and nobody took over: no other sells it")


def test_what_is_out_on_a_lease_that_is_left_comes_first_and_nothing_more_is_ordered_on_it() -> None:
    """Else two providers would work on one task, and it could cost more than its ceiling."""
    machine = running(units=4)
    for _ in range(3):
        machine.handle(0, task.UnitsArrived())
    assert machine.handle(0, task.UnitDenied(1, 0, "worker_lost", "x")) == []
    assert machine.handle(0, task.UnitsArrived()) == []
    assert machine.handle(0, task.UnitsAnswered(1, (1,), (0,))) == [task.AcceptUnits(1, (1,))]
    answered = machine.handle(0, task.UnitsAnswered(1, (2,), (0,)))
    assert answered == [task.AcceptUnits(1, (2,)), task.OpenLease(2, SECOND)]
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (0, 3))]


def test_a_lease_that_ends_while_it_is_left_keeps_nobody_waiting() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitDenied(1, 0, "worker_lost", "x"))
    assert machine.handle(0, task.LeaseFailed(1, "provider_lost", "x")) == [task.OpenLease(2, SECOND)]
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (0, 1))]


def test_a_late_word_of_an_earlier_lease_is_not_taken_for_the_present_ones() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitDenied(1, 0, "worker_lost", "x"))
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (0,))]
    for late in (task.UnitDenied(1, 0, "provider_lost", "x"), task.LeaseFailed(1, "idle", "x"), task.LeaseOpened(1)):
        assert machine.handle(0, late) == []
    assert machine.attempts.at(2, Step.RUNNING)


def test_a_unit_on_which_every_worker_dies_ends_the_task_after_a_few() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    attempt, effects = 1, machine.handle(0, task.UnitDenied(1, 0, "worker_lost", "x"))
    while not ends(effects):
        if effects == [task.FindSellers()]:
            another = quote(PeerKey(bytes([50 + attempt]) * 32))
            effects = machine.handle(0, task.SellersRanked(Ranked((another,))))
        attempt += 1
        assert machine.handle(0, task.LeaseOpened(attempt)) == [task.OrderRuns(attempt, (0,))]
        effects = machine.handle(0, task.UnitDenied(attempt, 0, "worker_lost", "x"))
    assert ends(effects) == ["worker_lost"] and attempt == TASK_LEASES_LOST + 1


@pytest.mark.parametrize("verdict", [NoneFits(()), AllAboveCeiling(5, 4)])
def test_a_task_that_finds_nobody_to_take_over_ends_with_what_its_provider_was_lost_by(
    verdict: NoneFits | AllAboveCeiling
) -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.LeaseFailed(1, "provider_lost", "silent"))
    assert machine.handle(0, task.LeaseFailed(2, "busy", "x")) == [task.FindSellers()]
    assert machine.handle(0, task.SellersRanked(verdict))[0].code == "provider_lost"  # type: ignore[attr-defined]


def test_what_every_provider_would_say_ends_the_task_at_once() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    assert ends(machine.handle(0, task.UnitDenied(1, 0, "model_refused", "x"))) == ["model_refused"]
    assert machine.handle(0, task.UnitsAnswered(1, (0,), (0,))) == []


def test_a_lease_given_back_between_two_units_is_replaced_when_the_next_unit_comes() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsAnswered(1, (0,), (0,)))
    assert machine.handle(0, task.LeaseFailed(1, "draining", "x")) == []
    assert machine.handle(0, task.UnitsArrived()) == [task.FindSellers()]
    machine.handle(0, task.SellersRanked(Ranked((SECOND,))))
    assert machine.handle(0, task.LeaseOpened(2)) == [task.OrderRuns(2, (1,))]


def test_a_task_that_is_used_now_and_then_may_search_as_often_as_it_was_answered() -> None:
    machine = running(units=TASK_SEARCHES + 3)
    for number in range(TASK_SEARCHES + 2):
        machine.handle(0, task.UnitsArrived())
        if number:
            machine.handle(0, task.SellersRanked(Ranked((FIRST,))))
            machine.handle(0, task.LeaseOpened(number + 1))
        assert machine.handle(0, task.UnitsAnswered(number + 1, (number,), (0,)))
        assert machine.handle(0, task.LeaseFailed(number + 1, "idle", "x")) == []
    assert machine.phase is task.Phase.OPEN


# --- tasks that end before their last unit -----------------------------------------


def test_a_task_whose_user_ends_it_settles_with_what_is_answered() -> None:
    machine = running(units=1_000)
    machine.handle(0, task.UnitsArrived(2))
    machine.handle(0, task.UnitsAnswered(1, (0,), (0,)))
    assert machine.handle(0, task.UnitsEnded()) == []
    assert machine.handle(0, task.UnitsAnswered(1, (1,), (0,))) == [task.AcceptUnits(1, (1,)), task.CloseTranche()]
    assert machine.handle(0, task.UnitsArrived()) == [] and machine.phase is task.Phase.SETTLING


def test_a_task_that_ends_with_all_answered_settles_at_once() -> None:
    machine = running(units=1_000)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsAnswered(1, (0,), (0,)))
    assert machine.handle(0, task.UnitsEnded()) == [task.CloseTranche()]
    assert ends(machine.handle(0, task.ReceiptsSettled())) == [None]


def test_a_task_that_ends_without_a_unit_owes_nobody_anything() -> None:
    assert ends(running(units=1_000).handle(0, task.UnitsEnded())) == [None]
    machine = task.Task(1_000, DEADLINE_NS)
    assert machine.handle(0, task.UnitsEnded()) == []
    assert ends(machine.handle(0, task.TaskSubmitted())) == [None]


def test_providers_that_give_every_lease_back_do_not_keep_a_task_busy() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    for attempt in range(1, TASK_SEARCHES + 1):
        assert machine.handle(0, task.UnitDenied(attempt, 0, "draining", "x")) == [task.FindSellers()]
        machine.handle(0, task.SellersRanked(Ranked((FIRST,))))
        assert machine.handle(0, task.LeaseOpened(attempt + 1)) == [task.OrderRuns(attempt + 1, (0,))]
    assert ends(machine.handle(0, task.UnitDenied(attempt + 1, 0, "draining", "x"))) == ["draining"]


def test_a_faulty_unit_does_not_stop_the_others() -> None:
    machine = running(units=2)
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsArrived())
    denied = machine.handle(0, task.UnitDenied(1, 0, "inputs_mismatch", "x"))
    assert denied == [task.ReportFailure(0, "inputs_mismatch", "x")]
    assert machine.handle(0, task.UnitsAnswered(1, (1,), (0,))) == [task.AcceptUnits(1, (1,)), task.CloseTranche()]


def test_only_failed_units_need_no_receipt() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    assert ends(machine.handle(0, task.UnitDenied(1, 0, "inputs_mismatch", "x"))) == [None]


def test_a_missing_receipt_ends_the_task_with_its_code() -> None:
    machine = running()
    machine.handle(0, task.UnitsArrived())
    machine.handle(0, task.UnitsAnswered(1, (0,), (0,)))
    assert ends(machine.handle(RECEIPT_REPLY_NS, DeadlinePassed())) == ["receipt_missing"]


def test_the_deadline_ends_any_phase() -> None:
    for machine in (task.Task(1, DEADLINE_NS), running()):
        assert ends(machine.handle(DEADLINE_NS, DeadlinePassed())) == ["deadline_exceeded"]


@pytest.mark.parametrize(("said", "code", "text"), [
    ((), "no_provider", "0 sellers called, none made a bid"),
    (("busy",), "busy", "8 of 8 leases are open"),
    (("busy", "busy"), "busy", "8 of 8 leases are open; so say all 2 sellers"),
    (("storage_full",), "storage_full", "8 of 8 leases are open"),
    (("unreachable",), "no_provider", "1 sellers called, none made a bid: {0} unreachable"),
    (("busy", "draining"), "no_provider", "2 sellers called, none made a bid: {0} busy; {1} draining"),
    (("bad_signature",), "no_provider", "1 sellers called, none made a bid: {0} bad_signature"),
])
def test_an_auction_without_a_bid_says_what_all_said(said: tuple[str, ...], code: str, text: str) -> None:
    peers = [PeerKey(bytes([number]) * 32) for number in (1, 2)]
    missed = tuple(Missed(peer, one, "8 of 8 leases are open") for peer, one in zip(peers, said, strict=False))
    machine = task.Task(1, 10**12)
    machine.handle(0, task.TaskSubmitted())
    assert machine.handle(0, task.SellersRanked(NoneFits(()), None, missed)) == [
        task.EndTask(code, text.format(*map(peer_id, peers)))
    ]
