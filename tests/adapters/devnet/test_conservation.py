"""Not one nanoton is made or lost, whatever is done; added up from outside, over the liteserver protocol alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from pytoniq_core import Address, begin_cell

from tests.adapters.devnet.chain_books import read_books
from tests.adapters.devnet.devnet_process import (
    SUPPLY,
    TON,
    ask_faucet,
    client_of,
    next_block,
    running,
    until_balance,
    until_seqno,
    wallet,
)

WALLETS = 4
TURNS = 12


def some_message(dice: random.Random, owner, addresses: list[Address]):
    """A message of a random kind: to a wallet, to nobody, to the masterchain; bouncing or not, with or without body."""
    to = dice.choice(addresses) if dice.random() < 0.5 else Address((dice.choice([0, 0, 0, -1]), dice.randbytes(32)))
    to.is_bounceable = dice.random() < 0.5
    body = begin_cell().store_bytes(dice.randbytes(dice.randrange(0, 120)))
    if dice.random() < 0.3:
        body.store_ref(begin_cell().store_bytes(dice.randbytes(100)).end_cell())
    # Bit 1: fees are paid beside the value, not out of it. Bit 2: what cannot be paid is passed over,
    # because a wallet whose action fails does not count on.
    return owner.create_wallet_internal_message(
        destination=to, send_mode=dice.choice([2, 3]), value=dice.choice([1, 10**6, 10**8, 10**12]),
        body=body.end_cell(),
    )


async def settled(client, faucet):
    """The books once no message is under way."""
    while True:
        await next_block(client)
        books = await read_books(client, faucet)
        if not books.under_way:
            return books


@pytest.mark.parametrize("options", [(), ("--gas-price", "67")], ids=["usual price", "a sixth"])
def test_supply_is_balances_and_fees_after_a_random_load(tmp_path, options):
    dice = random.Random(7)

    async def load(devnet):
        async with client_of(devnet) as client:
            owners = [await wallet(client, number + 1) for number in range(WALLETS)]
            for number, owner in enumerate(owners):
                await client.raw_send_message(ask_faucet(devnet, owner.address, 20 * TON, number))
            for owner in owners:
                await until_balance(client, owner.address, 20 * TON)
                await owner.send_init_external()
            for owner in owners:
                await until_seqno(client, owner, 1)
            addresses = [owner.address for owner in owners]
            for turn in range(TURNS):
                for owner in owners:
                    messages = [some_message(dice, owner, addresses) for _ in range(dice.randint(1, 4))]
                    await owner.raw_transfer(messages)
                for owner in owners:
                    await until_seqno(client, owner, turn + 2)
            return await settled(client, devnet.faucet)

    with running(tmp_path / "state", *options) as devnet:
        books = asyncio.run(load(devnet))
    assert books.total == SUPPLY
    assert books.fees_of_blocks == books.fees_of_transactions
    assert len(books.taken) == len(set(books.taken))
    assert books.transactions > 2 * WALLETS * TURNS
    assert books.bounced > 0 and books.failed > 0
    assert {workchain for workchain, _ in books.accounts} == {-1, 0}
