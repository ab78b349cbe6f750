"""What goes on while the chain is away, or loses a message: prices (CHN-9) and the faucet (DEV-20)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from cocoon.config.network import ChainFacts
from cocoon.core.errors import ChainRefused, ChainUnreachable
from cocoon.core.limits import CHAIN_VERB_NS, OUTBOX_RESEND_NS, PRICES_KEPT_NS, PRICES_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.chain import Chain
from cocoon.ledger.onchain import Account, Prices, Transaction
from cocoon.ledger.service import Ledger
from cocoon.wire.cells import Cell

FAUCET, WALLET = b"\x0f" * 32, b"\x0a" * 32
FACTS = ChainFacts(bytes(31) + b"\x01", 60, 60, False, FAUCET)
PRICES = Prices(400 << 16, 100, 40_000, 400_000, 26_214_400, 2_621_440_000, 21_845, 1, 500)


class Clock:
    """trio's clock in nanoseconds."""

    def now_ns(self) -> int:
        return int(trio.current_time() * SECOND_NS)


@dataclass
class Pool:
    """Gives prices, or does not answer."""

    told: Prices = PRICES
    away: bool = False
    asked: int = 0

    async def prices(self) -> Prices:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.away:
            await trio.sleep(30)
            raise ChainUnreachable("nobody answers")
        return self.told


class Bridge:
    """This loop instead of another one."""

    async def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        return await make()


@asynccontextmanager
async def chain_over(pool: Pool) -> AsyncIterator[Chain]:
    """A chain that has read its prices."""
    async with trio.open_nursery() as nursery:
        chain = Chain(Bridge(), pool, FACTS, Clock(), nursery)  # type: ignore[arg-type]
        await chain.prices()
        yield chain
        nursery.cancel_scope.cancel()


async def test_old_prices_stand_in_at_once_for_a_chain_that_is_away(autojump_clock: trio.testing.MockClock) -> None:
    async with chain_over(pool := Pool()) as chain:
        pool.away = True
        await trio.sleep(2 * PRICES_NS / SECOND_NS)
        before = trio.current_time()
        for _ in range(3):
            assert await chain.prices() == PRICES
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == before and pool.asked == 2, "one reading at a time, and nobody waits for it"


async def test_prices_that_changed_are_known_after_the_next_question(autojump_clock: trio.testing.MockClock) -> None:
    async with chain_over(pool := Pool()) as chain:
        pool.told = replace(PRICES, flat_gas_nanoton=50_000)
        await trio.sleep(2 * PRICES_NS / SECOND_NS)
        await chain.prices()
        await trio.testing.wait_all_tasks_blocked()
        assert (await chain.prices()).flat_gas_nanoton == 50_000
        assert pool.asked == 2


async def test_a_reading_that_failed_is_tried_again_with_the_next_question(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with chain_over(pool := Pool(away=False)) as chain:
        pool.away = True
        await trio.sleep(2 * PRICES_NS / SECOND_NS)
        await chain.prices()
        await trio.sleep(60)
        pool.away, pool.told = False, replace(PRICES, flat_gas_nanoton=50_000)
        await chain.prices()
        await trio.testing.wait_all_tasks_blocked()
        assert (await chain.prices()).flat_gas_nanoton == 50_000


async def test_prices_of_another_day_stand_in_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with chain_over(pool := Pool()) as chain:
        pool.away = True
        await trio.sleep(2 * PRICES_KEPT_NS / SECOND_NS)
        with pytest.raises(ChainUnreachable):
            await chain.prices()


# --- the faucet --------------------------------------------------------------


@dataclass
class Faucet:
    """A chain with a block every second, and a faucet that hears the ``hears``-th message first, or none."""

    hears: int = 1
    #: Blocks from the faucet's transaction to the coins.
    way: int = 1
    refuses: bool = False
    sent: list[bytes] = field(default_factory=list)
    given: list[tuple[int, Transaction]] = field(default_factory=list)

    @property
    def block(self) -> int:
        return int(trio.current_time())

    async def account(self, address: bytes) -> Account:
        await trio.lowlevel.checkpoint()
        return Account(address, 0, None, None, 7, bytes(32), self.block, 1_000)

    async def transactions(self, address: bytes, after_lt: int = 0, most: int = 256) -> list[Transaction]:
        await trio.lowlevel.checkpoint()
        if address == FAUCET:
            return [given for _, given in self.given]
        arrived = [given for block, given in self.given if block + self.way <= self.block]
        return [replace(given, address=WALLET, in_source=FAUCET) for given in arrived]

    async def send(self, message: Cell) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ChainRefused("not so much")
        self.sent.append(message.hash())
        if 0 < self.hears <= len(self.sent):
            body = message.refs[0]
            given = Transaction(FAUCET, 8, bytes(32), 1_000, 1, None, 0, message.hash(), body, False, (), 0, True)
            self.given.append((self.block, given))

    async def wait_block(self, after: int) -> int:
        await trio.sleep(1)
        return self.block


def ledger_over(faucet: Faucet) -> Ledger:
    """A ledger that can do nothing but ask the faucet."""
    signer = SimpleNamespace(address=lambda network: WALLET)
    return Ledger(FACTS, faucet, signer, None, Clock(), None, 0)  # type: ignore[arg-type]


async def test_coins_come_although_the_first_words_to_the_faucet_were_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    faucet = Faucet(hears=3)
    await ledger_over(faucet).fund(5)
    assert len(faucet.sent) == 3 and len(set(faucet.sent)) == 1, "the same bytes each time"


async def test_a_faucet_that_gave_is_not_asked_again_however_long_its_coins_travel(
    autojump_clock: trio.testing.MockClock,
) -> None:
    faucet = Faucet(way=10 * OUTBOX_RESEND_NS // SECOND_NS)
    await ledger_over(faucet).fund(5)
    assert len(faucet.sent) == 1


async def test_coins_that_never_come_are_given_up(autojump_clock: trio.testing.MockClock) -> None:
    faucet = Faucet(hears=0)
    with trio.fail_after(2 * CHAIN_VERB_NS / SECOND_NS), pytest.raises(ChainUnreachable, match="did not arrive"):
        await ledger_over(faucet).fund(5)
    assert 2 < len(faucet.sent) <= CHAIN_VERB_NS // OUTBOX_RESEND_NS


async def test_a_refusal_of_the_faucet_is_told(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ChainRefused):
        await ledger_over(Faucet(refuses=True)).fund(5)
