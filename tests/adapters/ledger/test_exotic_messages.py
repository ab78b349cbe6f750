"""Strangers may send library references and Merkle proofs in a message; whoever gets one still reads its account."""

from __future__ import annotations

import asyncio
import os

import trio
from pytoniq_core import Address, begin_cell
from pytoniq_core import Cell as ForeignCell
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.boc.tvm_bitarray import TvmBitarray

from tests.adapters.devnet.devnet_process import ask_faucet, client_of, until_balance, until_seqno, wallet
from tests.adapters.ledger.ledger_parts import TON, chain_of


def exotic(kind: int, data: bytes, *refs: ForeignCell) -> ForeignCell:
    """An exotic cell: its kind, then its data."""
    bits = TvmBitarray(1023)
    bits.frombytes(bytes([kind]) + data)
    return ForeignCell(bits, list(refs), kind)


def bodies() -> list[ForeignCell]:
    """Lawful bodies with a library reference, a Merkle proof, and both, each below something ordinary."""
    library = exotic(CellTypes.library_ref, os.urandom(32))
    inner = begin_cell().store_uint(7, 32).store_ref(begin_cell().end_cell()).end_cell()
    proof = exotic(CellTypes.merkle_proof, inner.get_hash(0) + inner.get_depth(0).to_bytes(2, "big"), inner)
    both = begin_cell().store_uint(1, 1).store_ref(proof).store_ref(library).end_cell()
    return [begin_cell().store_uint(0, 32).store_ref(cell).end_cell() for cell in (library, proof, both)]


async def send(devnet, dest: bytes, found: list[ForeignCell]) -> None:
    """One coin with each body, from a wallet of pytoniq's."""
    async with client_of(devnet) as client:
        owner = await wallet(client, 11)
        await client.raw_send_message(ask_faucet(devnet, owner.address, 50 * TON))
        await until_balance(client, owner.address, 50 * TON)
        await owner.deploy_via_external()
        await until_seqno(client, owner, 1)
        for seqno, body in enumerate(found, start=2):
            await owner.transfer(destination=Address((0, dest)), amount=TON, body=body)
            await until_seqno(client, owner, seqno)
        await until_balance(client, Address((0, dest)), len(found) * TON - TON // 2)  # rent takes a nanoton


async def test_transactions_with_exotic_cells_are_read_and_keep_their_hashes(devnet):
    dest, found = os.urandom(32), bodies()
    await trio.to_thread.run_sync(lambda: asyncio.run(send(devnet, dest, found)))
    async with chain_of(devnet) as chain:
        read = await chain.transactions(dest)
        assert [one.in_value_nanoton for one in read] == [TON] * len(found)
        assert [one.in_body.hash() for one in read if one.in_body is not None] == [body.hash for body in found]
        supply = await chain.supply()
        assert supply.conserved
