"""The chain client against a real devnet, honest and dishonest liteservers, and restarts (CHN-1 to CHN-9)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio
from pytoniq_core import Cell as ForeignCell
from pytoniq_core.tlb.transaction import Transaction as ForeignTransaction

from cocoon.config.network import (
    MAINNET_GENESIS,
    PUBLIC_CLAIM_MARGIN_S,
    PUBLIC_CLOSE_DELAY_S,
    ChainFacts,
    format_key,
)
from cocoon.core.errors import (
    BadProof,
    ChainDisagrees,
    ChainRefused,
    ChainUnreachable,
    CocoonError,
    PublicUnproven,
    UsageError,
    WrongNetwork,
)
from cocoon.identity.keys import key_pair
from cocoon.ledger import pool
from cocoon.ledger.chain import open_chain
from cocoon.ledger.wallet import external_message
from cocoon.node.clock import MonotonicClock
from cocoon.wire.boc import pack, unpack
from cocoon.wire.cells import Cell, CellBuilder
from tests.adapters.devnet.devnet_process import running, start
from tests.adapters.ledger.ledger_parts import TON, chain_of, facts_of, middleman_of, server_of

NOBODY = b"\x77" * 32
#: Where no liteserver is.
NOWHERE = f"127.0.0.1:1:{format_key(key_pair(bytes(32)).key)}"


def asked(dest: bytes, amount: int) -> Cell:
    """What the faucet takes."""
    query = int.from_bytes(os.urandom(8), "big")
    return CellBuilder().uint(0x0C0CFA01, 32).uint(query, 64).address(dest).coins(amount).end()


async def give(chain, devnet, dest: bytes, amount: int, times: int = 1) -> None:
    """Let the faucet pay, and wait until it has."""
    before = await chain.account(dest)
    for _ in range(times):
        await chain.send(external_message(devnet.faucet.hash_part, asked(dest, amount)))
    block = before.seqno
    while len(await chain.transactions(dest, before.last_lt)) < times:
        block = await chain.wait_block(block)


async def test_a_deployed_account_is_proven_with_its_code_and_data(devnet):
    async with chain_of(devnet) as chain:
        faucet = await chain.account(devnet.faucet.hash_part)
        assert faucet.deployed and faucet.code_hash is not None
        assert faucet.balance_nanoton > 10**15
        assert abs(faucet.at_s - await chain.now_s()) < 60
        assert await chain.genesis() == devnet.genesis


async def test_an_account_that_never_was_is_proven_to_be_nothing(devnet):
    async with chain_of(devnet) as chain:
        found = await chain.account(os.urandom(32))
        assert (found.balance_nanoton, found.code_hash, found.data, found.last_lt) == (0, None, None, 0)


async def test_balances_and_transactions_follow_the_coins_to_the_nanoton(devnet):
    async with chain_of(devnet) as chain:
        dest = os.urandom(32)
        for amount in (3 * TON, 7):
            await give(chain, devnet, dest, amount)
        found = await chain.transactions(dest)
        assert [t.in_value_nanoton for t in found] == [3 * TON, 7]
        assert {t.in_source for t in found} == {devnet.faucet.hash_part}
        held = await chain.account(dest)
        assert held.balance_nanoton == sum(t.in_value_nanoton - t.fees_nanoton for t in found)
        assert held.last_lt == found[-1].lt and held.last_hash == found[-1].hash
        assert await chain.transactions(dest, after_lt=found[0].lt) == found[1:]
        assert await chain.transactions(dest, most=1) == found[1:]
        assert await chain.transactions(dest, most=0) == []


async def test_more_transactions_than_one_answer_holds_are_read_without_a_gap(devnet):
    async with chain_of(devnet) as chain:
        dest = os.urandom(32)
        await give(chain, devnet, dest, TON, times=20)
        found = await chain.transactions(dest)
        assert len(found) == 20
        assert [t.lt for t in found] == sorted(t.lt for t in found)


async def test_our_reading_of_a_transaction_is_that_of_pytoniq(devnet):
    """Every transaction of the faucet, field by field, in another implementation."""
    kept: list[bytes] = []

    def keep(question, name, values):
        if name == "liteServer.transactionList":
            kept.append(values["transactions"])
        return name, values

    async with chain_of(devnet) as honest:
        await give(honest, devnet, os.urandom(32), TON)
    async with middleman_of(devnet, spoil=keep) as middleman, chain_of(devnet, middleman.text) as chain:
        ours = {t.hash: t for t in await chain.transactions(devnet.faucet.hash_part)}
    theirs = [cell for data in kept for cell in ForeignCell.from_boc(data)]
    assert theirs and {cell.hash for cell in theirs} == set(ours)
    for cell in theirs:
        read, found = ForeignTransaction.deserialize(cell.begin_parse()), ours[cell.hash]
        assert (found.address, found.lt, found.at_s) == (read.account_addr, read.lt, read.now)
        assert found.fees_nanoton == read.total_fees.grams
        assert found.exit_code == read.description.compute_ph.exit_code
        assert found.success == (not read.description.aborted)
        assert found.in_body.hash() == read.in_msg.body.hash and found.in_source is None
        assert [(o.dest, o.value_nanoton, o.forward_fee_nanoton) for o in found.outs] == [
            (m.info.dest.hash_part, m.info.value_coins, m.info.fwd_fee) for m in read.out_msgs
        ]


async def test_prices_are_those_of_the_configuration(devnet):
    """400 nanoton a gas; the other figures are those that TON had in 2024 and 2025."""
    async with chain_of(devnet) as chain:
        prices = await chain.prices()
        assert prices is await chain.prices()  # read once
        assert prices.gas_nanoton == 400
        assert prices.gas_fee_nanoton(8_239) == 8_239 * 400
        assert prices.gas_fee_nanoton(1) == prices.flat_gas_nanoton == 40_000
        assert prices.forward_fee_nanoton(0, 0) == 400_000
        assert prices.forward_fee_nanoton(2, 1_000) == 400_000 + 2 * 40_000 + 1_000 * 400
        assert prices.storage_fee_nanoton(1, 0, 65_536) == 500


async def test_prices_follow_another_configuration(tmp_path):
    with running(tmp_path / "state", "--gas-price", "66") as cheap:
        async with chain_of(cheap) as chain:
            assert (await chain.prices()).gas_nanoton == 66


async def test_what_the_contract_does_not_accept_is_refused_with_its_reason(devnet):
    async with chain_of(devnet) as chain:
        with pytest.raises(ChainRefused):
            await chain.send(external_message(devnet.faucet.hash_part, CellBuilder().uint(1, 32).end()))
        with pytest.raises(ChainRefused):
            await chain.send(external_message(NOBODY, asked(NOBODY, 1)))


async def test_a_liteserver_of_another_chain_is_never_listened_to(devnet):
    async with chain_of(devnet, genesis=bytes(32)) as chain:
        with pytest.raises(WrongNetwork, match=devnet.genesis.hex()[:12]):
            await chain.now_s()


async def quickly(call):
    """A call whose failure takes the chain's whole patience; the clock of the pool runs fast meanwhile."""
    before, pool.CHAIN_CALL_NS = pool.CHAIN_CALL_NS, 10**9
    try:
        return await call()
    finally:
        pool.CHAIN_CALL_NS = before


