"""Who makes the blocks: takes messages to disk, runs them, and keeps time going.

What a client was told is on disk: a message is flushed before its sender hears
"taken", a block before anybody sees it.

Purity: shell. Spec: docs/spec/devnet.md, rules DEV-15, DEV-21, DEV-26 and DEV-27.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from cocoon.core.errors import CocoonError
from cocoon.core.limits import DEVNET_IDLE_BLOCK_NS
from cocoon.core.units import SECOND_NS
from cocoon.devnet.chain import Chain
from cocoon.devnet.formats import Inbound
from cocoon.devnet.store import Store


@dataclass(slots=True, eq=False)
class _Ticket:
    """A message on its way to disk."""

    inbound: Inbound
    data: bytes
    done: trio.Event = field(default_factory=trio.Event)
    error: CocoonError | None = None


class Producer:
    """Owns the writing side of a chain; ``run`` it beside the clients."""

    def __init__(self, chain: Chain, store: Store, now_s: Callable[[], int], block_ns: int) -> None:
        self.chain = chain
        self._store = store
        self._now_s = now_s
        self._block_s = block_ns / SECOND_NS
        self._idle_s = max(block_ns, DEVNET_IDLE_BLOCK_NS) / SECOND_NS
        self._inbox: list[_Ticket] = []
        self._coming = 0  # tickets in the inbox or being flushed
        self._arrived = trio.Event()
        self._poke = trio.Event()
        self._changed = trio.Event()
        self._disk = trio.Lock()
        self._begun = self._seen = -self._idle_s  # the newest block: when its making began, and what of that is public
        self._clients = 0

    # --- clients -----------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, somebody looks at the chain: idle blocks are made."""
        self._clients += 1
        self._poke.set()
        try:
            yield
        finally:
            self._clients -= 1

    async def submit(self, data: bytes) -> None:
        """Take an external message; returns when it is durable and waits for a block.

        Raises:
            Malformed, ChainRefused, LimitExceeded: see ``Chain.check``.
            StorageFull: the disk cannot take it.
        """
        inbound = self.chain.check(data, self._now_s(), self._coming)
        self._coming += 1
        ticket = _Ticket(inbound, data)
        self._inbox.append(ticket)
        self._arrived.set()
        await ticket.done.wait()
        if ticket.error is not None:
            raise type(ticket.error)(ticket.error.text)

    async def reach(self, seqno: int, seconds: float) -> None:
        """Wait until the chain has this block, or the time is over."""
        with trio.move_on_after(seconds):
            while self.chain.tip.seqno < seqno:
                await self._changed.wait()

    async def freshen(self) -> None:
        """Wait until the newest block is not older than an idle block could be when this was called.

        Not older than that now: where a block takes longer to make, none would ever be.
        """
        oldest = trio.current_time() - self._idle_s
        while self._seen < oldest:
            await self._changed.wait()

    # --- tasks -------------------------------------------------------------

    async def run(self) -> None:
        """Take messages and make blocks until cancelled.

        Raises:
            Corrupt, StorageFull: why no further block can be made.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_messages)
            nursery.start_soon(self._make_blocks)

    async def _take_messages(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            batch, self._inbox = self._inbox, []
            await self._keep(batch)

    async def _keep(self, batch: list[_Ticket]) -> None:
        """One flush for all that came meanwhile."""
        rows = [(ticket.inbound.cell.hash, ticket.data) for ticket in batch]
        try:
            async with self._disk:
                numbers = await trio.to_thread.run_sync(self._store.take, rows)
        except CocoonError as error:
            for ticket in batch:
                ticket.error = error
        else:
            for ticket, number in zip(batch, numbers, strict=True):
                if number is not None:  # None: the same message waits already
                    self.chain.add(number, ticket.inbound)
            self._poke.set()
        self._coming -= len(batch)
        for ticket in batch:
            ticket.done.set()

    async def _make_blocks(self) -> None:
        while True:
            with trio.move_on_at(self._due()):
                await self._poke.wait()
                self._poke = trio.Event()
            if trio.current_time() >= self._due():
                await self.make_block()

    def _due(self) -> float:
        """When the next block is to be made, in the loop's time."""
        if self.chain.pending:
            return self._begun + self._block_s
        return self._begun + self._idle_s if self._clients else float("inf")

    async def make_block(self) -> None:
        """Make one block now."""
        self._begun = trio.current_time()
        async with self._disk:
            draft = self.chain.draft(self._now_s())
            numbers = await trio.to_thread.run_sync(self._store.commit, draft.commit, draft.tip.seqno)
            self.chain.adopt(draft, numbers)  # before the next message gets its number: the queue keeps one order
        self._seen = self._begun
        changed, self._changed = self._changed, trio.Event()
        changed.set()
