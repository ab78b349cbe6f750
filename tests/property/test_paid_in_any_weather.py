"""Paid leases, lanes, claims and closes together, in any weather.

Links break, answers are lost, words are repeated and late, orders lapse, claims
run twice, both peers crash at any moment and come back with their journals.
"""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.machine import DeadlinePassed
from cocoon.ledger.claims import ClaimAsked
from cocoon.ledger.escrow import EscrowState
from cocoon.ledger.exposure import unpaid_nanoton
from cocoon.ledger.lanes import LaneStage
from cocoon.ledger.terms import terms_of
from tests.property.paid_world import PRICE, SETUP, TRANCHE, Deal, World


class PaidInAnyWeather(RuleBasedStateMachine):
    """``earned`` and ``resumed`` show that the weather let something happen."""

    earned = 0
    resumed = 0

    @initialize(opened=st.booleans())
    def begin(self, opened: bool) -> None:
        self.world = World()
        self.world.lease(answer_lost=False)
        if opened:
            self.world.execute(0)

    def deals(self, *stages: str) -> list[Deal]:
        return [deal for deal in self.world.deals if deal.stage in stages]

    def pick(self, data: st.DataObject, *stages: str) -> Deal | None:
        deals = self.deals(*stages)
        return data.draw(st.sampled_from(deals)) if deals else None

    # --- the weather

    @precondition(lambda self: len(self.deals("live")) < 2 and len(self.deals("broken", "settling")) < 3)
    @rule(answer_lost=st.sampled_from([False, False, False, True]))
    def a_lease_is_wanted(self, answer_lost: bool) -> None:
        self.world.lease(answer_lost=answer_lost)

    @rule(data=st.data(), runs=st.integers(1, 8), arrive=st.integers(0, 8))
    def runs_are_executed(self, data: st.DataObject, runs: int, arrive: int) -> None:
        if (deal := self.pick(data, "live")) is not None:
            for _ in range(runs):
                self.world.run(deal)
            self.world.deliver(deal, arrive)

    @rule(data=st.data(), keep=st.booleans())
    def a_word_of_the_provider_arrives(self, data: st.DataObject, keep: bool) -> None:
        deal = self.pick(data, "live", "settling")
        if deal is not None and deal.to_buyer:
            self.world.hear_buyer(deal, data.draw(st.integers(0, len(deal.to_buyer) - 1)), keep)

    @rule(data=st.data(), keep=st.booleans())
    def a_word_of_the_requester_arrives(self, data: st.DataObject, keep: bool) -> None:
        deal = self.pick(data, "live", "settling")
        if deal is not None and deal.to_seller:
            self.world.hear_seller(deal, data.draw(st.integers(0, len(deal.to_seller) - 1)), keep)

    @rule(data=st.data(), runs=st.integers(3, 9))
    def a_tranche_goes_well(self, data: st.DataObject, runs: int) -> None:
        """Without this, chance alone would seldom get anything paid."""
        deal = self.pick(data, "live")
        if deal is not None:
            for _ in range(runs):
                self.world.run(deal)
                self.exchange(deal)

    @rule(data=st.data())
    def a_link_breaks(self, data: st.DataObject) -> None:
        if (deal := self.pick(data, "live", "settling")) is not None:
            self.world.break_link(deal)

    @rule(data=st.data(), well=st.booleans())
    def a_broken_lease_is_resumed(self, data: st.DataObject, well: bool) -> None:
        if (deal := self.pick(data, "broken")) is not None:
            self.world.resume(deal)
            type(self).resumed += deal.stage == "settling"
            if well and deal.stage == "settling":
                self.exchange(deal)

    @rule(data=st.data(), cut=st.booleans(), answer_lost=st.booleans(), well=st.booleans())
    def a_lease_is_given_back(self, data: st.DataObject, cut: bool, answer_lost: bool, well: bool) -> None:
        if (deal := self.pick(data, "live", "settling")) is not None:
            if well:
                self.exchange(deal)
            self.world.finish(deal, cut=cut, answer_lost=answer_lost)

    @rule(sure=st.sampled_from([False, False, True]))
    def the_provider_may_crash(self, sure: bool) -> None:
        if sure:
            self.the_provider_crashes()

    @rule(sure=st.sampled_from([False, False, True]))
    def the_requester_may_crash(self, sure: bool) -> None:
        if sure:
            self.the_requester_crashes()

    def the_provider_crashes(self) -> None:
        for deal in self.deals("live", "settling"):
            deal.cut()
        self.world.provider.restart(self.world.now_ns)

    def the_requester_crashes(self) -> None:
        for deal in self.deals("live", "settling"):
            self.world.break_link(deal)
        self.world.requester.restart(self.world.now_ns)

    @rule(looks=st.integers(1, 20))
    def time_passes(self, looks: int) -> None:
        self.world.pass_time(looks)
        for deal in self.deals("live", "settling"):
            self.world.provider.tell(deal.id, deal.lane, self.world.now_ns, DeadlinePassed(), deal.to_buyer)
            self.world.requester.tell(deal, self.world.now_ns, DeadlinePassed())

    @precondition(lambda self: self.world.mempool)
    @rule(data=st.data(), fate=st.sampled_from(["run", "run", "twice", "lost"]))
    def a_message_to_the_chain_meets_its_fate(self, data: st.DataObject, fate: str) -> None:
        at = data.draw(st.integers(0, len(self.world.mempool) - 1))
        if fate == "lost" and self.world.mempool[at][0] != "claim":
            self.world.mempool.pop(at)
        else:
            self.world.execute(at, keep=fate == "twice")

    @rule()
    def the_requester_orders_what_it_promised(self) -> None:
        self.world.requester.book.see(self.world.chain.state())
        self.world.order_lanes()

    @rule(data=st.data(), lost=st.booleans())
    def an_idle_lane_is_closed(self, data: st.DataObject, lost: bool) -> None:
        self.world.requester.book.see(self.world.chain.state())
        idle = [
            lane.lane for lane in self.world.requester.book.lanes.values()
            if lane.stage is LaneStage.OPEN and lane.lease is None
        ]
        if idle:
            self.world.close(data.draw(st.sampled_from(idle)), lost=lost)

    def exchange(self, deal: Deal) -> None:
        """Everything that is said arrives, in order."""
        self.world.deliver(deal, len(deal.results))
        while deal.to_buyer or deal.to_seller:
            while deal.to_buyer:
                self.world.hear_buyer(deal, 0)
            while deal.to_seller:
                self.world.hear_seller(deal, 0)

    # --- the laws

    @invariant()
    def a_provider_has_at_most_a_tranche_delivered_and_unpaid_on_a_lease(self) -> None:
        for side in self.world.provider.issuers.values():
            assert unpaid_nanoton(side.tab) <= max(TRANCHE, SETUP + PRICE)

    @invariant()
    def before_its_lane_is_proven_a_lease_costs_a_tranche_and_all_of_them_their_total(self) -> None:
        credit = self.world.provider.credit
        assert sum(given.nanoton for given in credit.open.values()) <= credit.strangers_nanoton
        for side in self.world.provider.issuers.values():
            assert side.proven or side.tab.terms.bill_nanoton(side.tab.units) <= TRANCHE

    @invariant()
    def totals_never_fall_on_a_lane(self) -> None:
        before: dict[int, int] = {}
        for lane, seq in sorted(self.world.requester.promises):
            total = self.world.requester.promises[lane, seq].total_nanoton
            assert total > before.get(lane, 0)
            before[lane] = total

    @invariant()
    def nobody_is_promised_or_paid_more_than_was_accepted(self) -> None:
        requester = self.world.requester
        for (lane, _), voucher in requester.promises.items():
            assert voucher.total_nanoton <= requester.accepted.get(lane, 0)
        for lane, paid in self.world.chain.paid.items():
            assert paid <= requester.accepted.get(lane, 0)

    @invariant()
    def ceilings_of_open_leases_are_covered(self) -> None:
        for lane in self.world.requester.book.lanes.values():
            assert lane.reserved_nanoton == 0 or lane.free_nanoton >= 0

    def teardown(self) -> None:
        """From any state, once the weather is good, every accepted unit is paid, to the nanoton."""
        if not hasattr(self, "world"):
            return
        world = self.world
        self.the_provider_crashes()
        self.the_requester_crashes()
        for _ in range(4):
            self.settle_everything()
        for lane, accepted in world.requester.accepted.items():
            assert world.chain.paid.get(lane, 0) == accepted, f"lane {lane}"
        assert not self.deals("broken", "live", "settling")
        type(self).earned = max(type(self).earned, sum(world.chain.paid.values()))

    def settle_everything(self) -> None:
        world = self.world
        while world.mempool:
            world.execute(0)
        world.pass_time(100)                            # whatever was in flight has run or lapsed
        world.requester.book.see(world.chain.state())
        world.order_lanes()
        while world.mempool:
            world.execute(0)
        for deal in self.deals("broken"):
            world.resume(deal)
            if deal.stage == "settling":
                self.exchange(deal)
                world.finish(deal, cut=False, answer_lost=False)
        for lane in tuple(world.provider.keepers):
            world.provider.keep(lane, world.now_ns, ClaimAsked(), world.chain)
        world.pass_time(2)


PaidInAnyWeather.TestCase.settings = settings(
    max_examples=250, stateful_step_count=40, deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


class TestPaidInAnyWeather(PaidInAnyWeather.TestCase):  # type: ignore[name-defined,misc]
    """Runs the machine, and refuses to pass if nothing of interest happened."""

    def runTest(self) -> None:
        super().runTest()
        assert PaidInAnyWeather.earned >= 3 * TRANCHE, "no example paid three tranches: the test is empty"
        assert PaidInAnyWeather.resumed >= 10, "hardly a lease was resumed: the test is empty"


def test_the_world_pays_in_good_weather() -> None:
    world = World()
    world.lease(answer_lost=False)
    while world.mempool:
        world.execute(0)
    (deal,) = world.deals
    machine: Any = PaidInAnyWeather()
    machine.world = world
    for _ in range(12):
        world.run(deal)
        machine.exchange(deal)
    assert isinstance(world.chain.state(), EscrowState)
    assert world.requester.accepted == {1: terms_of(deal.lease).bill_nanoton(12)}
