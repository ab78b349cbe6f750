"""When blocks are made: the loop's clock is moved by hand, the machine and the disk are real."""

from __future__ import annotations

import math
import threading
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cocoon.core.errors import ChainRefused, LimitExceeded, StorageFull
from cocoon.core.limits import DEVNET_IDLE_BLOCK_NS
from cocoon.core.units import SECOND_NS
from cocoon.devnet.chain import Chain
from cocoon.devnet.formats import read_account
from cocoon.devnet.producer import Producer
from tests.adapters.devnet.test_chain import BORN_S, NOBODY, TON, Net, ask_faucet, net_in, order

BLOCK_S = 5
IDLE_S = max(BLOCK_S, DEVNET_IDLE_BLOCK_NS // SECOND_NS)
HOUR_S = 3_600


@pytest.fixture
def net(tmp_path):
    with net_in(tmp_path / "chain") as opened:
        yield opened


@asynccontextmanager
async def producing(net: Net):
    """A running producer behind its first block."""
    producer = Producer(net.chain, net.store, lambda: BORN_S + 10, BLOCK_S * SECOND_NS)
    await producer.make_block()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer.run)
        await wait_all_tasks_blocked()
        yield producer
        nursery.cancel_scope.cancel()


async def reach(producer: Producer, seqno: int) -> None:
    """Wait for this block and no later one, without moving the clock."""
    await producer.reach(seqno, math.inf)
    await wait_all_tasks_blocked()
    assert producer.chain.tip.seqno == seqno


def balance(chain: Chain) -> int:
    content = read_account(chain.tip.account(NOBODY).account)
    return content.balance_nanoton if content else 0


async def test_without_a_client_and_without_a_message_no_block_is_made(net, mock_clock):
    async with producing(net) as producer:
        mock_clock.jump(HOUR_S)
        await wait_all_tasks_blocked()
        await producer.submit(ask_faucet(NOBODY))
        await reach(producer, 2)
        assert balance(producer.chain) == TON


async def test_while_somebody_looks_time_goes_on(net, mock_clock):
    async with producing(net) as producer:
        with producer.watched():
            for seqno in range(2, 6):
                mock_clock.jump(IDLE_S)
                await reach(producer, seqno)
        mock_clock.jump(HOUR_S)
        await wait_all_tasks_blocked()
        await producer.submit(ask_faucet(NOBODY))
        await reach(producer, 6)


async def test_a_newcomer_sees_a_fresh_block_however_long_nobody_looked(net, mock_clock):
    async with producing(net) as producer:
        mock_clock.jump(HOUR_S)
        with producer.watched():
            await producer.freshen()
            assert producer.chain.tip.seqno == 2
            await producer.freshen()
            assert producer.chain.tip.seqno == 2


async def test_a_question_waits_for_one_block_also_where_each_takes_longer_than_it_may_be_old(net, mock_clock):
    draw = net.chain.draft

    def slowly(now_s):
        mock_clock.jump(IDLE_S + 1)
        return draw(now_s)

    async with producing(net) as producer:
        net.chain.draft = slowly
        with producer.watched(), trio.fail_after(10 * IDLE_S):
            mock_clock.jump(IDLE_S + 1)
            await producer.freshen()


async def test_a_message_gets_a_block_at_once_if_the_last_one_is_old_enough_and_else_waits(net, mock_clock):
    async with producing(net) as producer:
        mock_clock.jump(BLOCK_S)
        await producer.submit(ask_faucet(NOBODY))
        await reach(producer, 2)
        await producer.submit(ask_faucet(NOBODY, query=2))
        mock_clock.jump(BLOCK_S - 1)
        await wait_all_tasks_blocked()
        await producer.submit(ask_faucet(NOBODY, query=3))
        assert (producer.chain.tip.seqno, producer.chain.pending) == (2, 2)
        mock_clock.jump(1)
        await reach(producer, 3)
        assert balance(producer.chain) == 3 * TON


async def test_messages_that_come_together_share_one_flush_and_one_block(net, mock_clock):
    takes = []
    take = net.store.take
    net.store.take = lambda rows: (takes.append(len(rows)), take(rows))[1]
    async with producing(net) as producer:
        async with trio.open_nursery() as nursery:
            for query in range(20):
                nursery.start_soon(producer.submit, ask_faucet(NOBODY, query=query))
        assert sum(takes) == 20 and len(takes) < 5
        mock_clock.jump(BLOCK_S)
        await reach(producer, 2)
        assert balance(producer.chain) == 20 * TON


async def test_a_message_is_on_disk_before_its_sender_hears_that_it_was_taken(net, mock_clock):
    async with producing(net) as producer:
        await producer.submit(ask_faucet(NOBODY))
        assert len(net.store.messages()) == 1


async def test_a_message_that_cannot_be_written_is_not_taken(net, mock_clock):
    def full(rows):
        raise StorageFull("no room")

    async with producing(net) as producer:
        net.store.take = full
        with pytest.raises(StorageFull):
            await producer.submit(ask_faucet(NOBODY))
        assert producer.chain.pending == 0


async def test_messages_on_their_way_to_disk_count_among_those_that_wait(net, mock_clock, monkeypatch):
    monkeypatch.setattr("cocoon.devnet.chain.DEVNET_PENDING", 3)
    flush, take, refused = threading.Event(), net.store.take, []
    net.store.take = lambda rows: (flush.wait(), take(rows))[1]

    async def submit(producer, query):
        try:
            await producer.submit(ask_faucet(NOBODY, query=query))
        except LimitExceeded:
            refused.append(query)

    async with producing(net) as producer:
        async with trio.open_nursery() as nursery:
            for query in range(4):
                nursery.start_soon(submit, producer, query)
                await wait_all_tasks_blocked()
            flush.set()
        assert (refused, producer.chain.pending) == ([3], 3)
        mock_clock.jump(BLOCK_S)
        await reach(producer, 2)
        await producer.submit(ask_faucet(NOBODY, query=3))
        assert producer.chain.pending == 1


async def test_a_refused_message_touches_neither_queue_nor_disk(net, mock_clock):
    async with producing(net) as producer:
        with pytest.raises(ChainRefused):
            await producer.submit(order(7))
        assert producer.chain.pending == 0
        assert net.store.messages() == []
