"""Liteservers together: which block they agree on, and who is asked. Runs on asyncio.

A liteserver proves everything below a block's hash, but not that the block is of
the chain. So min(2, configured) of them must name the same block first; then one
proven answer is enough.

Purity: shell. Spec: docs/spec/chain.md, rules CHN-2, CHN-3 and CHN-9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from cocoon.core.errors import BadProof, ChainDisagrees, ChainRefused, ChainUnreachable, CocoonError
from cocoon.core.limits import CHAIN_CALL_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
from cocoon.ledger.blocks import MASTER, BlockId, WholeBlock, WholeState
from cocoon.ledger.onchain import Account, Prices, Transaction

T = TypeVar("T")
#: How many must agree, if so many are configured.
AGREEING = 2


class Head(Value):
    """A masterchain block."""

    seqno: int
    root_hash: bytes
    file_hash: bytes


class Server(Protocol):
    """What the pool asks of a connection (``liteserver.Connection``)."""

    newest: Head | None
    fault: CocoonError

    @property
    def name(self) -> str: ...

    async def run(self) -> None: ...

    async def head_at(self, seqno: int) -> Head: ...

    async def time_of(self, head: Head) -> int: ...

    async def account(self, head: Head, address: bytes) -> Account: ...

    async def transactions(self, account: Account, after_lt: int, most: int) -> list[Transaction]: ...

    async def prices(self, head: Head) -> Prices: ...

    async def zero(self) -> BlockId: ...

    async def blocks(self, block: BlockId, after: BlockId, most: int) -> list[WholeBlock]: ...

    async def state(self, block: BlockId) -> WholeState: ...

    async def send(self, message: bytes) -> None: ...


class Pool:
    """All liteservers of a network."""

    def __init__(self) -> None:
        self._servers: Sequence[Server] = ()
        self._news = asyncio.Event()
        self._seqno = 0
        self._now_s = 0

    async def run(self, servers: Sequence[Server]) -> None:
        """Follow all of them until cancelled."""
        self._servers = servers
        self.changed()
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.run())

    def changed(self) -> None:
        """A server has a new block, came, or went."""
        self._news.set()
        self._news = asyncio.Event()

    async def now_s(self) -> int:
        """Chain time of the newest agreed block."""
        self._now_s = max(self._now_s, await self._ask(lambda server, head: server.time_of(head)))
        return self._now_s

    async def account(self, address: bytes) -> Account:
        """Newest agreed state of an account."""
        return await self._ask(lambda server, head: server.account(head, address))

    async def transactions(self, address: bytes, after_lt: int, most: int) -> list[Transaction]:
        """Transactions of an account, newest first."""

        async def read(server: Server, head: Head) -> list[Transaction]:
            account = await server.account(head, address)
            return await server.transactions(account, after_lt, most)

        return await self._ask(read)

    async def prices(self) -> Prices:
        """Prices after the newest agreed block."""
        return await self._ask(lambda server, head: server.prices(head))

    async def genesis(self) -> tuple[BlockId, WholeState, WholeState]:
        """The network's genesis, and both zerostates, the masterchain's first, proven by it."""

        async def read(server: Server, head: Head) -> tuple[BlockId, WholeState, WholeState]:
            zero = await server.zero()
            return zero, *(await _states(server, zero))

        return await self._ask(read)

    async def newest(self) -> tuple[BlockId, WholeState, WholeState]:
        """The newest agreed block of the masterchain, and both whole states behind it."""

        async def read(server: Server, head: Head) -> tuple[BlockId, WholeState, WholeState]:
            block = BlockId(MASTER, head.seqno, head.root_hash, head.file_hash)
            return block, *(await _states(server, block))

        return await self._ask(read)

    async def blocks(self, block: BlockId, after: BlockId, most: int) -> list[WholeBlock]:
        """At most ``most`` blocks from ``block``, which is proven, back to the one behind ``after``; newest first."""
        return await self._ask(lambda server, head: server.blocks(block, after, most))

    async def send(self, message: bytes) -> None:
        """Hand a message to the first server that takes it."""
        async def hand(server: Server, head: Head) -> None:
            await server.send(message)

        await self._ask(hand)

    async def wait_block(self, after: int) -> int:
        """Number of the newest agreed block, once it is above ``after``."""
        while True:
            news = self._news
            try:
                if (head := (await self._agreed())[0]).seqno > after:
                    return head.seqno
            except ChainUnreachable:
                pass  # they come back by themselves
            await news.wait()

    async def _ask(self, question: Callable[[Server, Head], Awaitable[T]]) -> T:
        """Ask the agreeing servers in turn, again after every change, until one answers or time is up."""
        fault: CocoonError | None = None
        try:
            async with asyncio.timeout(CHAIN_CALL_NS / SECOND_NS):
                while True:
                    news = self._news
                    try:
                        return await self._ask_once(question)
                    except ChainUnreachable as error:
                        fault = error
                    await news.wait()
        except TimeoutError:
            raise fault or self._silence() from None

    async def _ask_once(self, question: Callable[[Server, Head], Awaitable[T]]) -> T:
        head, servers = await self._agreed()
        faults: list[CocoonError] = []
        for server in servers:
            try:
                return await question(server, head)
            except (ChainUnreachable, ChainRefused, BadProof) as error:
                faults.append(error)
        # A lie is worth more attention than a refusal, and that more than silence; asking again mends neither.
        telling = [fault for kind in (BadProof, ChainRefused) for fault in faults if isinstance(fault, kind)]
        raise (telling or faults)[0]

    async def _agreed(self) -> tuple[Head, list[Server]]:
        """The newest block that enough servers name, and those servers; what the others say stops nobody.

        Raises:
            ChainUnreachable: too few are connected, or they are behind what was agreed before.
            ChainDisagrees: no two of them name the same block.
            WrongNetwork, BadProof: what keeps the missing ones away, if it is no mere silence.
        """
        needed = min(AGREEING, len(self._servers))
        heads = [(server.newest.seqno, server) for server in self._servers if server.newest is not None]
        if not needed or len(heads) < needed:
            raise self._silence()
        heads.sort(key=lambda pair: -pair[0])
        doubts: list[CocoonError] = []
        for seqno in sorted({number for number, _ in heads[needed - 1:]}, reverse=True):
            if seqno < self._seqno:
                doubts.append(ChainUnreachable(
                    f"the liteservers are at block {seqno}, after block {self._seqno} was seen"
                ))
                break
            # Who is at this block names it without a question; who claims to be far ahead may keep us waiting for it.
            servers = [server for number, server in reversed(heads) if number >= seqno]
            if (found := await self._named_alike(seqno, servers, needed, doubts)) is not None:
                self._seqno = seqno
                return found
        raise next((doubt for doubt in doubts if isinstance(doubt, ChainDisagrees)), doubts[0])

    @staticmethod
    async def _named_alike(
        seqno: int, servers: Sequence[Server], needed: int, doubts: list[CocoonError]
    ) -> tuple[Head, list[Server]] | None:
        """Ask in turn until enough name one block; if they do not, ``doubts`` says why."""
        named: dict[Head, list[Server]] = {}
        for server in servers:
            try:
                head = await server.head_at(seqno)
            except (ChainUnreachable, ChainRefused, BadProof) as error:
                doubts.append(error)
                continue
            named.setdefault(head, []).append(server)
            if len(named[head]) == needed:
                return head, named[head][::-1]
        if len(named) > 1:
            one, other, *_ = (group[0].name for group in named.values())
            doubts.append(ChainDisagrees(f"{one} and {other} name different blocks {seqno}"))
        return None

    def _silence(self) -> CocoonError:
        """Why there are too few servers."""
        faults = [server.fault for server in self._servers if server.newest is None]
        telling = [fault for fault in faults if not isinstance(fault, ChainUnreachable)]
        if telling:
            return type(telling[0])(telling[0].text)
        missing = faults[0].text if faults else "the network names no liteserver"
        return ChainUnreachable(f"too few liteservers to agree: {missing}")


async def _states(server: Server, block: BlockId) -> tuple[WholeState, WholeState]:
    """The states of both workchains behind one block of the masterchain."""
    master = await server.state(block)
    if master.base is None:
        raise BadProof(f"block {block.seqno} of the masterchain names none of the basechain")
    return master, await server.state(master.base)
