"""Reads a whole chain and adds it up. Runs on asyncio.

Everything hangs on two hashes: that of the newest agreed block, from which each
block names the one before, and that of the genesis, in which this must end. The
balances stand in the states behind the newest block. So a liteserver can refuse
to answer, but cannot leave out a block, a transaction or an account.

Purity: shell. Spec: docs/spec/devnet.md, rules DEV-8, DEV-19 and DEV-33.
"""

from __future__ import annotations

from cocoon.core.errors import BadProof, LimitExceeded
from cocoon.core.limits import SUPPLY_BLOCKS, SUPPLY_LOOKS, SUPPLY_PAGE
from cocoon.ledger.blocks import BASE, MASTER, BlockId, WholeState
from cocoon.ledger.pool import Pool
from cocoon.ledger.supply import Books, Supply


async def take_census(pool: Pool, genesis: bytes) -> Supply:
    """Add up the chain; waits a few blocks for one after which no message is under way.

    Raises:
        LimitExceeded: the chain is longer than what is read.
        BadProof: it does not lead back to ``genesis``, or a block does not hold what it says.
        ChainUnreachable, ChainDisagrees, WrongNetwork: as every reading.
    """
    census = _Census(pool, genesis)
    found = await census.look()
    for _ in range(SUPPLY_LOOKS):
        if found.quiet:
            break
        await pool.wait_block(found.seqno)
        found = await census.look()
    return found


class _Census:
    """What was read so far; a second look reads only what is new."""

    def __init__(self, pool: Pool, genesis: bytes) -> None:
        self._pool = pool
        self._genesis = genesis
        self._genesis_nanoton = 0
        self._books = Books()
        self._known: dict[int, BlockId] = {}

    async def look(self) -> Supply:
        """The sums after the newest block."""
        if not self._known:
            await self._begin()
        master, *states = await self._pool.newest()
        for block in (master, _base_of(states[0])):
            await self._walk(block)
        balances = [balance for state in states for balance in state.balances]
        return self._books.close(self._genesis_nanoton, balances, master.seqno)

    async def _begin(self) -> None:
        zero, *states = await self._pool.genesis()
        if zero.root_hash != self._genesis:
            raise BadProof("a liteserver names another genesis")
        self._genesis_nanoton = sum(sum(state.balances) for state in states)
        self._known = {MASTER: zero, BASE: _base_of(states[0])}

    async def _walk(self, newest: BlockId) -> None:
        """Add every block from the newest back to the last one that was added before."""
        known = self._known[newest.workchain]
        if newest.seqno > SUPPLY_BLOCKS:
            raise LimitExceeded(
                f"the chain has {newest.seqno} blocks, above the {SUPPLY_BLOCKS} that are added up; "
                "a newer network has fewer"
            )
        block = newest
        while block.seqno > known.seqno:
            page = await self._pool.blocks(block, known, SUPPLY_PAGE)
            for one in page:
                self._books.add(one.transactions, one.fees_nanoton)
            block = page[-1].previous
        self._known[newest.workchain] = newest


def _base_of(master: WholeState) -> BlockId:
    if master.base is None:
        raise BadProof("a state of the masterchain names no block of the basechain")
    return master.base
