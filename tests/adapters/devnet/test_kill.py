"""A devnet that is killed at any moment goes on as the same chain: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random

import pytest
from pytoniq_core import Address

from tests.adapters.devnet.chain_books import read_books
from tests.adapters.devnet.devnet_process import (
    SUPPLY,
    TON,
    ask_faucet,
    balance,
    client_of,
    next_block,
    running,
    until_balance,
    until_seqno,
    wallet,
)

GIFTS = 40


def somebody(number: int) -> Address:
    return Address((0, number.to_bytes(32, "big")))


async def give_until_dead(devnet, first: int, kill_after: int) -> list[int]:
    """Ask for gifts several at a time, kill the devnet after some answers; the numbers that were acknowledged."""
    acknowledged: list[int] = []

    async def give(client, number):
        await client.raw_send_message(ask_faucet(devnet, somebody(number), TON + number, number))
        acknowledged.append(number)
        if len(acknowledged) == kill_after:
            devnet.kill()

    async with client_of(devnet) as client:
        gifts = [give(client, first + number) for number in range(GIFTS)]
        await asyncio.gather(*gifts, return_exceptions=True)
    return acknowledged


async def until_all_arrived(devnet, numbers: list[int]):
    """Wait for every acknowledged gift, then read the books of the whole chain."""
    async with client_of(devnet) as client:
        for number in numbers:
            await until_balance(client, somebody(number), TON + number)
        await next_block(client)
        balances = {number: await balance(client, somebody(number)) for number in numbers}
        return balances, await read_books(client, devnet.faucet)


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_killed_devnet_loses_no_acknowledged_message_and_runs_none_twice(tmp_path, kills):
    dice = random.Random(kills)
    state, acknowledged, geneses, keys = tmp_path / "state", [], set(), set()
    for turn in range(kills):
        with running(state) as devnet:
            geneses.add(devnet.genesis)
            keys.add((devnet.port, devnet.key))
            acknowledged += asyncio.run(give_until_dead(devnet, 1 + turn * GIFTS, dice.randint(1, GIFTS)))
            assert devnet.process.returncode == -9
    with running(state) as devnet:
        geneses.add(devnet.genesis)
        balances, books = asyncio.run(until_all_arrived(devnet, acknowledged))
    assert len(geneses) == len(keys) == 1
    assert len(acknowledged) >= kills
    assert balances == {number: TON + number for number in acknowledged}
    assert len(books.taken) == len(set(books.taken))
    assert books.total == SUPPLY and not books.under_way


def test_messages_that_wait_when_it_is_killed_run_after_the_restart(tmp_path):
    state, numbers = tmp_path / "state", list(range(1, 9))

    async def fill(devnet):
        async with client_of(devnet) as client:
            for number in numbers:
                await client.raw_send_message(ask_faucet(devnet, somebody(number), TON + number, number))
            devnet.kill()

    # The first gift makes a block at once, the others would wait a minute for theirs.
    with running(state, "--block-ms", "60000") as devnet:
        asyncio.run(fill(devnet))
    with running(state) as devnet:
        balances, books = asyncio.run(until_all_arrived(devnet, numbers))
    assert balances == {number: TON + number for number in numbers}
    assert len(books.taken) == len(set(books.taken)) == len(numbers)


def test_a_year_of_rent_is_taken_when_the_account_is_touched_again(tmp_path):
    state, year = tmp_path / "state", 365 * 24 * 3600

    async def deploy(devnet):
        async with client_of(devnet) as client:
            owner = await wallet(client, 1)
            await client.raw_send_message(ask_faucet(devnet, owner.address, TON))
            await until_balance(client, owner.address, TON)
            await owner.send_init_external()
            await until_seqno(client, owner, 1)

    async def touch(devnet):
        async with client_of(devnet) as client:
            owner = await wallet(client, 1)
            before = await balance(client, owner.address)
            await client.raw_send_message(ask_faucet(devnet, owner.address, TON, 2))
            await until_balance(client, owner.address, TON + 1)
            newest = (await client.get_transactions(owner.address, 1))[0]
            rent = newest.description.storage_ph.storage_fees_collected
            after = await balance(client, owner.address)
            return before, newest.total_fees.grams, rent, after, await read_books(client, devnet.faucet)

    with running(state) as devnet:
        asyncio.run(deploy(devnet))
    with running(state, "--clock-offset-s", str(year)) as devnet:
        before, fees, rent, after, books = asyncio.run(touch(devnet))
    assert 100_000 < rent < fees
    assert after == before + TON - fees
    assert books.total == SUPPLY


def test_a_clock_that_goes_back_does_not_take_chain_time_with_it(tmp_path):
    state = tmp_path / "state"

    async def chain_time(devnet):
        async with client_of(devnet) as client:
            return (await client.get_masterchain_info_ext())["last_utime"]

    times = []
    for offset in (86_400, 0):
        with running(state, "--clock-offset-s", str(offset)) as devnet:
            times.append(asyncio.run(chain_time(devnet)))
    assert times[1] >= times[0]