async def test_nobody_there_is_said_typed_and_costs_no_traceback(devnet, capfd):
    async with chain_of(devnet, NOWHERE) as chain:
        with pytest.raises(ChainUnreachable, match="127.0.0.1:1"):
            await quickly(chain.now_s)
    heard = capfd.readouterr()
    assert "Traceback" not in heard.err + heard.out


async def test_a_liteservers_key_that_is_no_point_of_the_curve_is_a_silent_liteserver(devnet):
    """The library raises on it before it dials; other liteservers go on."""
    async with chain_of(devnet, f"127.0.0.1:1:{format_key(bytes(range(32)))}") as chain:
        with pytest.raises(ChainUnreachable):
            await quickly(chain.now_s)


async def test_a_call_waits_for_the_devnet_to_come_back(tmp_path):
    """kill -9, restart on the same port: the client reconnects by itself and the chain is the same."""
    devnet = start(tmp_path / "state")
    try:
        async with chain_of(devnet) as chain:
            await give(chain, devnet, NOBODY, TON)
            seen, given = await chain.account(NOBODY), await chain.transactions(NOBODY)
            devnet.kill()
            devnet = start(tmp_path / "state", "--listen", f"127.0.0.1:{devnet.port}")
            assert await chain.transactions(NOBODY) == given
            assert await chain.wait_block(seen.seqno) > seen.seqno
    finally:
        devnet.kill()
        devnet.process.stdout.close()


