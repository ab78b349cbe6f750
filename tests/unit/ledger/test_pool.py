"""Agreement of liteservers (CHN-3), by servers that say what a test wants."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from cocoon.core.errors import BadProof, ChainDisagrees, ChainRefused, ChainUnreachable, CocoonError, WrongNetwork
from cocoon.ledger import pool as pools
from cocoon.ledger.pool import Head, Pool


def block(seqno: int, fork: int = 0) -> Head:
    return Head(seqno, bytes(31) + bytes((fork,)), bytes(32))


@dataclass
class Says:
    """A connected server with a chain of its own."""

    newest: Head | None
    fork: int = 0
    fault: CocoonError = field(default_factory=lambda: ChainUnreachable("silent"))
    lies: bool = False
    asked: list[int] = field(default_factory=list)
    #: Blocks below its newest that it had to be asked for.
    looked_up: list[int] = field(default_factory=list)
    #: What it raises of a message that it is handed.
    answer: CocoonError | None = None
    taken: list[bytes] = field(default_factory=list)
    name: str = "liteserver"

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def head_at(self, seqno: int) -> Head:
        if self.newest != block(seqno, self.fork):
            self.looked_up.append(seqno)
        return block(seqno, self.fork)

    async def send(self, message: bytes) -> None:
        self.taken.append(message)
        if self.answer is not None:
            raise self.answer

    async def time_of(self, head: Head) -> int:
        self.asked.append(head.seqno)
        if self.lies:
            raise BadProof("a lie")
        return 1_000 + head.seqno


def run(*servers: Says, then=None):
    """``now_s`` of a pool of these servers; ``then`` changes them and asks again."""
    async def whole():
        pool = Pool()
        running = asyncio.create_task(pool.run(servers))
        await asyncio.sleep(0)
        try:
            first = await pool.now_s()
            if then is None:
                return first
            then()
            pool.changed()
            return first, await pool.now_s()
        finally:
            running.cancel()

    return asyncio.run(whole())


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waiting for servers to come back ends soon; nothing here depends on how soon."""
    monkeypatch.setattr(pools, "CHAIN_CALL_NS", 10**7)


def test_one_configured_server_is_enough():
    assert run(Says(block(5))) == 1_005


def test_the_newest_block_that_two_have_is_read():
    slow, fast, silent = Says(block(5)), Says(block(9)), Says(None)
    assert run(silent, fast, slow) == 1_005
    assert fast.asked == [5] and not slow.asked and not silent.asked


def test_two_names_for_one_block_are_a_contradiction_whoever_is_right():
    with pytest.raises(ChainDisagrees, match="5"):
        run(Says(block(5)), Says(block(7, fork=1), fork=1))


@pytest.mark.parametrize("newest", [5, 9], ids=["even", "ahead"])
@pytest.mark.parametrize("place", range(3))
def test_of_three_one_that_names_other_blocks_stops_nobody(newest, place):
    servers = [Says(block(5)), Says(block(5))]
    servers.insert(place, Says(block(newest, fork=1), fork=1))
    assert run(*servers) == 1_005


@pytest.mark.parametrize("place", range(3))
def test_who_claims_to_be_ahead_of_two_that_agree_is_asked_nothing(place):
    servers = [Says(block(5)), Says(block(5))]
    servers.insert(place, ahead := Says(block(99, fork=1), fork=1))
    assert run(*servers) == 1_005
    assert ahead.looked_up == [] and ahead.asked == []


def test_an_older_block_is_read_if_the_newest_that_two_have_is_in_doubt():
    assert run(Says(block(9, fork=1), fork=1), Says(block(9)), Says(block(8))) == 1_008


def test_one_of_two_is_too_few():
    with pytest.raises(ChainUnreachable, match="silent"):
        run(Says(block(5)), Says(None))


def test_why_a_server_is_missing_is_told_if_it_is_no_mere_silence():
    with pytest.raises(WrongNetwork):
        run(Says(None, fault=WrongNetwork("another chain")), Says(block(1)))


def test_a_lying_server_is_passed_over():
    assert run(Says(block(5), lies=True), Says(block(5))) == 1_005


def test_if_all_lie_the_lie_is_what_is_told():
    with pytest.raises(BadProof):
        run(Says(block(5), lies=True), Says(block(5), lies=True))


def test_the_chain_never_goes_back():
    server = Says(block(9))

    def fall_back():
        server.newest = block(8)

    with pytest.raises(ChainUnreachable, match="block 8"):
        run(server, then=fall_back)


def test_chain_time_never_falls():
    first, second = Says(block(9)), Says(block(9))

    def grow():
        first.newest = second.newest = block(10)

    assert run(first, second, then=grow) == (1_009, 1_010)


def test_a_network_without_servers_is_unreachable():
    with pytest.raises(ChainUnreachable, match="no liteserver"):
        run()


def send(*servers: Says) -> None:
    """Hand a message to a pool of these servers."""
    async def whole() -> None:
        pool = Pool()
        running = asyncio.create_task(pool.run(servers))
        await asyncio.sleep(0)
        try:
            await pool.send(b"message")
        finally:
            running.cancel()

    asyncio.run(whole())


def test_a_message_that_one_server_refuses_is_handed_to_the_next():
    refusing, taking, idle = Says(block(5), answer=ChainRefused("no")), Says(block(5)), Says(block(4))
    send(refusing, taking, idle)
    assert taking.taken == [b"message"] and not idle.taken


def test_why_a_message_was_refused_is_told_before_who_was_silent():
    silent, refusing = Says(block(5), answer=ChainUnreachable("gone")), Says(block(5), answer=ChainRefused("no"))
    with pytest.raises(ChainRefused, match="no"):
        send(silent, refusing)


def test_a_lie_is_told_before_a_refusal():
    with pytest.raises(BadProof):
        send(Says(block(5), answer=ChainRefused("no")), Says(block(5), answer=BadProof("a lie")))
