"""A chain is added up block by block, in any order; what does not add up is told (DEV-19)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import BadProof, LimitExceeded
from cocoon.core.values import replace
from cocoon.ledger import census, supply
from cocoon.ledger.blocks import BASE, MASTER, BlockId, WholeBlock, WholeState
from cocoon.ledger.census import take_census
from cocoon.ledger.supply import Books, Carried, Moves

GENESIS = 10**15


@dataclass
class Economy:
    """A chain in miniature: balances, and transactions that move coins between them."""

    dice: random.Random
    balances: list[int] = field(default_factory=lambda: [GENESIS, 0, 0, 0])
    queue: list[tuple[int, Carried]] = field(default_factory=list)
    made: int = 0

    def send(self, source: int) -> Moves:
        """An external message: the account pays a fee and sends something on."""
        fee = self.dice.randint(0, min(10**6, self.balances[source]))
        self.balances[source] -= fee
        return Moves(fee, None, self._message(source))

    def deliver(self) -> Moves:
        """The oldest message arrives."""
        dest, message = self.queue.pop(0)
        fee = self.dice.randint(0, message.value_nanoton)
        self.balances[dest] += message.value_nanoton - fee
        return Moves(fee, message, self._message(dest) if self.dice.random() < 0.5 else ())

    def _message(self, source: int) -> tuple[Carried, ...]:
        whole = self.dice.randint(0, self.balances[source])
        forward = self.dice.randint(0, whole)
        self.balances[source] -= whole
        self.made += 1
        message = Carried(self.made.to_bytes(32, "big"), whole - forward, forward)
        self.queue.append((self.dice.randrange(len(self.balances)), message))
        return (message,)

    def block(self) -> tuple[list[Moves], int]:
        """A few transactions, and the fees that a true block declares."""
        moves = [
            self.deliver() if self.queue and self.dice.random() < 0.6 else self.send(self.dice.randrange(4))
            for _ in range(self.dice.randint(0, 5))
        ]
        return moves, sum(one.fees_nanoton + (one.taken.fee_nanoton if one.taken else 0) for one in moves)


def closed(blocks, balances, genesis=GENESIS):
    books = Books()
    for moves, declared in blocks:
        books.add(moves, declared)
    return books.close(genesis, balances, len(blocks))


@given(st.randoms(use_true_random=False), st.integers(0, 12))
def test_whatever_moves_and_in_whatever_order_blocks_are_read_the_sums_hold(dice, count):
    economy = Economy(dice)
    blocks = [economy.block() for _ in range(count)]
    dice.shuffle(blocks)
    found = closed(blocks, economy.balances)
    assert found.conserved
    assert found.under_way_nanoton == sum(m.value_nanoton + m.fee_nanoton for _, m in economy.queue)
    assert found.genesis_nanoton == found.balances_nanoton + found.fees_nanoton + found.under_way_nanoton
    assert (found.blocks, found.transactions) == (count, sum(len(moves) for moves, _ in blocks))


@given(st.randoms(use_true_random=False), st.sampled_from([-1, 1]))
def test_one_nanoton_too_many_or_too_few_anywhere_is_told(dice, wrong):
    economy = Economy(dice)
    blocks = [economy.block() for _ in range(6)]
    assert not closed(blocks, [economy.balances[0] + wrong, *economy.balances[1:]]).conserved
    assert not closed(blocks, economy.balances, GENESIS + wrong).conserved
    at = dice.randrange(len(blocks))
    moves, declared = blocks[at]
    for told in ((moves, declared + wrong), ([*moves, Moves(wrong, None, ())], declared + wrong)):
        assert not closed([*blocks[:at], told, *blocks[at + 1 :]], economy.balances).conserved


def message(number: int, value: int = 7) -> Carried:
    return Carried(bytes([number]) * 32, value, 0)


def test_a_message_that_nobody_made_or_that_came_twice_is_told():
    """Both would pass a mere sum of balances if the liar took the coins from somewhere else."""
    made, again = Moves(0, None, (message(1, 0),)), Moves(0, message(1, 0), ())
    assert closed([([made, again], 0)], [GENESIS]).conserved
    assert closed([([made, again, again], 0)], [GENESIS]).unmade == 1
    assert not closed([([made, again, again], 0)], [GENESIS]).conserved
    assert not closed([([again], 0)], [GENESIS]).conserved


def test_a_chain_with_too_many_transactions_is_refused(monkeypatch):
    monkeypatch.setattr(supply, "SUPPLY_TRANSACTIONS", 2)
    books = Books()
    books.add([Moves(0, None, ())] * 2, 0)
    with pytest.raises(LimitExceeded, match="more than 2 transactions"):
        books.add([Moves(0, None, ())], 0)


# --- reading ------------------------------------------------------------------


def block_id(workchain: int, seqno: int) -> BlockId:
    return BlockId(workchain, seqno, bytes([workchain & 1, seqno]) * 16, bytes(32))


class Servers:
    """In the place of a pool: block N of the basechain holds ``moves[N - 1]``; a reader is shown one more each time."""

    def __init__(self, moves: list[list[Moves]], balances: list[list[int]], first: int) -> None:
        self.moves, self.balances, self.height = moves, balances, first - 1
        self.read: list[tuple[int, int]] = []
        self.waited: list[int] = []

    async def genesis(self):
        return block_id(MASTER, 0), *self.states(0, [GENESIS])

    async def newest(self):
        self.height += 1
        return block_id(MASTER, self.height), *self.states(self.height, self.balances[self.height - 1])

    def states(self, height: int, balances: list[int]):
        return WholeState(MASTER, (), block_id(BASE, height)), WholeState(BASE, tuple(balances), None)

    async def blocks(self, block: BlockId, after: BlockId, most: int):
        found = []
        for seqno in range(block.seqno, max(after.seqno, block.seqno - most), -1):
            self.read.append((block.workchain, seqno))
            moves = self.moves[seqno - 1] if block.workchain == BASE else []
            fees = sum(one.fees_nanoton for one in moves)
            here, before = block_id(block.workchain, seqno), block_id(block.workchain, seqno - 1)
            found.append(WholeBlock(here, before, bytes(32), fees, tuple(moves)))
        return found

    async def wait_block(self, after: int):
        self.waited.append(after)
        return after + 1


def travelling() -> Servers:
    """A message is made in block 2 and taken in block 4."""
    made, taken = Moves(3, None, (message(1),)), Moves(2, message(1), ())
    balances = [[GENESIS], [GENESIS - 10], [GENESIS - 10], [GENESIS - 10, 5]]
    return Servers([[], [made], [], [taken]], balances, first=2)


def take(servers: Servers):
    return asyncio.run(take_census(servers, block_id(MASTER, 0).root_hash))  # type: ignore[arg-type]


def test_a_quiet_block_is_waited_for_and_no_block_is_read_twice():
    servers = travelling()
    found = take(servers)
    assert found.quiet and found.conserved and found.seqno == 4
    assert servers.waited == [2, 3]
    assert sorted(servers.read) == sorted((chain, seqno) for chain in (MASTER, BASE) for seqno in range(1, 5))
    assert (found.blocks, found.transactions, found.accounts, found.fees_nanoton) == (8, 2, 2, 5)


def test_what_stays_under_way_is_told_after_a_while_and_counted(monkeypatch):
    monkeypatch.setattr(census, "SUPPLY_LOOKS", 1)
    found = take(travelling())
    assert not found.quiet and found.conserved and found.under_way_nanoton == 7


def test_pages_lead_back_to_the_genesis(monkeypatch):
    monkeypatch.setattr(census, "SUPPLY_PAGE", 3)
    servers = Servers([[] for _ in range(10)], [[GENESIS]] * 10, first=10)
    assert take(servers).blocks == len(set(servers.read)) == 20


def test_a_chain_with_too_many_blocks_is_refused_before_one_is_read(monkeypatch):
    monkeypatch.setattr(census, "SUPPLY_BLOCKS", 9)
    servers = Servers([[] for _ in range(10)], [[GENESIS]] * 10, first=10)
    with pytest.raises(LimitExceeded, match="10 blocks"):
        take(servers)
    assert servers.read == []


def test_another_genesis_or_a_missing_basechain_is_no_proof():
    with pytest.raises(BadProof, match="another genesis"):
        asyncio.run(take_census(travelling(), bytes(32)))  # type: ignore[arg-type]
    servers = travelling()
    servers.states = lambda height, balances: (WholeState(MASTER, (), None),) * 2  # type: ignore[method-assign]
    with pytest.raises(BadProof, match="no block of the basechain"):
        take(servers)


def test_a_supply_with_a_wrong_figure_is_not_conserved():
    found = closed([], [GENESIS])
    assert found.conserved
    for name in ("genesis_nanoton", "balances_nanoton", "fees_nanoton", "declared_nanoton", "unmade"):
        assert not replace(found, **{name: getattr(found, name) + 1}).conserved
