"""pytoniq's own client against a real devnet: whatever it asks is answered and proven."""

from __future__ import annotations

import asyncio

import pytest
from pytoniq.liteclient.client import LiteServerError, RunGetMethodError
from pytoniq_core import Address, Cell, begin_cell
from pytoniq_core.tlb.block import ShardStateUnsplit
from pytoniq_core.tlb.config import ConfigParam21

from tests.adapters.devnet.devnet_process import (
    SHARD,
    SUPPLY,
    TON,
    ask_faucet,
    balance,
    blocks,
    client_of,
    external,
    next_block,
    running,
    transactions,
    until_balance,
    until_seqno,
    wallet,
)

STRANGER = Address((0, b"\x33" * 32))


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with running(tmp_path_factory.mktemp("devnet") / "state") as running_devnet:
        yield running_devnet


def ask(devnet, question, trust_level=1):
    """Run one coroutine function with a connected client."""

    async def run():
        async with client_of(devnet, trust_level) as client:
            return await question(client)

    return asyncio.run(run())


@pytest.mark.parametrize("trust_level", [1, 2])
def test_a_client_connects_and_sees_the_faucet_with_all_that_nobody_took(devnet, trust_level):
    account = ask(devnet, lambda client: client.get_account_state(devnet.faucet), trust_level)
    assert account.state.type_ == "active"
    assert 0 < account.balance <= SUPPLY


def test_the_genesis_is_the_hash_of_the_masterchains_zerostate(devnet):
    async def question(client):
        init = (await client.get_masterchain_info())["init"]
        state = await client.get_state(-1, SHARD, 0, init["root_hash"], init["file_hash"])
        return init, Cell.one_from_boc(state["data"])

    init, state = ask(devnet, question)
    assert init["root_hash"] == devnet.genesis.hex() == state.hash.hex()
    assert init["workchain"] == -1


def test_a_gift_of_the_faucet_arrives_to_the_nanoton(devnet):
    async def question(client):
        to = Address((0, b"\x01" * 32))
        status = await client.raw_send_message(ask_faucet(devnet, to, 5 * TON))
        await until_balance(client, to, 1)
        return status, await balance(client, to)

    assert ask(devnet, question) == (1, 5 * TON)


def test_a_wallet_is_deployed_pays_and_answers_its_get_method(devnet):
    async def question(client):
        owner = await wallet(client, 7)
        await client.raw_send_message(ask_faucet(devnet, owner.address, 5 * TON))
        await until_balance(client, owner.address, 5 * TON)
        await owner.deploy_via_external()
        await until_seqno(client, owner, 1)
        await owner.transfer(destination=STRANGER, amount=TON, body=begin_cell().store_uint(7, 32).end_cell())
        await until_seqno(client, owner, 2)
        found = await client.get_transactions(owner.address, 20)
        return await balance(client, STRANGER), await balance(client, owner.address), found

    stranger, owner, found = ask(devnet, question)
    assert stranger == TON
    assert [len(one.out_msgs) for one in found] == [1, 0, 0]
    sent = found[0].out_msgs[0]
    spent = sum(one.total_fees.grams for one in found) + sent.info.value_coins + sent.info.fwd_fee
    assert owner == 5 * TON - spent


def test_a_get_method_that_is_missing_or_without_an_account_says_so(devnet):
    async def question(client):
        for address in (devnet.faucet, Address((0, b"\x99" * 32))):
            with pytest.raises(RunGetMethodError) as refusal:
                await client.run_get_method(address, "nothing", [1, -1, 1 << 200, begin_cell().end_cell()])
            yield refusal.value.exit_code

    async def codes(client):
        return [code async for code in question(client)]

    assert ask(devnet, codes) == [11, -256]


def test_an_account_that_never_was_is_absent_with_a_proof(devnet):
    async def question(client):
        answer = await client.liteserver_request("getAccountState", {
            "id": client.last_mc_block.to_dict(), "account": Address((0, b"\x98" * 32)).to_tl_account_id(),
        })
        proof = Cell.from_boc(answer["proof"])
        return answer["state"], ShardStateUnsplit.deserialize(proof[1][0].begin_parse()).accounts[0]

    state, shown = ask(devnet, question)
    assert state == b""
    assert int("98" * 32, 16) not in shown


