"""Claims as the provider's shell makes them, from an escrow in the real TVM (LAN-15 to LAN-21)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import CapExceeded, CocoonError, InsufficientFunds
from cocoon.core.ids import PeerKey
from cocoon.core.limits import LANE_LOOKS
from cocoon.ledger.claims import ClosePending, VoucherSettled
from cocoon.ledger.escrow import EscrowBirth, LaneState
from cocoon.ledger.till import SoldLane
from cocoon.node.keeper import Keeper
from cocoon.wire.judged import Voucher
from tests.tvm.chain import TON
from tests.tvm.parties import CAP, NETWORK, OWNER, Escrow, key, payout, public
from tests.unit.node.scripted import Heard
from tests.unit.node.tvm_money import CLOSE_DELAY_S, Clock, TvmLedger, lane_of, money_of

Jumping = trio.testing.MockClock
#: At once; only if somebody asks, and not from outside; never.
DUE, SMALL, TOO_SMALL = CAP // 2, 8_000_000, 5_000_000
LOOK_S = CLOSE_DELAY_S / LANE_LOOKS


@dataclass
class Watched:
    """A keeper of lane 1, its contract, and what it told."""

    keeper: Keeper
    ledger: TvmLedger
    escrow: Escrow
    log: Heard
    gone: list[bool]

    async def settle(self, total: int, seq: int = 1) -> Voucher:
        """A voucher of the requester comes in."""
        voucher = self.escrow.voucher(1, total, seq=seq)
        await self.keeper.tell(VoucherSettled(voucher, self.escrow.lane_key.sign(voucher.hash()).signature))
        return voucher

    @property
    def paid(self) -> int:
        return int(lane_of(self.escrow, 1).paid_nanoton)

    async def until_paid(self, total: int) -> None:
        while self.paid < total:
            await trio.sleep(1)


@asynccontextmanager
async def watched(**made: Any) -> AsyncIterator[Watched]:
    ledger = TvmLedger(payout(1), **made)
    one = Escrow(ledger.chain, EscrowBirth(OWNER, public(key("lane")), NETWORK, 0, CLOSE_DELAY_S))
    one.deploy([1])
    log, gone = Heard(), []

    def seen(state: LaneState | None) -> None:
        """Nobody works on the lane."""

    async def record() -> None:
        gone.append(True)

    lane = SoldLane(one.address, 1, PeerKey(bytes(32)))
    keeper = Keeper(money_of(ledger, one), Clock(), log, lane, seen, record)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield Watched(keeper, ledger, one, log, gone)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [CapExceeded("the hour's cap is used up"), InsufficientFunds("no coin")])
async def test_a_claim_that_cannot_be_carried_is_tried_once_a_look_until_it_can(
    autojump_clock: Jumping, error: CocoonError
) -> None:
    """At once it would only fail again: hundreds of tries in no time, each with rows of its own on disk."""
    tries = 400
    async with watched(failures=[error] * tries) as here:
        await here.settle(SMALL)
        await here.keeper.claim_now()
        assert len(here.ledger.names) == 1
        here.ledger.failures[100:] = []
        await here.settle(DUE, seq=2)
        begun_s = trio.current_time()
        await here.until_paid(DUE)
        waited_s = trio.current_time() - begun_s
    if isinstance(error, CapExceeded):
        assert abs(waited_s - 100 * LOOK_S) <= 3 * LOOK_S and len(here.ledger.names) == 102


async def test_a_claim_that_the_escrow_refused_leaves_the_wallet_again_under_another_name(
    autojump_clock: Jumping
) -> None:
    async with watched(starved=2) as here:
        await here.settle(DUE)
        await here.until_paid(DUE)
    assert len(here.ledger.names) == len(set(here.ledger.names)) == 3


async def test_an_escrow_that_could_pay_a_part_is_asked_for_the_rest(autojump_clock: Jumping) -> None:
    async with watched() as here:
        here.ledger.chain.set_balance(here.escrow.address, DUE // 2)
        await here.settle(DUE)
        await here.until_paid(DUE // 4)
        assert here.paid < DUE
        here.escrow.deposit(TON)
        await here.keeper.claim_now()
        assert here.paid == DUE
    assert len(here.ledger.names) == len(set(here.ledger.names)) == 2


async def test_a_provider_without_a_coin_claims_from_outside_if_that_pays_for_itself(autojump_clock: Jumping) -> None:
    async with watched(failures=[InsufficientFunds("no coin")]) as here:
        await here.settle(DUE)
        await here.until_paid(DUE)
        assert here.ledger.chain.balance(payout(1)) > 0


async def test_a_provider_without_a_coin_leaves_what_would_not_pay_for_a_claim_from_outside(
    autojump_clock: Jumping
) -> None:
    async with watched(failures=[InsufficientFunds("no coin")]) as here:
        await here.settle(SMALL)
        await here.keeper.claim_now()
        assert here.paid == 0
        (told,) = here.log.named("claim_failed")
        assert told["code"] == "insufficient_funds" and "send coins" in told["text"]


async def test_everybody_who_asks_for_what_is_due_is_answered(autojump_clock: Jumping) -> None:
    async with watched() as here:
        await here.settle(CAP // 4)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(here.keeper.claim_now)
        assert here.paid == CAP // 4 and len(here.ledger.names) == 1


@pytest.mark.parametrize(("signed", "lost"), [(True, []), (False, [TOO_SMALL])])
async def test_a_lane_that_is_gone_is_recorded_once_and_lost_is_only_what_no_close_paid(
    autojump_clock: Jumping, signed: bool, lost: list[int]
) -> None:
    async with watched() as here:
        await here.settle(TOO_SMALL)
        await here.keeper.claim_now()                   # seen, and worth no claim
        await trio.sleep(LOOK_S)
        if signed:
            await here.keeper.tell(ClosePending(TOO_SMALL))
        assert here.escrow.close(1, TOO_SMALL if signed else 0).ok
        await trio.sleep(3 * LOOK_S)
        assert here.gone == [True] and here.keeper.machine.gone
        assert [told["total_nanoton"] for told in here.log.named("lane_lost")] == lost
        with trio.fail_after(1):
            await here.keeper.claim_now()
