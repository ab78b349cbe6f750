"""A real devnet in a process of its own, and a real client (pytoniq) of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey
from pytoniq import LiteClient, WalletV4R2
from pytoniq_core import Address, Cell, begin_cell
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.transaction import Transaction

from tests.fork_server import Forked, fork

TON = 10**9
SUPPLY = 5_000_000 * TON
#: A test that needs longer has hung.
PATIENCE_S = 100
SHARD = -(1 << 63)


@dataclass
class Devnet:
    """A running devnet and what it announced."""

    process: Forked
    genesis: bytes
    host: str
    port: int
    key: str
    faucet: Address

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait()


def start(state: Path, *options: str) -> Devnet:
    """Start a devnet and wait until it is ready."""
    words = ["devnet", "--state", str(state), "--block-ms", "20", *options]
    process = fork("cocoon.__main__", words, os.environ, Path.cwd(), errors=2, preloaded="devnet")
    said = json.loads(process.stdout.readline())
    assert process.stdout.readline() == b"ready\n"
    host, port, key = said["liteserver"].split(":", 2)
    faucet = Address((0, bytes.fromhex(said["faucet"])))
    return Devnet(process, bytes.fromhex(said["genesis"]), host, int(port), key, faucet)


@contextmanager
def running(state: Path, *options: str) -> Iterator[Devnet]:
    """A devnet that is stopped behind the block, if it still runs."""
    devnet = start(state, *options)
    try:
        yield devnet
    finally:
        devnet.process.terminate()
        devnet.process.wait()
        devnet.process.stdout.close()


@asynccontextmanager
async def client_of(devnet: Devnet, trust_level: int = 1) -> AsyncIterator[LiteClient]:
    """pytoniq's client; at trust level 1 it checks every proof but those of validators."""
    async with asyncio.timeout(PATIENCE_S):
        async with _connected(devnet, trust_level) as client:
            yield client


@asynccontextmanager
async def _connected(devnet: Devnet, trust_level: int) -> AsyncIterator[LiteClient]:
    client = LiteClient(devnet.host, devnet.port, devnet.key, trust_level=trust_level, timeout=60)
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def next_block(client: LiteClient) -> None:
    """Wait until the client knows a newer block than now."""
    known = client.last_mc_block.seqno
    await client.update_last_blocks()
    if client.last_mc_block.seqno > known:
        return
    await client.wait_masterchain_seqno(client.last_mc_block.seqno + 1, 30_000, "getMasterchainInfo", {})
    await client.update_last_blocks()


def external(to: Address, body: Cell) -> bytes:
    """An external message without a state."""
    head = begin_cell().store_uint(2, 2).store_uint(0, 2).store_address(to).store_coins(0)
    return head.store_bit(0).store_bit(1).store_ref(body).end_cell().to_boc()


def ask_faucet(devnet: Devnet, to: Address, amount: int, query: int = 0) -> bytes:
    """The faucet's message."""
    body = begin_cell().store_uint(0x0C0CFA01, 32).store_uint(query, 64).store_address(to).store_coins(amount)
    return external(devnet.faucet, body.end_cell())


async def balance(client: LiteClient, address: Address) -> int:
    """Proven balance at the newest block that the client knows."""
    return (await client.get_account_state(address)).balance


async def until_balance(client: LiteClient, address: Address, wanted: int) -> None:
    """Wait, block by block, until an account holds at least this."""
    while await balance(client, address) < wanted:
        await next_block(client)


async def wallet(client: LiteClient, number: int) -> WalletV4R2:
    """A wallet of its own for each number; funding and deploying is the caller's."""
    secret = number.to_bytes(32, "big")
    return await WalletV4R2.from_private_key(client, secret + bytes(SigningKey(secret).verify_key))


async def until_seqno(client: LiteClient, owner: WalletV4R2, wanted: int) -> None:
    """Wait until the wallet's counter has reached this."""
    while True:
        state = (await client.get_account_state(owner.address)).state
        if state.type_ == "active" and await owner.get_seqno() >= wanted:
            return
        await next_block(client)


async def blocks(client: LiteClient, workchain: int) -> list[BlockIdExt]:
    """Every block of a workchain up to the newest that the client knows."""
    last = client.last_mc_block.seqno
    return [(await client.lookup_block(workchain, SHARD, seqno=seqno))[0] for seqno in range(1, last + 1)]


async def transactions(client: LiteClient, block: BlockIdExt) -> list[Transaction]:
    """Every transaction of a block, proven."""
    return await client.raw_get_block_transactions_ext(block)
