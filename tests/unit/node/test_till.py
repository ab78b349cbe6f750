"""The till as the provider's shell keeps it: races, restarts, and what is told to the keepers (LAN-8 to LAN-24)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.core.errors import LaneBusy, LaneClosing, StorageFull, WrongField
from cocoon.core.ids import LeaseId
from cocoon.identity.keys import key_pair
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.terms import LeaseTerms, terms_of
from cocoon.ledger.till import proof_of_lane
from cocoon.node.till import Entry, Till
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import LeaseOpen
from cocoon.wire.orders import CloseOrder
from tests.tvm.chain import TON
from tests.tvm.parties import CAP, NETWORK, OWNER, Escrow, key, payout, provider, public
from tests.unit.ledger.parties import lease
from tests.unit.node.scripted import Heard, Memory
from tests.unit.node.tvm_money import CLOSE_DELAY_S, Clock, TvmLedger, lane_of, money_of

Jumping = trio.testing.MockClock
LEASE_S = 60


@dataclass
class Sold:
    """A provider's till over lane 1 of an escrow."""

    till: Till
    ledger: TvmLedger
    escrow: Escrow
    journal: Memory
    log: Heard

    def terms(self, number: int = 1, lane: int = 1) -> LeaseTerms:
        birth = self.escrow.birth
        return terms_of(lease(
            paid=True, lane=lane, nonce=bytes([number]) * 16, escrow=birth.address(), owner=birth.owner,
            lane_key=birth.lane_key, index=birth.index, close_delay_s=birth.close_delay_s, network_tag=NETWORK,
        ))

    async def enter(self, terms: LeaseTerms, shown: Voucher | None = None) -> Entry:
        voucher = shown or proof_of_lane(NETWORK, self.escrow.address, terms.lane, terms.lease)
        signature = sign_cell(voucher.hash(), self.till.money.lane_key)
        opening = LeaseOpen(lease=b"", keybox=b"", voucher=voucher.pack(), signature=signature)
        return await self.till.enter(terms, opening, LEASE_S, known=False)

    async def leave(self, terms: LeaseTerms) -> None:
        """The lease ends with nothing delivered."""
        await self.till.abandon(terms)

    async def agree_close(self, total: int = 0) -> None:
        order = CloseOrder(self.escrow.head(), 1, total)
        seen = await self.till.money.look(self.escrow.address)
        await self.till.agree_close(order, sign_cell(order.hash(), self.till.money.lane_key), seen)


class SlowDisk(Memory):
    """Appends when it is told to."""

    ready: trio.Event | None = None

    async def append_many(self, rows: Any) -> list[int]:
        if self.ready is not None:
            await self.ready.wait()
        return await super().append_many(rows)


@asynccontextmanager
async def life(ledger: TvmLedger, one: Escrow, journal: Memory) -> AsyncIterator[Sold]:
    """One life of a provider."""
    log = Heard()
    money = money_of(ledger, one, key_pair(bytes(provider(1))))
    till = Till(money, journal, Clock(), log, tranche_nanoton=10**6, strangers_nanoton=10**7)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await till.open(nursery)
        yield Sold(till, ledger, one, journal, log)
        nursery.cancel_scope.cancel()


def deployed() -> tuple[TvmLedger, Escrow]:
    ledger = TvmLedger(payout(1))
    one = Escrow(ledger.chain, EscrowBirth(OWNER, public(key("lane")), NETWORK, 0, CLOSE_DELAY_S))
    one.deploy([1], cap=2 * TON, deposit=5 * TON)
    return ledger, one


@pytest.mark.parametrize("first", ["lease", "close"])
async def test_of_a_lease_and_a_close_that_meet_on_a_lane_one_is_refused(
    autojump_clock: Jumping, first: str
) -> None:
    """While one waited for the disk the other was checked: the lease's vouchers were worth nothing after the close."""
    async with life(*deployed(), SlowDisk()) as here:
        earlier = here.terms(1)
        await here.enter(earlier)
        await here.leave(earlier)
        taken: list[str] = []

        async def attempt(name: str, job: Any, *args: Any) -> None:
            try:
                await job(*args)
                taken.append(name)
            except (LaneBusy, LaneClosing):
                pass

        jobs = [("lease", here.enter, here.terms(2)), ("close", here.agree_close)]
        here.journal.ready = trio.Event()  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            for job in jobs if first == "lease" else jobs[::-1]:
                nursery.start_soon(attempt, *job)
                await trio.testing.wait_all_tasks_blocked()
            here.journal.ready.set()  # type: ignore[attr-defined]
        assert taken == [first]


async def test_a_lane_closed_in_an_earlier_life_is_neither_watched_nor_called_lost(autojump_clock: Jumping) -> None:
    ledger, one = deployed()
    journal = Memory()
    async with life(ledger, one, journal) as here:
        terms = here.terms()
        await here.enter(terms)
        voucher = one.voucher(1, CAP)
        await journal.append_many([here.till.row(terms, voucher, sign_cell(voucher.hash(), here.till.money.lane_key))])
        here.till.keep(terms, voucher, sign_cell(voucher.hash(), here.till.money.lane_key))
        await here.leave(terms)
        await here.agree_close(CAP)
        assert one.close(1, CAP).ok
    for watching in (1, 0):                             # the second life finds that it is gone and records it
        async with life(ledger, one, journal) as again:
            assert len(again.till._keepers) == watching
            await trio.sleep(CLOSE_DELAY_S)
            assert again.log.named("lane_lost") == [] and not again.till._keepers


async def test_a_newer_voucher_that_a_lease_shows_is_claimed_although_nothing_else_is_delivered(
    autojump_clock: Jumping
) -> None:
    async with life(*deployed(), Memory()) as here:
        shown = here.escrow.voucher(1, TON)
        await here.enter(here.terms(), shown)
        while lane_of(here.escrow, 1).paid_nanoton < TON:
            await trio.sleep(1)


async def test_a_voucher_that_we_do_not_know_is_no_money_on_a_lane_that_is_not_on_chain(
    autojump_clock: Jumping
) -> None:
    async with life(*deployed(), Memory()) as here:
        with pytest.raises(WrongField) as refused:
            await here.enter(here.terms(lane=2), here.escrow.voucher(2, TON))
        assert refused.value.code == "wrong_head"
        assert not here.till.lanes.lanes and not here.till.credit.open


async def test_credit_ends_with_its_lease_also_if_the_peer_died_before_it_countersigned(
    autojump_clock: Jumping
) -> None:
    ledger, one = deployed()
    journal = Memory()
    async with life(ledger, one, journal) as here:
        await here.enter(here.terms(lane=2))
        assert here.till.credit.open
    async with life(ledger, one, journal) as again:
        assert not again.till.credit.open and not again.till.credit.owed
        assert not again.till.lanes.open_leases()


async def test_a_full_disk_leaves_the_till_as_its_journal_has_it(autojump_clock: Jumping) -> None:
    async with life(*deployed(), Memory()) as here:
        here.journal.full = 1
        with pytest.raises(StorageFull):
            await here.enter(here.terms())
        assert not here.till.lanes.lanes
        assert (await here.enter(here.terms())).proven
        assert LeaseId(here.terms().lease) == here.till.lanes.lane(here.escrow.address, 1).lease
