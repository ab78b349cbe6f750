"""The whole chain added up by the ledger's client, against pytoniq's own reading of it, and against liars."""

from __future__ import annotations

import asyncio
import random

import pytest
import trio
from pytoniq_core import Address

from cocoon.core.errors import BadProof, LimitExceeded, Malformed, TooLarge
from cocoon.ledger import blocks, census
from cocoon.ledger.blocks import BlockId, read_block, read_state
from cocoon.wire.cells import Cell, CellBuilder
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
from tests.adapters.ledger.ledger_parts import chain_of, middleman_of

TURNS = 5


async def busy(devnet, dice: random.Random):
    """Coins moved between wallets, to nobody and to the masterchain; some come back. The books of all that."""
    async with client_of(devnet) as client:
        owners = [await wallet(client, number + 1) for number in range(2)]
        for number, owner in enumerate(owners):
            await client.raw_send_message(ask_faucet(devnet, owner.address, 20 * TON, number))
            await until_balance(client, owner.address, 20 * TON)
            await owner.send_init_external()
            await until_seqno(client, owner, 1)
        for turn in range(TURNS):
            for owner in owners:
                messages = []
                for workchain in (-1, 0):
                    to = Address((workchain, dice.randbytes(32)))
                    to.is_bounceable = dice.random() < 0.5
                    messages.append(owner.create_wallet_internal_message(to, 3, dice.choice([10**6, TON])))
                messages.append(owner.create_wallet_internal_message(owners[0].address, 3, 10**7))
                await owner.raw_transfer(messages)
            for owner in owners:
                await until_seqno(client, owner, turn + 2)
        while (books := await read_books(client, devnet.faucet)).under_way:
            await next_block(client)
        return books


async def whole(devnet, *servers):
    async with chain_of(devnet, *servers) as chain:
        return await chain.supply()


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A devnet on which a lot happened, and what pytoniq alone adds up of it."""
    with running(tmp_path_factory.mktemp("lived") / "state") as devnet:
        yield devnet, asyncio.run(busy(devnet, random.Random(11)))


def test_the_whole_chain_is_its_genesis_supply_to_the_nanoton(lived):
    devnet, books = lived
    found = trio.run(whole, devnet)
    assert found.conserved and found.quiet
    assert found.genesis_nanoton == SUPPLY == books.total
    assert (found.balances_nanoton, found.fees_nanoton) == (books.balances, books.fees_of_transactions)
    assert found.declared_nanoton == books.fees_of_blocks
    assert found.transactions == books.transactions
    assert found.blocks == 2 * found.seqno
    assert books.bounced and {workchain for workchain, _ in books.accounts} == {-1, 0}


async def test_a_young_chain_adds_up_too(devnet):
    found = await whole(devnet)
    assert found.conserved and found.genesis_nanoton == SUPPLY and found.accounts >= 1


async def test_a_chain_that_is_too_long_is_refused(devnet, monkeypatch):
    monkeypatch.setattr(census, "SUPPLY_BLOCKS", 0)
    async with chain_of(devnet) as chain:
        await chain.wait_block(0)
        with pytest.raises(LimitExceeded, match="above the 0"):
            await chain.supply()


def another_block(kept: dict):
    """Every block is answered with the first that was asked for."""

    def spoil(question, name, values):
        if question == "liteServer.getBlock":
            values = {**values, "data": kept.setdefault("data", values["data"])}
        return name, values

    return spoil


def richer_state(question, name, values):
    """A bit of a state is flipped."""
    if question == "liteServer.getState":
        data = bytearray(values["data"])
        data[-9] ^= 1
        values = {**values, "data": bytes(data)}
    return name, values


def older_state(kept: dict):
    """Every state is answered with the first zerostate."""

    def spoil(question, name, values):
        if question == "liteServer.getState":
            values = {**values, "data": kept.setdefault("data", values["data"])}
        return name, values

    return spoil


def cut_block(question, name, values):
    if question == "liteServer.getBlock":
        values = {**values, "data": values["data"][:-1]}
    return name, values


@pytest.mark.parametrize("spoil", [another_block({}), richer_state, older_state({}), cut_block])
async def test_a_liteserver_that_tells_of_another_block_or_state_is_caught(devnet, spoil):
    async with middleman_of(devnet, spoil=spoil) as liar:
        with pytest.raises(BadProof):
            await whole(devnet, liar.text)


def spoiled(cell: Cell, dice: random.Random) -> Cell:
    """The cell with a flipped bit, and perhaps fewer references, somewhere in it."""
    if cell.refs and dice.random() < 0.7:
        which = dice.randrange(len(cell.refs))
        refs = tuple(spoiled(ref, dice) if n == which else ref for n, ref in enumerate(cell.refs))
        return Cell(cell.value, cell.bits, refs)
    flip = 1 << dice.randrange(cell.bits) if cell.bits else 0
    return Cell(cell.value ^ flip, cell.bits, cell.refs[: dice.randint(0, len(cell.refs))])


def refuses(read, *parts) -> bool:
    """Whether a reader refuses, and as it should."""
    try:
        read(*parts)
    except (Malformed, TooLarge):
        return True
    return False


def test_spoiled_blocks_and_states_are_refused_typed_or_read_as_something_else(lived, monkeypatch):
    """Under a proven hash there are none; but whatever the readers are given must end typed."""
    parts, states, dice = [], [], random.Random(5)
    monkeypatch.setattr("cocoon.ledger.proofs.read_block", lambda *block: (parts.append(block), read_block(*block))[1])
    monkeypatch.setattr("cocoon.ledger.proofs.read_state", lambda cell: (states.append(cell), read_state(cell))[1])
    trio.run(whole, lived[0])
    refused = 0
    for _ in range(300):
        block, state_hash, *cells = dice.choice(parts)
        which = dice.randrange(3)
        cells[which] = spoiled(cells[which], dice)
        refused += refuses(read_block, block, state_hash, *cells) + refuses(read_state, spoiled(states[0], dice))
    assert refused > 50


def test_a_block_that_says_it_is_another_one_is_refused():
    info = CellBuilder().uint(0x9BC7A987, 32).uint(0, 32).uint(0, 8).uint(0, 8).uint(5, 32).uint(0, 32)
    info = info.uint(0, 8).uint(0xFFFFFFFF, 32).uint(0, 64)
    info.uint(0, 32 + 64 + 64 + 32 + 32 + 32 + 32)
    for seqno, workchain in ((6, blocks.MASTER), (5, blocks.BASE)):
        with pytest.raises(Malformed, match="says that it is another one"):
            read_block(BlockId(workchain, seqno, bytes(32), bytes(32)), bytes(32), info.end(), Cell(0, 0), Cell(0, 0))
