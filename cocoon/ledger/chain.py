"""The chain as trio sees it: proven accounts, transactions, time and prices, and a way to send.

pytoniq is imported only when a chain is opened: a peer of a network without one
does not pay for it.

Purity: shell. Spec: docs/spec/chain.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from cocoon.config.network import ChainFacts, parse_liteserver
from cocoon.core.clock import Clock
from cocoon.core.errors import ChainUnreachable, CocoonError, PublicUnproven, UsageError
from cocoon.core.groups import single_error
from cocoon.core.limits import PRICES_KEPT_NS, PRICES_NS, TRANSACTIONS_READ
from cocoon.ledger.bridge import Bridge, open_bridge
from cocoon.ledger.census import take_census
from cocoon.ledger.onchain import Account, OutMessage, Prices, Transaction
from cocoon.ledger.pool import Pool
from cocoon.ledger.supply import Supply
from cocoon.telemetry.log import get_logger
from cocoon.wire.boc import pack
from cocoon.wire.cells import Cell

if TYPE_CHECKING:
    from cocoon.ledger.liteserver import Connection

__all__ = ["Account", "Chain", "OutMessage", "Prices", "Supply", "Transaction", "open_chain"]


class Chain:
    """The chain of one network. For one trio loop; see ``open_chain``.

    Every reading raises ``ChainUnreachable`` (after ``CHAIN_CALL_NS``), ``ChainDisagrees``, ``BadProof`` or
    ``WrongNetwork`` instead of anything doubtful.
    """

    def __init__(self, bridge: Bridge, pool: Pool, facts: ChainFacts, clock: Clock, nursery: trio.Nursery) -> None:
        self.facts = facts
        self._bridge = bridge
        self._pool = pool
        self._clock = clock
        self._nursery = nursery
        self._log = get_logger("chain")
        # When by the monotonic clock, and what; None was never read.
        self._prices: tuple[int, Prices | None] = 0, None
        self._renewing = False

    async def now_s(self) -> int:
        """Chain time of the newest block, Unix seconds; never falls."""
        return await self._bridge.call(self._pool.now_s)

    async def account(self, address: bytes) -> Account:
        """The newest proven state of an account; one that was never used has balance 0 and no data."""
        _check(address)
        return await self._bridge.call(lambda: self._pool.account(address))

    async def transactions(self, address: bytes, after_lt: int = 0, most: int = 256) -> list[Transaction]:
        """Transactions of an account with ``lt > after_lt``, oldest first; at most the newest ``most``."""
        _check(address)
        if not 0 <= most <= TRANSACTIONS_READ:
            raise UsageError(f"one call reads at most {TRANSACTIONS_READ} transactions, not {most}")
        found = await self._bridge.call(lambda: self._pool.transactions(address, after_lt, most))
        return found[::-1]

    async def send(self, message: Cell) -> None:
        """Hand an external message to a liteserver; that it was taken proves nothing yet.

        Raises:
            ChainRefused: the contract would not accept it now; nothing was executed.
            ChainUnreachable: it may or may not have arrived.
        """
        packed = pack(message)
        await self._bridge.call(lambda: self._pool.send(packed))

    async def prices(self) -> Prices:
        """Fees of the network's configuration, proven; read again after ``PRICES_NS``, behind whoever asks then.

        So a lease does not wait for a chain that is away; only prices older than ``PRICES_KEPT_NS`` are waited for.
        """
        read_ns, known = self._prices
        age_ns = self._clock.now_ns() - read_ns
        if known is None or age_ns > PRICES_KEPT_NS:
            return await self._read_prices()
        if age_ns > PRICES_NS and not self._renewing:
            self._renewing = True
            self._nursery.start_soon(self._renew_prices)
        return known

    async def _read_prices(self) -> Prices:
        now_ns = self._clock.now_ns()
        prices = await self._bridge.call(self._pool.prices)
        self._prices = now_ns, prices
        return prices

    async def _renew_prices(self) -> None:
        try:
            await self._read_prices()
        except CocoonError as error:
            self._log.failure("prices_not_read", error)
        finally:
            self._renewing = False

    async def wait_block(self, after: int) -> int:
        """Wait, however long, for an agreed masterchain block above number ``after``; its number."""
        return await self._bridge.call(lambda: self._pool.wait_block(after))

    async def supply(self) -> Supply:
        """The whole chain added up: every block, transaction and balance, proven; for devnets.

        Raises:
            LimitExceeded: the chain is longer than ``SUPPLY_BLOCKS``, or holds too much.
        """
        return await self._bridge.call(lambda: take_census(self._pool, self.facts.genesis))

    async def genesis(self) -> bytes:
        """Root hash of the zerostate, 32 bytes; a liteserver with another one is never listened to."""
        await self.now_s()
        return self.facts.genesis


@asynccontextmanager
async def open_chain(facts: ChainFacts, liteservers: Sequence[str], clock: Clock) -> AsyncIterator[Chain]:
    """Follow the chain until the block ends. Does not wait for the first connection.

    Args:
        liteservers: As in ``NetworkFile.liteservers``; min(2, configured) of them must agree.

    Raises:
        BadLink: one of them has no lawful form.
        ChainUnreachable: none is named.
        PublicUnproven: the network is public; two liars in a join link could show any chain (NET-8).
    """
    if facts.public:
        raise PublicUnproven("this version does not check the blocks of a public network against its validators")
    places = [parse_liteserver(text) for text in liteservers]
    if not places:
        raise ChainUnreachable("the network names no liteserver")
    connection = await trio.to_thread.run_sync(_door)
    async with open_bridge() as bridge:
        pool = await bridge.call(_make_pool)
        servers = [connection(place, facts.genesis, pool.changed) for place in places]
        with single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, lambda: pool.run(servers))
                yield Chain(bridge, pool, facts, clock, nursery)
                nursery.cancel_scope.cancel()


async def _make_pool() -> Pool:
    return Pool()


def _door() -> type[Connection]:
    """Import pytoniq, in a thread: half a second that the loop need not wait."""
    from cocoon.ledger.liteserver import Connection

    return Connection


def _check(address: bytes) -> None:
    if len(address) != 32:
        raise UsageError(f"an address is the hash part of workchain 0, 32 bytes, not {len(address)}")
