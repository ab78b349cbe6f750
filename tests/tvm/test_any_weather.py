"""An escrow on the real TVM in any weather: messages are signed, lost, kept, delivered late and again.

Every signed thing goes into a pool from which anybody delivers anything at any time: that is what a crash
on either side, a liar and a bad network amount to. The model says what must happen; the contract's state,
its balance, and what every party got are compared to the nanoton after each step.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cocoon.ledger import escrow
from cocoon.ledger.acts import EscrowHistory
from cocoon.ledger.audit import audit_escrow
from cocoon.ledger.tlb import read_transaction
from cocoon.wire import orders
from cocoon.wire.cells import Cell
from cocoon.wire.orders import NewLane, TopUp
from tests.tvm.chain import OUT_OF_GAS, TON, Chain, Prices, Result
from tests.tvm.model import Action, Claim, Leaves, Model, Order, OwnerMessage, Prune, Refused
from tests.tvm.parties import CAP, CARRIER, DAY_S, OWNER, Escrow, payout, provider, public

lanes = st.integers(0, 5)
#: Around what a lane may ever have, and its edges.
amounts = st.sampled_from([0, 1, 10**7, 2 * 10**7 - 1, 2 * 10**7, 5 * 10**7, CAP - 1, CAP, CAP + 1, TON, 5 * TON])
lives = st.sampled_from([1, 3_600, 30 * DAY_S, 400 * DAY_S, 400 * DAY_S + 1])


class EscrowInAnyWeather(RuleBasedStateMachine):
    """One escrow, its model, and everything that was ever signed."""

    @initialize(deposit=st.sampled_from([CAP + escrow.reserve_nanoton(1), TON, 5 * TON]))
    def begin(self, deposit: int) -> None:
        self.chain = Chain()
        self.escrow = Escrow(self.chain)
        self.escrow.deploy(deposit=deposit)
        self.model = Model(self.escrow.birth.close_delay_s, 1, 1, dict(self.escrow.state.lanes))
        self.pool: list[tuple[Action, Cell]] = []
        self.got: dict[bytes, int] = defaultdict(int)
        self.balance = self.escrow.balance
        self.history, self.read = EscrowHistory(), 0
        self.deposited, self.storage = deposit, 0
        self.slack = 0

    # --- signing: into the pool, delivered or not ---

    @rule(
        ids=st.lists(st.integers(0, 2), min_size=1, max_size=3), cap=amounts, life=lives, new=st.booleans(),
        keep=st.sampled_from([0, 0, TON]), ahead=st.sampled_from([0, 0, 0, 1]), deliver=st.booleans(),
    )
    def open(self, ids: list[int], cap: int, life: int, new: bool, keep: int, ahead: int, deliver: bool) -> None:
        until, first = self.chain.now_s + life, self.model.next_lane
        if new:
            made: tuple[Any, ...] = tuple(
                NewLane(first + i, cap, until, payout(first + i), public(provider(first + i))) for i in sorted(ids)
            )
        else:
            made = tuple(TopUp(max(0, first - 1 - i), cap, until) for i in ids)
        self.sign(self.order("open", made, keep, ahead), deliver)

    @rule(ids=st.lists(lanes, min_size=1, max_size=3), deliver=st.booleans())
    def expire(self, ids: list[int], deliver: bool) -> None:
        self.sign(self.order("expire", tuple(ids)), deliver)

    @rule(lane=lanes, total=amounts, by_provider=st.sampled_from([True, True, False]), deliver=st.booleans())
    def close(self, lane: int, total: int, by_provider: bool, deliver: bool) -> None:
        order = self.order("close", (lane, total))
        self.sign(Order(order.number, order.valid_until_s, "close", order.what, 0, by_provider), deliver)

    @rule(amount=amounts, keep=st.sampled_from([0, TON]), deliver=st.booleans())
    def withdraw(self, amount: int, keep: int, deliver: bool) -> None:
        self.sign(self.order("withdraw", (amount,), keep), deliver)

    @rule(deliver=st.booleans())
    def cancel(self, deliver: bool) -> None:
        self.sign(self.order("cancel", ()), deliver)

    @rule(lane=lanes, total=amounts, external=st.booleans(), deliver=st.booleans())
    def promise(self, lane: int, total: int, external: bool, deliver: bool) -> None:
        self.sign(Claim(lane, total, external), deliver)

    # --- unsigned messages ---

    @rule(ids=st.lists(lanes, min_size=1, max_size=3))
    def prune(self, ids: list[int]) -> None:
        action = Prune(tuple(ids))
        self.deliver(action, escrow.prune_body(1, ids))

    @rule(amount=st.none() | amounts, source=st.sampled_from([OWNER, OWNER, CARRIER]))
    def owner(self, amount: int | None, source: bytes) -> None:
        body = escrow.expire_all_body(1) if amount is None else escrow.owner_withdraw_body(1, amount)
        self.deliver(OwnerMessage(amount, source), body)

    @rule(amount=st.sampled_from([10**6, TON, 3 * TON]))
    def deposit(self, amount: int) -> None:
        result = self.escrow.deposit(amount)
        self.balance += amount - (result.fees - result.storage) - result.storage
        self.deposited += amount - (result.fees - result.storage)
        self.storage += result.storage

    # --- weather ---

    @rule(seconds=st.sampled_from([1, 3_599, 3_600, DAY_S, 30 * DAY_S, 200 * DAY_S]))
    def time_passes(self, seconds: int) -> None:
        self.chain.now_s += seconds

    @rule(place=st.integers(0, 30))
    def again(self, place: int) -> None:
        """Something old, by anybody."""
        if self.pool:
            self.deliver(*self.pool[place % len(self.pool)])

    @rule(place=st.integers(0, 30), value=st.sampled_from([10**6, 2 * 10**6, 3 * 10**6]))
    def too_little(self, place: int, value: int) -> None:
        """A carrier that brings less than the cost changes nothing."""
        inside = [(action, body) for action, body in self.pool if not getattr(action, "external", False)]
        if inside:
            _, body = inside[place % len(inside)]
            result = self.chain.internal(self.escrow.address, value, body, source=CARRIER)
            assert result.exit_code != 0
            self.unchanged(result)

    # --- how ---

    def order(self, kind: str, what: tuple[object, ...], keep: int = 0, ahead: int = 0) -> Order:
        return Order(self.model.order_number + ahead, self.chain.now_s + 3_600, kind, what, keep)

    def sign(self, action: Action, deliver: bool) -> None:
        self.pool.append((action, self.body(action)))
        if deliver:
            self.deliver(*self.pool[-1])

    def body(self, action: Action) -> Cell:
        one = self.escrow
        if isinstance(action, Claim):
            voucher = one.voucher(action.lane, action.total)
            return one.external_body(voucher) if action.external else one.claim_body(voucher)
        assert isinstance(action, Order)
        head = one.head(number=action.number, valid_until_s=action.valid_until_s)
        what: Any = action.what
        makers = {
            "open": lambda: orders.open_order(head, what),
            "expire": lambda: orders.expire_order(head, what),
            "close": lambda: orders.close_order(head, *what),
            "withdraw": lambda: orders.withdraw_order(head, *what),
            "cancel": lambda: orders.cancel_order(head),
        }
        order = makers[action.kind]()
        second = None
        if action.kind == "close" and action.by_provider:
            second = provider(what[0]).sign(order.hash()).signature
        return escrow.order_body(1, action.keep, one.lane_key.sign(order.hash()).signature, order, second)

    def deliver(self, action: Action, body: Cell) -> None:
        if isinstance(action, Claim) and action.external:
            return self.deliver_external(action, body)
        source = action.source if isinstance(action, OwnerMessage) else CARRIER
        value = TON // 5 + getattr(action, "keep", 0)
        result = self.chain.internal(self.escrow.address, value, body, source=source)
        tried = self.model.copy()
        try:
            leaves = tried.run(action, self.chain.now_s, self.balance - result.storage)
        except Refused as refusal:
            assert result.exit_code == refusal.args[0], (action, result, refusal)
            return self.unchanged(result)
        assert result.ok, (action, result)
        self.model = tried
        self.ran(result, leaves, source)

    def ran(self, result: Result, leaves: Leaves, source: bytes) -> None:
        """The balance changed by deposit, storage and what left, and by nothing else."""
        assert result.delta == leaves.keep - result.storage - leaves.out
        self.balance += result.delta
        self.storage += result.storage
        self.deposited += leaves.keep
        sent = {out.dest: out.value for out in result.outs}
        if leaves.out and leaves.dest != source:
            assert sent[leaves.dest] == leaves.out
        self.got[leaves.dest] += leaves.out
        assert sum(out.value for out in result.outs) == result.brought - result.delta - result.burnt
        assert not any(out.bounced for out in result.outs)

    def deliver_external(self, action: Claim, body: Cell) -> None:
        before, depth = self.escrow.balance, self.escrow.state.depth
        result = self.chain.external(self.escrow.address, body)
        if result.exit_code in (None, OUT_OF_GAS):
            assert before < self.worst(depth), (action, result)
            return
        if not result.accepted:
            # Refused for a reason that the model knows, or because it does not pay for itself.
            tried = self.model.copy()
            try:
                tried.run(action, self.chain.now_s, before)
                tried.external_due(action, before, self.worst(depth))
            except Refused as refusal:
                assert result.exit_code == refusal.args[0], (action, result, refusal)
                return
            raise AssertionError(f"{action} was refused")
        leaves = self.model.run(action, self.chain.now_s, before)
        due = self.model.external_due(action, before, 0)
        self.model.pay(action.lane, due)
        # What it cost the escrow is the due, or a little less: never more.
        slack = due + result.delta + result.storage
        assert result.ok and 0 <= slack < 2 * 10**6, (slack, result)
        self.balance += result.delta
        self.storage += result.storage
        self.slack += slack
        self.got[leaves.dest] += due
        (sent,) = result.outs
        assert sent.dest == leaves.dest and 0 < sent.value < due

    def worst(self, depth: int) -> int:
        gas = escrow.GAS_EXTERNAL + escrow.GAS_LEVEL * depth
        return Prices().gas_fee_nanoton(gas) + Prices().forward_fee_nanoton(escrow.EXTERNAL_CELLS, escrow.EXTERNAL_BITS)

    def unchanged(self, result: Result) -> None:
        """A refusal costs the escrow nothing but its own storage."""
        gift = result.delta + result.storage
        # What is too little to go back stays; it is never the escrow's own.
        assert gift == 0 or (gift > 0 and not result.outs), result
        self.deposited += gift
        self.balance += result.delta
        self.storage += result.storage

    @invariant()
    def the_contract_is_as_the_model_says(self) -> None:
        state = self.escrow.state
        assert (state.order_number, state.next_lane) == (self.model.order_number, self.model.next_lane)
        assert state.lanes == self.model.lanes
        assert state.locked_nanoton == self.model.locked
        assert self.escrow.balance == self.balance

    @invariant()
    def an_audit_follows_it_from_its_transactions(self) -> None:
        for cell in self.chain.transactions[self.read :]:
            self.history.take(read_transaction(cell).transaction)
        self.read = len(self.chain.transactions)
        assert audit_escrow(self.history, self.escrow.state, self.escrow.balance) == []

    @invariant()
    def money_is_exact(self) -> None:
        assert self.balance == self.deposited - self.storage - sum(self.got.values()) + self.slack
        self.chain.check_supply()


def _run(examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        EscrowInAnyWeather,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_an_escrow_keeps_its_word_in_any_weather() -> None:
    _run(100)


@pytest.mark.long
def test_an_escrow_keeps_its_word_in_any_weather_for_long() -> None:
    _run(2_000)