async def test_a_call_that_was_cancelled_leaves_the_connection_usable(devnet):
    async with chain_of(devnet) as chain:
        with trio.CancelScope() as scope:
            scope.cancel()
            await chain.account(NOBODY)
        assert scope.cancelled_caught
        await chain.account(NOBODY)


async def test_an_address_of_another_length_is_our_own_mistake(devnet):
    async with chain_of(devnet) as chain:
        with pytest.raises(UsageError):
            await chain.account(b"short")


# --- dishonest liteservers -----------------------------------------------------


def changed(field: str, change):
    """A lie in one field of account states."""

    def spoil(question, name, values):
        if name == "liteServer.accountState":
            values = {**values, field: change(values[field])}
        return name, values

    return spoil


def other_shard(shard):
    return {**shard, "root_hash": bytes(32)}


async def lied_to(devnet, spoil, call) -> CocoonError:
    """The error of a call to a lying liteserver."""
    async with middleman_of(devnet, spoil=spoil) as middleman, chain_of(devnet, middleman.text) as chain:
        with pytest.raises(CocoonError) as caught:
            await call(chain)
    return caught.value


LIES = {
    "hidden account": changed("state", lambda state: b""),
    "cut state": changed("state", lambda state: state[:-1]),
    "another state": changed("state", lambda state: ForeignCell.empty().to_boc()),
    "no proof": changed("proof", lambda proof: b""),
    "cut proof": changed("proof", lambda proof: proof[:-3]),
    "no shard proof": changed("shard_proof", lambda proof: b""),
    "another shard": changed("shardblk", other_shard),
    "the masterchain's own block": lambda question, name, values: (
        name, {**values, "shardblk": values["id"]} if name == "liteServer.accountState" else values
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_no_lie_about_an_account_is_believed(devnet, lie):
    error = await lied_to(devnet, LIES[lie], lambda chain: chain.account(devnet.faucet.hash_part))
    assert isinstance(error, BadProof), error


async def test_a_flipped_bit_anywhere_in_an_accounts_answer_is_noticed(devnet):
    """One bit in a hundred places of state and proofs; each answer is refused, or is the true one."""
    places = iter([(field, at) for field in ("state", "proof", "shard_proof") for at in range(8, 300, 9)])
    count = 0

    def flip(question, name, values):
        nonlocal count
        if name == "liteServer.accountState" and (place := next(places, None)) is not None:
            field, at = place
            data = bytearray(values[field])
            data[at % len(data)] ^= 1 << at % 8
            count += 1
            values = {**values, field: bytes(data)}
        return name, values

    async with chain_of(devnet) as honest:
        truth = await honest.account(devnet.faucet.hash_part)
    async with middleman_of(devnet, spoil=flip) as middleman, chain_of(devnet, middleman.text) as chain:
        for _ in range(99):
            try:
                found = await chain.account(devnet.faucet.hash_part)
            except BadProof:
                continue
            assert (found.balance_nanoton, found.data) == (truth.balance_nanoton, truth.data)
    assert count == 99


async def test_a_proof_of_another_account_proves_nothing_about_this_one(devnet):
    """The answer for a stranger, in place of ours: the path in the proof is pruned, so absence is not shown."""
    async with chain_of(devnet) as honest:
        dest = os.urandom(32)
        await give(honest, devnet, dest, TON)
    stored = {}

    def swap(question, name, values):
        if name == "liteServer.accountState":
            stored.setdefault("first", values)
            values = {**stored["first"], "id": values["id"]}
        return name, values

    async with middleman_of(devnet, spoil=swap) as middleman, chain_of(devnet, middleman.text) as chain:
        await chain.account(devnet.faucet.hash_part)
        with pytest.raises(BadProof):
            await chain.account(dest)


async def test_a_left_out_or_exchanged_transaction_is_noticed(devnet):
    async with chain_of(devnet) as chain:
        dest = os.urandom(32)
        for _ in range(3):
            await give(chain, devnet, dest, TON)

    def without(kept):
        def spoil(question, name, values):
            if name == "liteServer.transactionList":
                cells = [unpack(cell.to_boc()) for cell in ForeignCell.from_boc(values["transactions"])]
                values = {**values, "ids": values["ids"][: len(kept)], "transactions": bag(kept, cells)}
            return name, values

        return spoil

    def bag(kept, cells):
        return b"" if not kept else ForeignCell.one_from_boc(pack(cells[kept[0]])).to_boc()

    for kept in ([1], [2], []):
        error = await lied_to(devnet, without(kept), lambda chain: chain.transactions(dest))
        assert isinstance(error, BadProof)


async def test_a_configuration_of_another_block_is_refused(devnet):
    def spoil(question, name, values):
        if name == "liteServer.configInfo":
            values = {**values, "config_proof": values["state_proof"]}
        return name, values

    assert isinstance(await lied_to(devnet, spoil, lambda chain: chain.prices()), BadProof)


async def test_an_endless_answer_is_cut_off(devnet, caplog):
    """A liteserver announces more than any answer may have: the connection ends, the client goes on."""
    def spoil(question, name, values):
        if name == "liteServer.configInfo":
            values = {**values, "config_proof": bytes(5 << 20)}
        return name, values

    async with middleman_of(devnet, spoil=spoil) as middleman, chain_of(devnet, middleman.text) as chain:
        await chain.now_s()
        with pytest.raises(ChainUnreachable):
            await quickly(chain.prices)
        await chain.now_s()
    assert not caplog.records


# --- two liteservers -----------------------------------------------------------


async def test_two_liteservers_that_agree_are_both_asked(devnet):
    async with middleman_of(devnet) as middleman:
        async with chain_of(devnet, server_of(devnet), middleman.text) as chain:
            assert (await chain.account(devnet.faucet.hash_part)).deployed
            assert await chain.now_s() > 0
    assert "liteServer.getMasterchainInfo" in middleman.asked


async def test_two_liteservers_that_name_different_blocks_are_not_believed(devnet):
    """One of them shows another chain with the same genesis: nothing is read from either."""
    def fork(question, name, values):
        if name in ("liteServer.masterchainInfo", "liteServer.blockHeader"):
            key = "last" if "last" in values else "id"
            values = {**values, key: {**values[key], "root_hash": bytes(31) + b"\1"}}
        return name, values

    async with middleman_of(devnet, spoil=fork) as middleman:
        async with chain_of(devnet, server_of(devnet), middleman.text) as chain:
            with pytest.raises(ChainDisagrees, match="different blocks"):
                await chain.account(devnet.faucet.hash_part)


async def test_with_two_configured_one_alone_is_not_enough(devnet):
    async with chain_of(devnet, server_of(devnet), NOWHERE) as chain:
        with pytest.raises(ChainUnreachable, match="too few"):
            await quickly(lambda: chain.account(NOBODY))


async def test_of_three_two_are_enough_and_a_liar_cannot_stop_the_others(devnet):
    async with middleman_of(devnet, spoil=LIES["no proof"]) as middleman:
        async with chain_of(devnet, NOWHERE, middleman.text, server_of(devnet)) as chain:
            assert (await chain.account(devnet.faucet.hash_part)).deployed


async def test_a_peer_that_uses_no_chain_does_not_import_pytoniq():
    code = "import sys, cocoon.ledger.service, cocoon.ledger.chain; print([m for m in sys.modules if 'pytoniq' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_network_without_a_liteserver_has_no_chain(devnet):
    with pytest.raises(ChainUnreachable):
        async with open_chain(facts_of(devnet), (), MonotonicClock()):
            pass


async def test_a_public_chain_is_not_opened_while_its_blocks_are_not_proven(devnet):
    facts = ChainFacts(MAINNET_GENESIS, PUBLIC_CLOSE_DELAY_S, PUBLIC_CLAIM_MARGIN_S, public=True)
    with pytest.raises(PublicUnproven):
        async with open_chain(facts, (server_of(devnet), NOWHERE), MonotonicClock()):
            pass
