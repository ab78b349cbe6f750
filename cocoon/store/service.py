"""The journal as services use it: ``write`` outlives the process, ``append`` a power cut too.

A call writes in the loop, which takes as long as SQLite needs for a page in memory. The
flush to the disk is done by ``store.flusher`` in its own thread, which wakes all who wait
for it with one callback.

Purity: shell. Spec: docs/spec/store.md.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import trio

from cocoon.core.errors import CocoonError, UsageError
from cocoon.core.limits import JOURNAL_BATCH, JOURNAL_ROW_BYTES
from cocoon.store.chain import Entry
from cocoon.store.flusher import Flusher
from cocoon.store.lock import lock_home
from cocoon.store.reader import Reader, open_reader
from cocoon.store.writer import Room, Row, Writer

__all__ = [
    "Entry",
    "Journal",
    "Room",
    "Row",
    "lock_home",
    "open_journal",
    "open_reader",
]

JOURNAL_FILE = "journal.db"


_KIND_CHARS = 64
_UNIQUE_BYTES = 256


@dataclass(slots=True, eq=False)
class _Batch:
    """Rows that are written together, or not at all."""

    rows: tuple[Row, ...]
    done: trio.Event = field(default_factory=trio.Event)
    outcome: list[int] | CocoonError = field(default_factory=list)

    def seqs(self) -> list[int]:
        """Their numbers; raises why there are none."""
        if isinstance(self.outcome, CocoonError):
            # A fresh object: one error may wake many tasks, and each adds its own traceback.
            raise type(self.outcome)(self.outcome.text)
        return self.outcome


class Journal:
    """Append-only, hash-chained records. For one trio loop; see ``open_journal``."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader
        self._flusher: Flusher
        self._flushed = 0
        #: Batches to be written with the next transaction.
        self._line: list[_Batch] = []
        #: Up to which transaction somebody waits for the disk, ascending.
        self._waiting: deque[tuple[int, _Batch]] = deque()
        self._tried = trio.Event()
        self._failed = trio.Event()
        self._closed = False

    @property
    def low(self) -> bool:
        """Whether the disk is (nearly) full: record open obligations, take no new work."""
        return self._writer.low

    @property
    def unflushed(self) -> int:
        """Transactions that a power cut would take now."""
        return self._writer.commits - self._flushed

    @property
    def queued(self) -> int:
        """Rows that are to be written when the disk is done with those before them."""
        return sum(len(batch.rows) for batch in self._line)

    async def append(self, kind: str, body: bytes, unique: bytes | None = None) -> int:
        """Record one fact; returns its sequence number when it is durable.

        Args:
            kind: A constant word, at most 64 characters.
            body: At most ``JOURNAL_ROW_BYTES``.
            unique: At most 256 bytes that no other record of the journal may have.

        A cancelled append is written all the same; replay will show it.

        Raises:
            Duplicate: a record with ``unique`` exists; nothing was written.
            StorageFull: no room; nothing was written; the same call may be tried again.
            Corrupt: the disk failed; every later append fails too, the peer must stop.
            UsageError: a bound was broken, or the journal is closed.
        """
        return (await self.append_many([Row(kind, body, unique)]))[0]

    async def append_many(self, rows: Sequence[Row]) -> list[int]:
        """Record up to ``JOURNAL_BATCH`` facts, all or none, with consecutive numbers; returns when they are durable.

        What comes while the disk works is written together when it is done.

        Raises:
            As ``append``; one taken unique key refuses the whole batch.
        """
        self._check(rows)
        if not rows:
            return []
        batch = _Batch(tuple(rows))
        self._line.append(batch)
        if not self._waiting or self.queued >= JOURNAL_BATCH:     # what waits in memory stays bounded
            self._commit()
        await batch.done.wait()
        return batch.seqs()

    def write(self, rows: Sequence[Row]) -> list[int]:
        """As ``append_many``, but for what may be lost in a power cut as if it had happened a moment later.

        It is there for every reader and outlives this process at once, and is durable before anything that is
        recorded later.
        """
        self._check(rows)
        if not rows:
            return []
        batch = _Batch(tuple(rows))
        self._line.append(batch)
        self._commit(batch)
        return batch.seqs()

    async def flush(self) -> None:
        """Wait until everything that was written is durable.

        Raises:
            Corrupt: the disk failed.
        """
        self._writer.check()
        if self._line:
            self._commit()
        if self.unflushed:
            batch = _Batch(())
            self._waiting.append((self._writer.commits, batch))
            self._flusher.ask()
            await batch.done.wait()
            batch.seqs()

    async def refill(self) -> bool:
        """Try now, not at the next turn, to make the reserve again; True if the journal is not low."""
        if self.low and self._writer.failure is None:
            self._flusher.try_refill()
            await self._tried.wait()
        return not self.low

    async def watch(self) -> NoReturn:
        """Wait until the disk fails, then raise; a peer runs this beside everything else.

        Raises:
            Corrupt: why the journal can no longer be written.
        """
        await self._failed.wait()
        self._writer.check()
        raise AssertionError("a journal fails with a cause")

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

    def _check(self, rows: Sequence[Row]) -> None:
        self._writer.check()
        if self._closed:
            raise UsageError("the journal is closed")
        _check(rows)

    def _commit(self, unawaited: _Batch | None = None) -> None:
        """Write what is in the line, in one transaction; wake who waits for it when it is flushed, or refused."""
        line, self._line = self._line, []
        try:
            for batch, outcome in zip(line, self._writer.write([batch.rows for batch in line]), strict=True):
                batch.outcome = outcome
        except CocoonError as error:
            for batch in line:
                batch.outcome = error
        for batch in line:
            if not isinstance(batch.outcome, list):
                batch.done.set()
            elif batch is not unawaited:
                self._waiting.append((self._writer.commits, batch))
        self._flusher.wrote(self._writer.commits, self._writer.log_bytes, low=self._writer.low)
        if self._waiting:
            self._flusher.ask()
        if self._writer.failure is not None:
            self._fail(self._writer.failure.text)

    # --- what the flusher says, in the loop ---------------------------------

    def _is_flushed(self, commits: int) -> None:
        self._flushed = max(self._flushed, commits)
        while self._waiting and self._waiting[0][0] <= commits:
            self._waiting.popleft()[1].done.set()
        if self._line:
            self._commit()

    def _has_tried(self, is_held: bool) -> None:
        if is_held:
            self._writer.restored()
        self._tried.set()
        self._tried = trio.Event()

    def _fail(self, text: str) -> None:
        cause = self._writer.fail(text)
        self._failed.set()
        for batch in [*self._line, *(batch for _, batch in self._waiting)]:
            batch.outcome = cause
            batch.done.set()
        self._line.clear()
        self._waiting.clear()
        self._has_tried(is_held=False)

    def _close(self) -> None:
        if self._line:
            self._commit()
        self._closed = True


