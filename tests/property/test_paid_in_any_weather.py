"""Paid leases, lanes, claims and closes together, in any weather.

Links break, answers are lost, words are repeated and late, orders lapse, claims
run twice, both peers crash at any moment and come back with their journals.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.limits import LANE_LOOKS
from cocoon.core.machine import DeadlinePassed
from cocoon.ledger.lanes import LaneStage
from cocoon.ledger.terms import terms_of
from cocoon.wire.orders import CloseOrder, OrderHead
from tests.property.paid_peers import CEILING, ESCROW, PRICE, SETUP, TRANCHE, Deal
from tests.property.paid_world import World
from tests.unit.ledger.parties import BIRTH

#: What a lease affords.
ALL_RUNS = (CEILING - SETUP) // PRICE


class PaidInAnyWeather(RuleBasedStateMachine):
    """``earned``, ``resumed`` and ``happened`` show that the weather let something happen."""

    earned = 0
    resumed = 0
    happened: ClassVar[Counter[str]] = Counter()

    @initialize(past=st.sampled_from(["new", "opened", "topped up", "closed", "expired"]))
    def begin(self, past: str) -> None:
        """The weather begins with a first lease, or when its lane was used already."""
        self.world = World()
        self.world.lease(answer_lost=False)
        (deal,) = self.world.deals
        match past:
            case "opened":
                self.world.execute_all()
            case "topped up":
                self.use_up_and_top_up(deal)
            case "closed":
                self.use_and_close(deal, claim="behind", lost=False)
                self.world.execute_all()
            case "expired":
                self.use_and_close(deal, runs=3, lost=True)
                self.world.execute_all()

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
            self.world.go_well(deal, runs)

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
                self.world.exchange(deal)

    @rule(data=st.data(), cut=st.booleans(), answer_lost=st.booleans(), well=st.booleans())
    def a_lease_is_given_back(self, data: st.DataObject, cut: bool, answer_lost: bool, well: bool) -> None:
        if (deal := self.pick(data, "live", "settling")) is not None:
            if well:
                self.world.end_tranche(deal)
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
        if fate == "lost":
            self.world.lose(at)
        else:
            self.world.execute(at, keep=fate == "twice")

    @precondition(lambda self: self.world.claims_under_way())
    @rule()
    def the_wallet_gives_claims_up(self) -> None:
        for at in reversed(self.world.claims_under_way()):
            self.world.lose(at)

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

    @rule(
        data=st.data(), well=st.booleans(), lost=st.booleans(), runs=st.sampled_from([3, ALL_RUNS]),
        claim=st.sampled_from(["", "before", "behind"]),
    )
    def a_lane_is_used_and_closed(self, data: st.DataObject, well: bool, runs: int, claim: str, lost: bool) -> None:
        if (deal := self.pick(data, "live")) is not None:
            self.use_and_close(deal, runs=runs, claim=claim, lost=lost)
        if well:
            self.world.execute_all()

    @rule(data=st.data())
    def a_lane_is_used_up_and_topped_up(self, data: st.DataObject) -> None:
        if (deal := self.pick(data, "live")) is not None:
            self.use_up_and_top_up(deal)

    @precondition(lambda self: self.world.expiring())
    @rule()
    def a_lane_expires_and_is_removed(self) -> None:
        lanes = self.world.expiring()
        self.time_passes(LANE_LOOKS + 1)
        assert all(self.world.chain.prune(lane) for lane in lanes)

    def use(self, deal: Deal, runs: int = ALL_RUNS) -> None:
        """The lease serves so many runs, by default all that it affords, is settled and given back."""
        self.world.execute_all()
        self.world.go_well(deal, runs)
        self.world.give_back(deal)
        self.time_passes(1)                             # the provider has seen the lane before anything happens to it

    def use_and_close(self, deal: Deal, *, runs: int = ALL_RUNS, claim: str = "", lost: bool) -> None:
        """Perhaps with a claim under way, which the chain takes ``before`` the close, or refuses ``behind`` it."""
        self.use(deal, runs)
        if claim:
            self.world.ask_claims()
        if self.world.requester.book.lanes[deal.lane].stage is LaneStage.OPEN:
            self.world.close(deal.lane, lost=lost)
        if claim == "behind":
            self.world.mempool.sort(key=lambda message: message[0] == "claim")

    def use_up_and_top_up(self, deal: Deal) -> None:
        """The next lease finds the lane too small, orders more and stands on it."""
        self.use(deal)
        for _ in range(2):
            self.world.lease(answer_lost=False)
            self.world.execute_all()
        for further in self.deals("live"):
            self.world.go_well(further, 3)

    # --- the laws

    @invariant()
    def a_provider_has_at_most_a_tranche_delivered_and_unpaid_on_a_lease(self) -> None:
        for side in self.world.provider.issuers.values():
            assert side.tab.open_nanoton <= max(TRANCHE, SETUP + PRICE)

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
    def a_provider_signs_no_close_below_its_newest_voucher_or_with_work_unpaid(self) -> None:
        world = self.world
        head = OrderHead(BIRTH.network_tag, ESCROW, world.chain.order_number, world.chain.now_s + 1)
        for (_, lane), sold in world.provider.till.lanes.items():
            total = sold.head.total_nanoton
            assert total == 0 or world.agree(CloseOrder(head, lane, total - 1)) is None
            if sold.lease is not None and world.provider.issuer(sold.lease, lane).tab.open:
                assert world.agree(CloseOrder(head, lane, total)) is None

    @invariant()
    def ceilings_of_open_leases_are_covered(self) -> None:
        seen = self.world.chain.state().lanes
        for lane in self.world.requester.book.lanes.values():
            # After a crash the book has the cap that was promised, until it looks: a top-up is no fact of its own.
            cap = max(lane.cap_nanoton, seen[lane.lane].cap_nanoton if lane.lane in seen else 0)
            # From where the lease began: what the chain paid of it since is part of its ceiling.
            assert lane.lease is None or lane.head.total_nanoton + lane.reserved_nanoton <= cap

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
        type(self).happened.update(world.chain.happened)

    def settle_everything(self) -> None:
        world = self.world
        world.execute_all()
        world.pass_time(100)                            # whatever was in flight has run or lapsed
        world.requester.book.see(world.chain.state())
        world.order_lanes()
        world.execute_all()
        for deal in self.deals("broken"):
            world.resume(deal)
            if deal.stage == "settling":
                self.world.exchange(deal)
                world.finish(deal, cut=False, answer_lost=False)
        world.ask_claims()
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
        for what in ("topped up", "closed", "expired", "pruned", "claims refused"):
            assert PaidInAnyWeather.happened[what] >= 5, f"{what}: {PaidInAnyWeather.happened}: the test is empty"


def served(runs: int) -> tuple[World, Deal]:
    """A first lease in good weather, settled and given back."""
    world = World()
    world.lease(answer_lost=False)
    world.execute_all()
    (deal,) = world.deals
    world.go_well(deal, runs)
    world.give_back(deal)
    return world, deal


def test_the_world_pays_in_good_weather() -> None:
    world, deal = served(7)
    world.ask_claims()
    world.execute_all()
    bill = terms_of(deal.lease).bill_nanoton(7)
    assert world.requester.accepted == world.chain.paid == {deal.lane: bill}
    assert world.chain.lanes[deal.lane].paid_nanoton == bill and deal.stage == "done"


def test_a_lane_that_was_used_up_closes_at_its_bill_and_pays_in_the_same_moment() -> None:
    world, deal = served(ALL_RUNS)
    world.close(deal.lane, lost=False)
    world.execute_all()
    assert world.chain.paid == {deal.lane: terms_of(deal.lease).bill_nanoton(ALL_RUNS)} and not world.chain.lanes


def test_a_lane_that_was_used_up_is_topped_up_and_serves_on() -> None:
    world, deal = served(ALL_RUNS)
    world.lease(answer_lost=False)
    assert len(world.deals) == 1, "it may cost more than the lane has left"
    world.execute_all()
    world.lease(answer_lost=False)
    (_, further) = world.deals
    world.go_well(further, 3)
    world.give_back(further)
    assert further.lane == deal.lane and list(world.chain.lanes) == [deal.lane]
    world.ask_claims()
    world.execute_all()
    assert world.chain.paid == world.requester.accepted
