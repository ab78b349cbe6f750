"""The journal as services use it: ``await append`` returns when the record is durable.

Only trio events are touched here; the disk work is done by ``store.writer`` in
its own thread, which wakes all waiters of a batch with one callback.

Purity: shell. Spec: docs/spec/store.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NoReturn

import trio

from cocoon.core.errors import CocoonError, Corrupt, UsageError
from cocoon.core.limits import JOURNAL_BATCH, JOURNAL_QUEUE, JOURNAL_QUEUE_BYTES, JOURNAL_ROW_BYTES
from cocoon.store.chain import Entry
from cocoon.store.lock import lock_home
from cocoon.store.reader import Reader, open_reader
from cocoon.store.writer import Room, Row, Ticket, Writer

__all__ = [
    "Entry",
    "Journal",
    "Queued",
    "Room",
    "Row",
    "lock_home",
    "open_journal",
    "open_reader",
]

JOURNAL_FILE = "journal.db"


class Queued:
    """Rows that are on their way to the disk, in the order in which they were queued."""

    def __init__(self, ticket: Ticket, done: trio.Event) -> None:
        """Made by ``Journal.queue``."""
        self.ticket = ticket
        self._done = done

    async def durable(self) -> list[int]:
        """Wait until they are there; their numbers. Raises as ``Journal.append``."""
        await self._done.wait()
        if self.ticket.error is not None:
            # A fresh object: one error may wake many tasks, and each adds its own traceback.
            raise type(self.ticket.error)(self.ticket.error.text)
        return self.ticket.seqs


_KIND_CHARS = 64
_UNIQUE_BYTES = 256


class Journal:
    """Append-only, hash-chained records. For one trio loop; see ``open_journal``."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader
        self._rows = 0
        self._bytes = 0
        self._space = trio.lowlevel.ParkingLot()
        self._failed = trio.Event()
        self._closed = False

    @property
    def low(self) -> bool:
        """Whether the disk is (nearly) full: record open obligations, take no new work."""
        return self._writer.low

    @property
    def commits(self) -> int:
        """Transactions so far; with many appends at once fewer than records."""
        return self._writer.commits

    @property
    def queued(self) -> int:
        """Rows that wait for the disk now."""
        return self._rows

    async def append(self, kind: str, body: bytes, unique: bytes | None = None) -> int:
        """Record one fact; returns its sequence number when it is durable.

        Args:
            kind: A constant word, at most 64 characters.
            body: At most ``JOURNAL_ROW_BYTES``.
            unique: At most 256 bytes that no other record of the journal may have.

        A cancelled append may still become durable; replay will show it.

        Raises:
            Duplicate: a record with ``unique`` exists; nothing was written.
            StorageFull: no room; nothing was written; the same call may be tried again.
            Corrupt: the disk failed; every later append fails too, the peer must stop.
            UsageError: a bound was broken, or the journal is closed.
        """
        return (await self.append_many([Row(kind, body, unique)]))[0]

    async def append_many(self, rows: Sequence[Row], after: Sequence[Queued] = ()) -> list[int]:
        """Record up to ``JOURNAL_BATCH`` facts, all or none, with consecutive numbers.

        Args:
            after: Rows that were queued before; without them these are not recorded either, and if there are none to
                record those are waited for.

        Raises:
            As ``append``; one taken unique key refuses the whole batch.
        """
        if rows:
            return await (await self.queue(rows, after)).durable()
        for one in after:
            await one.durable()
        return []

    async def queue(self, rows: Sequence[Row], after: Sequence[Queued] = ()) -> Queued:
        """As ``append_many``, but returns as soon as there is room for them in the line."""
        rows = tuple(rows)
        size = _checked_bytes(rows)
        while self._rows and not self._has_space(len(rows), size):
            await self._space.park()
        return self._submit(rows, tuple(one.ticket for one in after))

    async def refill(self) -> bool:
        """Try now, not at the next turn, to make the reserve again; True if the journal is not low."""
        if self.low:
            await self._submit(()).durable()
        return not self.low

    async def watch(self) -> NoReturn:
        """Wait until the disk fails, then raise; a peer runs this beside everything else.

        Raises:
            Corrupt: why the journal can no longer be written.
        """
        await self._failed.wait()
        raise self._broken()

    def entries(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Replay: durable records with ``seq > after`` in order, each checked against the chain.

        Reads the disk in the calling thread.

        Raises:
            Corrupt: names the seq of a torn or edited record.
        """
        return self._reader.entries(kind, after)

    def find(self, unique: bytes) -> Entry | None:
        """The durable record with this unique key, checked; None if there is none."""
        return self._reader.find(unique)

    def under(self, prefix: bytes) -> Iterator[Entry]:
        """Durable records whose unique key begins with ``prefix``, by ascending key, each checked."""
        return self._reader.under(prefix)

    def last_under(self, prefix: bytes) -> Entry | None:
        """The durable record with the highest unique key that begins with ``prefix``, checked."""
        return self._reader.last_under(prefix)

    def verify(self) -> int:
        """Walk the whole chain in the calling thread; the number of records.

        Raises:
            Corrupt: names the first bad seq.
        """
        return self._reader.verify()

    def _has_space(self, rows: int, size: int) -> bool:
        return self._rows + rows <= JOURNAL_QUEUE and self._bytes + size <= JOURNAL_QUEUE_BYTES

    def _submit(self, rows: tuple[Row, ...], needs: tuple[Ticket, ...] = ()) -> Queued:
        if self._failed.is_set():
            raise self._broken()
        if self._closed:
            raise UsageError("the journal is closed")
        done = trio.Event()
        ticket = Ticket(rows, done.set, needs)
        self._rows += len(rows)
        self._bytes += sum(len(row.body) for row in rows)
        self._writer.put(ticket)
        return Queued(ticket, done)

    def _release(self, ticket: Ticket) -> None:
        ticket.needs = ()                               # else each would hold all that were ever before it
        self._rows -= len(ticket.rows)
        self._bytes -= sum(len(row.body) for row in ticket.rows)

    def _wake(self, tickets: Sequence[Ticket]) -> None:
        """Runs in the trio loop, once per batch."""
        for ticket in tickets:
            self._release(ticket)
            ticket.done()
        if self._writer.failure is not None:
            self._failed.set()
        self._space.unpark_all()

    def _broken(self) -> Corrupt:
        return Corrupt(self._writer.failure.text if self._writer.failure else "the journal failed")

    def _close(self) -> None:
        self._closed = True


@asynccontextmanager
async def open_journal(
    path: Path,
    clock_ns: Callable[[], int],
    *,
    room: Room | None = None,
    on_commit: Callable[[int], None] | None = None,
) -> AsyncIterator[Journal]:
    """Open ``path`` (made if missing), check its head, and run its thread until the block ends.

    The caller holds ``lock_home``. What is queued at the end is committed.

    Args:
        clock_ns: Wall time, nanoseconds since 1970, for people; called in the journal's thread.
        room: How much disk it may take; None takes the defaults.
        on_commit: Called in the journal's thread after every transaction with its number of rows.

    Raises:
        SchemaNewer: written by a newer version; nothing was changed.
        Corrupt: no journal, or its last record is torn.
        StorageFull, Unavailable: it cannot be made now.
    """
    token = trio.lowlevel.current_trio_token()
    opened, ended = trio.Event(), trio.Event()
    outcome: list[CocoonError | None] = []
    journals: list[Journal] = []

    def say_opened(error: CocoonError | None) -> None:
        outcome.append(error)
        token.run_sync_soon(opened.set)

    def deliver(tickets: Sequence[Ticket]) -> None:
        for journal in journals:
            token.run_sync_soon(journal._wake, tickets)

    def say_ended() -> None:
        token.run_sync_soon(ended.set)

    writer = Writer(path, clock_ns, deliver, say_opened, room or Room(), on_commit, say_ended)
    writer.start()
    with trio.CancelScope(shield=True):
        await opened.wait()
    if outcome[0] is not None:
        writer.join()
        raise outcome[0]
    try:
        with _open_second(path) as connection:
            journals.append(Journal(writer, Reader(connection)))
            yield journals[0]
    finally:
        for journal in journals:
            journal._close()
        writer.stop()
        with trio.CancelScope(shield=True):
            await ended.wait()
        writer.join()


@contextmanager
def _open_second(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading beside the writer's; any thread may use it, one at a time."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # a row that is no UTF-8 must not stop us from naming it
    try:
        connection.execute("PRAGMA query_only = ON")
        yield connection
    finally:
        connection.close()


def _checked_bytes(rows: Sequence[Row]) -> int:
    if len(rows) > JOURNAL_BATCH:
        raise UsageError(f"a batch has at most {JOURNAL_BATCH} rows, not {len(rows)}")
    for row in rows:
        if not 0 < len(row.kind) <= _KIND_CHARS or len(row.body) > JOURNAL_ROW_BYTES:
            raise UsageError(
                f"a record {row.kind[:64]!r} of {len(row.body)} bytes is above the journal's bounds"
            )
        if row.unique is not None and not 0 < len(row.unique) <= _UNIQUE_BYTES:
            raise UsageError(f"a unique key has 1 to {_UNIQUE_BYTES} bytes, not {len(row.unique)}")
    keys = [row.unique for row in rows if row.unique is not None]
    if len(set(keys)) != len(keys):
        raise UsageError("a batch holds one unique key twice")
    return sum(len(row.body) for row in rows)
