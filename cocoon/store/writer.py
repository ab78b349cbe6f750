"""The journal's own thread: it takes what waits, commits it at once, and says so.

One transaction holds everything that was queued when it began (group commit),
so a busy journal pays one disk flush for many records. A batch that meets a
full disk is rolled back whole; nothing of it was promised.

Purity: shell (thread, SQLite). Spec: docs/spec/store.md, rules STO-1, STO-2, STO-8 to STO-10.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cocoon.core.errors import CocoonError, Corrupt, Duplicate, StorageFull, Unavailable
from cocoon.core.limits import (
    JOURNAL_BATCH,
    JOURNAL_LOCK_NS,
    JOURNAL_REFILL_NS,
    JOURNAL_RESERVE_BYTES,
)
from cocoon.core.units import MIB, SECOND_NS
from cocoon.core.values import Value
from cocoon.identity.files import sync_dir, touch_private, unavailable
from cocoon.store import reserve, schema
from cocoon.store.chain import link
from cocoon.store.reader import Reader

T = TypeVar("T")

_PRIMARY = 0xFF
#: A failed flush may have dropped pages from the cache: trying again would lie.
_NEVER_AGAIN = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
_SMALLEST_LIMIT_BYTES = MIB
#: The write-ahead log shrinks to this after a burst: the size at which SQLite checkpoints by itself.
_LOG_BYTES = 4 * MIB
#: The smallest page of SQLite: a shorter file that is not empty has lost something.
_SMALLEST_FILE_BYTES = 512
#: Of six values each; SQLite before 3.32 takes 999 values in a statement.
_STATEMENT_ROWS = 128
#: Its traceback is on stderr, where threading puts it.
_DEFECT = "the journal's thread ended by a defect"


class Row(Value):
    """One record as the caller gives it."""

    kind: str
    body: bytes
    unique: bytes | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """Rows that become durable together, and what came of it.

    Without rows it only asks for an attempt to make the reserve again.

    Attributes:
        needs: Tickets that were queued before; if one of them failed, so does this.
    """

    rows: tuple[Row, ...]
    done: Callable[[], None]
    needs: tuple[Ticket, ...] = ()
    seqs: list[int] = field(default_factory=list)
    error: CocoonError | None = None


class Room(Value):
    """How much disk the journal may take.

    Attributes:
        reserve_bytes: Size of the reserve file.
        limit_bytes: Bound of the main file, 0 for none; its last quarter, at
            most ``reserve_bytes``, is kept for open obligations.
    """

    reserve_bytes: int = JOURNAL_RESERVE_BYTES
    limit_bytes: int = 0


class Full(Exception):
    """The disk, the quota or the page limit is used up; the transaction was rolled back."""


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """What goes into one statement: each statement gives the interpreter's lock away, and waits for it again."""
    return (items[first : first + _STATEMENT_ROWS] for first in range(0, len(items), _STATEMENT_ROWS))


