"""Lanes as the requester's shell opens and gives them back, on an escrow in the real TVM (LAN-1 to LAN-7, WAL-15)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import CapExceeded, ChainRefused, ClockSkewed, InsufficientFunds
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import CLOCK_SKEW_S, ESCROW_LANES
from cocoon.identity.keys import key_pair
from cocoon.ledger.escrow import EscrowBirth, order_body
from cocoon.ledger.lanes import LanePromised, LaneStage, LeaseReserved
from cocoon.node.footing import Footing
from cocoon.node.recovery import recover
from cocoon.node.treasury import Treasury
from cocoon.scheduler.selection import Quote
from cocoon.wire.judged import sign_cell
from cocoon.wire.orders import CloseOrder
from cocoon.wire.signing import Signed
from tests.tvm.chain import GENESIS_S, TON
from tests.tvm.parties import CAP, DAY_S, NETWORK, OWNER, Escrow, key, payout, provider, public
from tests.unit.ledger.parties import lease
from tests.unit.node.scripted import Heard, Memory
from tests.unit.node.tvm_money import CLOSE_DELAY_S, TvmLedger, lane_of, money_of

Jumping = trio.testing.MockClock
ONE, TWO = 1, 2
UNTIL_S = GENESIS_S + 30 * DAY_S


@dataclass
class Bought:
    """A requester with its escrow."""

    treasury: Treasury
    ledger: TvmLedger
    escrow: Escrow
    log: Heard

    async def reserve(self, seller: int, need_nanoton: int = CAP) -> int:
        """A lane with this seller for a lease that may cost so much."""
        def make(footing: Footing) -> Signed[Any]:
            nonce = bytes([seller, footing.lane]) * 8
            return lease(paid=True, lane=footing.lane, ceiling_nanoton=need_nanoton, nonce=nonce)

        signed, _ = await self.treasury.reserve(quote(seller), need_nanoton, make)
        return int(signed.message.lane)


def quote(seller: int) -> Quote:
    """What the book looks at in an offer."""
    return Quote(
        PeerKey(bytes([seller]) * 32), bytes(32), None, b"", payout(seller), public(provider(seller)),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def bought(skew_s: int = 0, **made: Any) -> AsyncIterator[Bought]:
    ledger, log = TvmLedger(OWNER, **made), Heard()
    one = Escrow(ledger.chain, EscrowBirth(OWNER, public(key("lane")), NETWORK, 0, CLOSE_DELAY_S))
    async with trio.open_nursery() as nursery:
        money: Any = money_of(ledger, one)
        treasury = Treasury(money, Memory(), nursery, log, CAP, lambda: ledger.chain.now_s + skew_s)  # type: ignore[arg-type]
        treasury.restore()
        yield Bought(treasury, ledger, one, log)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("skew_s", [-CLOCK_SKEW_S - 1, CLOCK_SKEW_S + 1])
async def test_a_machine_with_a_wrong_clock_orders_no_lane(skew_s: int, autojump_clock: Jumping) -> None:
    async with bought(skew_s) as here:
        with pytest.raises(ClockSkewed):
            await here.reserve(ONE)
        assert here.ledger.chain.transactions == [] and here.treasury.book.lanes == {}


async def test_the_first_lane_is_opened_and_the_next_lease_begins_while_its_lane_is_on_its_way(
    autojump_clock: Jumping
) -> None:
    async with bought() as here:
        assert await here.reserve(ONE) == 1 and lane_of(here.escrow, 1) is not None
        assert await here.reserve(TWO) == 2
        assert here.treasury.lane(2).stage is LaneStage.PROMISED
        await here.treasury.arrived(2)
        assert lane_of(here.escrow, 2) is not None


async def test_a_lane_that_the_wallet_cannot_pay_keeps_no_other_from_being_opened(autojump_clock: Jumping) -> None:
    async with bought(failures=[CapExceeded("above the hour's cap")]) as here:
        with pytest.raises(CapExceeded):
            await here.reserve(ONE, 100_000 * TON)
        assert await here.reserve(TWO) == 2
        assert list(here.escrow.state.lanes) == [2]
        assert here.treasury.lane(1).stage is LaneStage.GONE, "its id is never given again"


async def test_no_lease_begins_on_credit_before_a_lane_that_the_wallet_cannot_pay(autojump_clock: Jumping) -> None:
    """The user hears of the wallet at once, and not of a lease that broke off after a tranche."""
    async with bought() as here:
        await here.reserve(ONE)
        here.ledger.balance_nanoton = TON
        here.ledger.failures = [InsufficientFunds("the wallet holds too little")]
        with pytest.raises(InsufficientFunds):
            await here.reserve(TWO, 2 * TON)
        assert await here.reserve(TWO) == 2


async def test_many_lanes_are_opened_in_one_order_that_brings_their_gas(autojump_clock: Jumping) -> None:
    """With the value that one lane takes the escrow refuses to open 25."""
    async with bought() as here:
        await here.reserve(ONE)
        await promise_and_reserve(here.treasury, range(2, 52))
        assert await here.reserve(TWO) == 52
        await here.treasury.arrived(52)
        assert list(here.escrow.state.lanes) == list(range(1, 53))


async def promise_and_reserve(treasury: Treasury, lanes: range) -> None:
    """Lanes on credit whose orders went nowhere, each with its lease."""
    for lane in lanes:
        sold = quote(lane)
        await treasury._record(LanePromised(lane, sold.provider, sold.payout, sold.provider_key, CAP, UNTIL_S))
        await treasury._record(LeaseReserved(lane, LeaseId(bytes([lane]) * 32), CAP))


async def test_a_lease_that_waits_for_its_lane_holds_up_none_whose_lane_is_there(autojump_clock: Jumping) -> None:
    async with bought() as here:
        lane = await here.reserve(ONE)
        await here.treasury.release(lane, LeaseId(here.treasury.lane(lane).lease or b""), here.treasury.lane(lane).head)
        async with here.treasury.orders.turn():         # somebody's order takes its time
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.reserve, TWO, 30 * TON)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(1):
                    assert await here.reserve(ONE) == lane
                nursery.cancel_scope.cancel()


async def test_an_order_whose_number_a_close_has_used_up_is_made_anew(autojump_clock: Jumping) -> None:
    """A provider that was asked to agree to a close may carry it later, under the number of our next order."""
    async with bought() as here:
        lane = await here.reserve(ONE)
        async with here.treasury.orders.turn() as turn:
            asked = CloseOrder(turn.head, lane, 0)
            signature = sign_cell(asked.hash(), here.treasury.money.lane_key)
        agreed = key_pair(bytes(provider(ONE))).sign(asked.hash())
        original = here.ledger.submit

        async def overtaken(name: bytes, message: Any) -> Any:
            here.ledger.submit = original  # type: ignore[method-assign]
            body = order_body(1, 0, signature, asked.cell(), agreed)
            assert here.ledger.chain.internal(here.escrow.address, TON // 10, body).ok
            return await original(name, message)

        here.ledger.submit = overtaken  # type: ignore[method-assign]
        here.ledger.chain.set_balance(here.escrow.address, CAP)     # no credit: the lease waits for its lane
        assert await here.reserve(TWO) == 2
        assert list(here.escrow.state.lanes) == [2] and len(here.ledger.names) == 3


# --- recovery ----------------------------------------------------------------


async def test_an_escrow_full_of_lanes_is_recovered_in_two_calls(autojump_clock: Jumping) -> None:
    async with bought() as here:
        here.escrow.deploy(range(1, ESCROW_LANES + 1), deposit=20 * TON, life_s=30 * DAY_S)
        before = here.escrow.balance
        first = await recover(here.treasury.money, here.treasury.orders)
        assert first["locked_nanoton"] == ESCROW_LANES * CAP and first["free_at_s"] > 0
        assert first["recovered_nanoton"] == before - here.escrow.balance > 0
        await trio.sleep(first["free_at_s"] - here.ledger.chain.now_s)
        second = await recover(here.treasury.money, here.treasury.orders)
        assert second["locked_nanoton"] == 0 and second["recovered_nanoton"] > ESCROW_LANES * CAP - TON // 10
        assert not here.escrow.state.lanes


async def test_a_recovery_that_the_escrow_refused_can_be_tried_again(autojump_clock: Jumping) -> None:
    async with bought(starved=1) as here:
        here.escrow.deploy([1])
        with pytest.raises(ChainRefused):
            await recover(here.treasury.money, here.treasury.orders)
        await trio.sleep(5)
        assert (await recover(here.treasury.money, here.treasury.orders))["recovered_nanoton"] > 0