def test_a_message_that_the_contract_does_not_accept_is_refused_with_its_exit_code(devnet):
    async def question(client):
        with pytest.raises(LiteServerError, match="exitcode=63") as refusal:
            await client.raw_send_message(external(devnet.faucet, begin_cell().store_uint(5, 32).end_cell()))
        with pytest.raises(LiteServerError, match="has no code"):
            await client.raw_send_message(external(Address((0, b"\x97" * 32)), begin_cell().end_cell()))
        return refusal.value.code

    assert ask(devnet, question) == 0


def test_the_whole_configuration_is_proven_and_holds_the_usual_price(devnet):
    config = ask(devnet, lambda client: client.get_config_all())
    assert isinstance(config[21], ConfigParam21)
    assert config[21].other.gas_price >> 16 == 400
    assert {8, 18, 20, 24, 25} <= set(config)


def test_blocks_are_found_by_number_by_logical_time_and_by_clock(devnet):
    async def question(client):
        async def found(**by):
            return (await client.lookup_block(0, SHARD, **by))[0]

        block, header = await client.lookup_block(0, SHARD, seqno=1)
        by_lt, by_time = await found(lt=header.info.end_lt), await found(utime=header.info.gen_utime)
        with pytest.raises(LiteServerError) as refusal:
            await client.lookup_block(0, SHARD, seqno=10**9)
        return block, header, by_lt, by_time, refusal.value.code, await client.raw_get_block_header(block)

    block, header, by_lt, by_time, code, again = ask(devnet, question)
    assert block == by_lt == by_time
    assert header.info.seqno == again.info.seqno == 1
    assert code == 651


def test_blocks_follow_one_another_from_the_zerostate(devnet):
    async def question(client):
        chains = {}
        for workchain in (-1, 0):
            found = await blocks(client, workchain)
            chains[workchain] = [(block, await client.raw_get_block(block)) for block in found]
        return (await client.get_masterchain_info())["init"], chains

    init, chains = ask(devnet, question)
    assert chains[-1][0][1].info.prev_ref.prev.root_hash.hex() == init["root_hash"]
    for chain in chains.values():
        for (before, old), (_, new) in zip(chain, chain[1:], strict=False):
            assert new.info.prev_ref.prev.root_hash == before.root_hash
            assert new.state_update.old_hash == old.state_update.new_hash
            assert new.info.start_lt > old.info.end_lt
            assert new.info.gen_utime >= old.info.gen_utime


def test_every_way_to_list_transactions_gives_the_same_ones(devnet):
    async def question(client):
        await client.raw_send_message(ask_faucet(devnet, STRANGER, TON, query=77))
        await next_block(client)
        listed, whole, single = [], [], []
        for block in await blocks(client, 0):
            names = await client.raw_get_block_transactions(block, count=1)
            listed += [(one["account"].hash_part, one["lt"], one["hash"]) for one in names]
            for one in await transactions(client, block):
                whole.append((one.account_addr, one.lt, one.cell.hash))
                again = await client.get_one_transaction(Address((0, one.account_addr)), one.lt, block)
                single.append((again.account_addr, again.lt, again.cell.hash))
        return listed, whole, single

    listed, whole, single = ask(devnet, question)
    assert listed == whole == single
    assert len(listed) >= 2


def test_the_masterchain_names_the_basechains_block(devnet):
    async def question(client):
        described = await client.raw_get_shard_info()
        return described, (await client.get_all_shards_info())[0], client.last_mc_block

    described, shard, master = ask(devnet, question)
    assert described.root_hash == shard.root_hash
    assert described.seq_no == shard.seqno == master.seqno


def test_a_wait_that_is_over_answers_with_the_newest_block(devnet):
    async def question(client):
        newest = client.last_mc_block.seqno
        answer = await client.wait_masterchain_seqno(newest + 10**6, 1, "getMasterchainInfo", {})
        return newest, answer["last"]["seqno"]

    newest, told = ask(devnet, question)
    assert told >= newest


def test_time_and_version_are_told(devnet):
    async def question(client):
        return await client.get_time(), await client.get_version(), await client.get_masterchain_info_ext()

    told, version, extended = ask(devnet, question)
    assert version["version"] == extended["version"] == 0x101
    assert 0 <= told["now"] - extended["last_utime"]


def test_an_unknown_question_is_refused_and_the_connection_lives_on(devnet):
    async def question(client):
        with pytest.raises(LiteServerError):
            await client.liteserver_request("getOutMsgQueueSizes", {"mode": 0})
        return await client.get_time()

    assert ask(devnet, question)["now"] > 0