class Writer:
    """Owner of the write connection; everything here but ``put`` and ``stop`` runs in its thread."""

    def __init__(
        self,
        path: Path,
        clock_ns: Callable[[], int],
        deliver: Callable[[Sequence[Ticket]], None],
        opened: Callable[[CocoonError | None], None],
        room: Room,
        on_commit: Callable[[int], None] | None,
        ended: Callable[[], None],
    ) -> None:
        self.low = False
        self.failure: Corrupt | None = None
        self.commits = 0
        self._path = path
        self._reserve = path.with_name(path.name + ".reserve")
        self._clock_ns = clock_ns
        self._deliver = deliver
        self._opened = opened
        self._room = room
        self._on_commit = on_commit
        self._ended = ended
        self._batch: list[Ticket] = []
        self._queue: deque[Ticket] = deque()
        self._signal = threading.Condition()
        self._stopping = False
        self._seq = 0
        self._hash = b""
        self._thread = threading.Thread(target=self._run, name="cocoon-journal", daemon=True)

    def start(self) -> None:
        """Begin; ``opened`` is called once, with None or the reason of failure."""
        self._thread.start()

    def put(self, ticket: Ticket) -> None:
        """Queue a ticket, from any thread; the caller bounds how many wait."""
        with self._signal:
            if not self._stopping:
                self._queue.append(ticket)
                self._signal.notify()
                return
        ticket.error = self.failure or Corrupt("the journal is closed")
        self._deliver([ticket])

    def stop(self) -> None:
        """Commit what is queued, then end."""
        with self._signal:
            self._stopping = True
            self._signal.notify()

    def join(self) -> None:
        """Wait until the thread has ended; call it after ``deliver`` said so."""
        self._thread.join()

    # --- the thread --------------------------------------------------------

    def _run(self) -> None:
        said: CocoonError | None = Corrupt(_DEFECT)
        try:
            connection, said = self._open(), None
        except CocoonError as error:
            said = error
        finally:
            self._opened(said)
        if said is None:
            try:
                self._loop(connection)
            finally:
                self._ended()

    def _loop(self, connection: sqlite3.Connection) -> None:
        lawful = False
        try:
            while (batch := self._take()) is not None:
                self._serve(connection, batch)
            lawful = True
        finally:
            if not lawful and self.failure is None:
                self.failure = Corrupt(_DEFECT)
            connection.close()
            self._refuse_rest()

    def _take(self) -> list[Ticket] | None:
        """Everything that waits, up to a batch; an empty list when it is time to look at the reserve."""
        with self._signal:
            while not self._queue and not self._stopping:
                patience_s = JOURNAL_REFILL_NS / SECOND_NS if self.low else None
                if not self._signal.wait(patience_s):
                    return []
            if not self._queue:
                return None
            batch = [self._queue.popleft()]
            rows = len(batch[0].rows)
            while self._queue and rows + len(self._queue[0].rows) <= JOURNAL_BATCH:
                batch.append(self._queue.popleft())
                rows += len(batch[-1].rows)
            self._batch = batch
            return batch

    def _serve(self, connection: sqlite3.Connection, batch: list[Ticket]) -> None:
        if any(ticket.rows for ticket in batch):
            self._commit(connection, batch)
        elif self.low and self.failure is None:
            self._refill(connection)
        self._deliver(batch)
        self._batch = []

    def _refuse_rest(self) -> None:
        with self._signal:
            rest = [*self._batch, *self._queue]
            self._queue.clear()
            self._stopping = True
        for ticket in rest:
            ticket.error = self.failure or Corrupt("the journal is closed")
        self._deliver(rest)

    def _commit(self, connection: sqlite3.Connection, batch: list[Ticket]) -> None:
        try:
            if self.failure is None:
                self._commit_or_make_room(connection, batch)
        except Full:
            for ticket in batch:
                ticket.error = StorageFull(f"the disk has no room for the journal {self._path}")
        except sqlite3.Error as error:
            self.failure = Corrupt(f"the journal cannot be written: {error}")
        if self.failure is not None:
            for ticket in batch:
                ticket.seqs, ticket.error = [], self.failure

    def _commit_or_make_room(self, connection: sqlite3.Connection, batch: list[Ticket]) -> None:
        try:
            self._transaction(connection, batch)
        except Full:
            if not self._give_back(connection):
                raise
            self._transaction(connection, batch)

    def _transaction(self, connection: sqlite3.Connection, batch: list[Ticket]) -> None:
        """Write a batch; on any error nothing of it is there and the chain stands where it stood.

        Raises:
            Full: no room. sqlite3.Error: anything else.
        """
        seq, head = self._seq, self._hash
        try:
            connection.execute("BEGIN IMMEDIATE")
            rows = sum(self._insert(connection, ticket) for ticket in batch)
            if rows:
                connection.execute("UPDATE head SET seq = ?, hash = ? WHERE id = 1", (self._seq, self._hash))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._seq, self._hash = seq, head
            self._roll_back(connection)
            if self._is_full(error):
                raise Full from error
            raise
        self.commits += 1
        if self._on_commit is not None:
            self._on_commit(rows)

    def _insert(self, connection: sqlite3.Connection, ticket: Ticket) -> int:
        ticket.seqs, ticket.error = [], None
        if (failed := next((one.error for one in ticket.needs if one.error is not None), None)) is not None:
            ticket.error = failed
            return 0
        taken = self._taken(connection, ticket.rows)
        if taken is not None:
            ticket.error = Duplicate(f"journal record {taken} has this unique key")
            return 0
        at_ns = self._clock_ns()
        for rows in _chunks(ticket.rows):
            values: list[object] = []
            for row in rows:
                self._hash = link(self._hash, self._seq + 1, row.kind, row.unique, row.body)
                self._seq += 1
                values += (self._seq, row.kind, row.unique, row.body, self._hash, at_ns)
                ticket.seqs.append(self._seq)
            places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
            connection.execute(f"INSERT INTO entries VALUES {places}", values)
        return len(ticket.rows)

    @staticmethod
    def _taken(connection: sqlite3.Connection, rows: Sequence[Row]) -> int | None:
        """Sequence number of a record that already has one of the rows' unique keys."""
        for some in _chunks([row.unique for row in rows if row.unique is not None]):
            places = ", ".join("?" * len(some))
            asked = f"SELECT seq FROM entries WHERE unique_key IN ({places}) LIMIT 1"
            if (found := connection.execute(asked, some).fetchone()) is not None:
                return int(found[0])
        return None

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:  # SQLite rolls some failures back by itself
            connection.execute("ROLLBACK")

    def _is_full(self, error: sqlite3.Error) -> bool:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            return True
        # A quota, or a shared-memory file that cannot grow, shows as an IO error: ask the disk itself.
        doubtful = code & _PRIMARY in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        return doubtful and code not in _NEVER_AGAIN and reserve.disk_is_full(self._path.parent)

    # --- room --------------------------------------------------------------

    def _give_back(self, connection: sqlite3.Connection) -> bool:
        """Free the reserve and lift the soft page limit; False if both were used already."""
        self.low = True
        freed = reserve.release(self._reserve)
        return self._limit_pages(connection, soft=False) or freed

    def _refill(self, connection: sqlite3.Connection) -> None:
        """Make the reserve again if the disk allows it; then the journal is no longer low."""
        if not self._within_soft_limit(connection):
            return
        if reserve.hold(self._reserve, self._room.reserve_bytes):
            self._limit_pages(connection, soft=True)
            self.low = False

    def _within_soft_limit(self, connection: sqlite3.Connection) -> bool:
        soft = self._pages(connection, soft=True)
        return not soft or int(connection.execute("PRAGMA page_count").fetchone()[0]) < soft

    def _limit_pages(self, connection: sqlite3.Connection, *, soft: bool) -> bool:
        """Set the page limit; True if that made it larger."""
        pages = self._pages(connection, soft=soft)
        if not pages:
            return False
        before = connection.execute("PRAGMA max_page_count").fetchone()[0]
        after = connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]
        return bool(after > before)

    def _pages(self, connection: sqlite3.Connection, *, soft: bool) -> int:
        """Pages that the main file may have; 0 for any number."""
        if not self._room.limit_bytes:
            return 0
        limit = max(self._room.limit_bytes, _SMALLEST_LIMIT_BYTES)
        if soft:
            limit -= min(self._room.reserve_bytes, limit // 4)
        return int(limit // connection.execute("PRAGMA page_size").fetchone()[0])

    # --- opening -----------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """Open or make the file, bring its schema up, check its head, hold the reserve.

        Raises:
            SchemaNewer, Corrupt, StorageFull, Unavailable: why it cannot be used.
        """
        try:
            return self._connect_or_make_room()
        except OSError as error:
            raise unavailable(f"cannot open the journal {self._path}", error) from error

    def _connect_or_make_room(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except Full:
            if not reserve.release(self._reserve):
                raise StorageFull(f"the disk has no room for the journal {self._path}") from None
        self.low = True
        try:
            return self._connect()
        except Full:
            raise StorageFull(f"the disk has no room for the journal {self._path}") from None

    def _connect(self) -> sqlite3.Connection:
        os.close(touch_private(self._path))  # SQLite itself would make it readable by others
        sync_dir(self._path.parent)
        if 0 < self._path.stat().st_size < _SMALLEST_FILE_BYTES:
            raise Corrupt(f"the journal {self._path} was cut off")  # SQLite would begin it anew
        connection = sqlite3.connect(self._path, timeout=JOURNAL_LOCK_NS / SECOND_NS, isolation_level=None)
        try:
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise self._refusal(error) from error
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Unavailable(f"the file system of {self._path} cannot hold a write-ahead log (mode {mode})")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        connection.execute("PRAGMA trusted_schema = OFF")
        schema.bring_up(connection, self._path)
        self._seq, self._hash = Reader(connection).check_head()
        self._limit_pages(connection, soft=True)
        held = not self.low and reserve.hold(self._reserve, self._room.reserve_bytes)
        self.low = not held or not self._within_soft_limit(connection)

    def _refusal(self, error: sqlite3.Error) -> Exception:
        if self._is_full(error):
            return Full()
        if getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
            return Unavailable(f"another program holds {self._path} locked")
        return Corrupt(f"the journal {self._path} cannot be opened: {error}")