@asynccontextmanager
async def open_journal(
    path: Path,
    clock_ns: Callable[[], int],
    *,
    room: Room | None = None,
    on_flush: Callable[[], None] | None = None,
) -> AsyncIterator[Journal]:
    """Open ``path`` (made if missing), check its head, and run its thread until the block ends.

    The caller holds ``lock_home``. What is written at the end is flushed.

    Args:
        clock_ns: Wall time, nanoseconds since 1970, for people.
        room: How much disk it may take; None takes the defaults.
        on_flush: Called in the journal's thread before every flush.

    Raises:
        SchemaNewer: written by a newer version; nothing was changed.
        Corrupt: no journal, or its last record is torn.
        StorageFull, Unavailable: it cannot be made now.
    """
    writer = Writer(path, clock_ns, room or Room())
    await trio.to_thread.run_sync(writer.open)
    try:
        with _open_second(path) as connection:
            journal = Journal(writer, Reader(connection))
            async with _flushing(path, journal, writer, on_flush):
                yield journal
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(writer.close)     # folds the log into the file


@asynccontextmanager
async def _flushing(
    path: Path, journal: Journal, writer: Writer, on_flush: Callable[[], None] | None
) -> AsyncIterator[None]:
    """The journal's thread."""
    token, ended = trio.lowlevel.current_trio_token(), trio.Event()

    def refill(connection: sqlite3.Connection) -> bool:
        is_held = writer.has_room(connection) and writer.hold_reserve()
        token.run_sync_soon(journal._has_tried, is_held)
        return not is_held

    journal._flusher = flusher = Flusher(
        path,
        flushed=lambda commits: token.run_sync_soon(journal._is_flushed, commits),
        failed=lambda text: token.run_sync_soon(journal._fail, text),
        folded=lambda: token.run_sync_soon(writer.fold),
        refill=refill,
        ended=lambda: token.run_sync_soon(ended.set),
        on_flush=on_flush,
    )
    flusher.wrote(writer.commits, writer.log_bytes, low=writer.low)
    flusher.start()
    try:
        yield
    finally:
        journal._close()
        flusher.stop()
        with trio.CancelScope(shield=True):
            await ended.wait()
        flusher.join()


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


def _check(rows: Sequence[Row]) -> None:
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
