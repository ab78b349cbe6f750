"""The journal's file: rows are written where they arise, and are in the system's hands when the call returns.

That outlives the process. A power cut takes what was not flushed yet; the flushing,
which can take long, is done by ``store.flusher`` in a thread of its own, and whoever
needs it waits for that. A batch that meets a full disk is rolled back whole.

Purity: shell (SQLite). Spec: docs/spec/store.md, rules STO-1, STO-2, STO-8 and STO-10.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from cocoon.core.errors import Corrupt, Duplicate, StorageFull, Unavailable
from cocoon.core.limits import JOURNAL_LOCK_NS, JOURNAL_RESERVE_BYTES
from cocoon.core.units import KIB, MIB, SECOND_NS
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
#: The write-ahead log shrinks to this after a burst.
LOG_BYTES = 4 * MIB
#: What a transaction adds to the log beside its bodies: a page of each tree that it touches.
_COMMIT_BYTES = 20 * KIB
#: The smallest page of SQLite: a shorter file that is not empty has lost something.
_SMALLEST_FILE_BYTES = 512
#: Of six values each; SQLite before 3.32 takes 999 values in a statement.
_STATEMENT_ROWS = 128


class Row(Value):
    """One record as the caller gives it."""

    kind: str
    body: bytes
    unique: bytes | None = None


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


def fold(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file, and flush that, as far as no reader needs an old state."""
    # On a full disk, say, the log stays longer, and the next attempt takes all of it.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


class Writer:
    """Owner of the write connection; for one thread, that of the loop, once it is open."""

    def __init__(self, path: Path, clock_ns: Callable[[], int], room: Room) -> None:
        self.low = False
        self.failure: Corrupt | None = None
        #: Transactions so far, and about what they added to the log.
        self.commits = 0
        self.log_bytes = 0
        self.path = path
        self._reserve = path.with_name(path.name + ".reserve")
        self._clock_ns = clock_ns
        self._room = room
        self._seq = 0
        self._hash = b""
        self._connection: sqlite3.Connection

    def open(self) -> None:
        """Open or make the file, bring its schema up, check its head, hold the reserve.

        Raises:
            SchemaNewer, Corrupt, StorageFull, Unavailable: why it cannot be used.
        """
        try:
            self._connection = self._connect_or_make_room()
        except OSError as error:
            raise unavailable(f"cannot open the journal {self.path}", error) from error

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def write(self, batches: Sequence[Sequence[Row]]) -> list[list[int] | Duplicate]:
        """Write batches in one transaction. They outlive the process, and not yet a power cut.

        Returns:
            Of each batch its sequence numbers, or why nothing of it is written: a row's unique key is taken.

        Raises:
            StorageFull: no room, nothing is written; the same call may be tried again.
            Corrupt: the file can no longer be written, now or ever.
        """
        self.check()
        try:
            return self._write_or_make_room(batches)
        except Full:
            raise StorageFull(f"the disk has no room for the journal {self.path}") from None
        except sqlite3.Error as error:
            self.fail(f"the journal cannot be written: {error}")
            raise Corrupt(f"the journal cannot be written: {error}") from error

    def fold(self) -> None:
        """Bring the rest of the log into the file, a few pages, so that the next transaction begins it anew."""
        fold(self._connection)

    def fail(self, text: str) -> Corrupt:
        """From now on nothing is written; the first cause stays."""
        self.failure = self.failure or Corrupt(text)
        return self.failure

    def check(self) -> None:
        """Raise the failure, if there was one."""
        if self.failure is not None:
            # A fresh object: one error may be raised in many tasks, and each adds its own traceback.
            raise Corrupt(self.failure.text)

    def _write_or_make_room(self, batches: Sequence[Sequence[Row]]) -> list[list[int] | Duplicate]:
        try:
            return self._transaction(batches)
        except Full:
            if not self._give_back():
                raise
            return self._transaction(batches)

    def _transaction(self, batches: Sequence[Sequence[Row]], *, may_clash: bool = False) -> list[list[int] | Duplicate]:
        """On any error nothing of it is there, and the chain stands where it stood.

        Args:
            may_clash: A unique key among them may be taken. That is seldom, and found out by trying without.

        Raises:
            Full: no room. sqlite3.Error: anything else.
        """
        connection, seq, head = self._connection, self._seq, self._hash
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._insert(connection, rows, may_clash) for rows in batches]
            if self._seq == seq:
                self._roll_back(connection)
                return outcomes
            connection.execute("UPDATE head SET seq = ?, hash = ? WHERE id = 1", (self._seq, self._hash))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._seq, self._hash = seq, head
            self._roll_back(connection)
            if isinstance(error, sqlite3.IntegrityError) and not may_clash:
                return self._transaction(batches, may_clash=True)
            if self._is_full(error):
                raise Full from error
            raise
        self.commits += 1
        self.log_bytes += _COMMIT_BYTES + sum(len(row.body) for rows in batches for row in rows)
        return outcomes

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[Row], may_clash: bool) -> list[int] | Duplicate:
        if may_clash and (taken := self._taken(connection, rows)) is not None:
            return Duplicate(f"journal record {taken} has this unique key")
        at_ns, first = self._clock_ns(), self._seq + 1
        for some in _chunks(rows):
            values: list[object] = []
            for row in some:
                self._hash = link(self._hash, self._seq + 1, row.kind, row.unique, row.body)
                self._seq += 1
                values += (self._seq, row.kind, row.unique, row.body, self._hash, at_ns)
            places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(some))
            connection.execute(f"INSERT INTO entries VALUES {places}", values)
        return list(range(first, self._seq + 1))

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
        return doubtful and code not in _NEVER_AGAIN and reserve.disk_is_full(self.path.parent)

    # --- room --------------------------------------------------------------

    def _give_back(self) -> bool:
        """Free the reserve and lift the soft page limit; False if both were used already."""
        self.low = True
        freed = reserve.release(self._reserve)
        return self._limit_pages(self._connection, soft=False) or freed

    def has_room(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is small enough that the reserve may be made again."""
        soft = self._pages(connection, soft=True)
        return not soft or int(connection.execute("PRAGMA page_count").fetchone()[0]) < soft

    def hold_reserve(self) -> bool:
        """Make the reserve again if the disk allows it. Slow, and touches no table: for another thread."""
        return reserve.hold(self._reserve, self._room.reserve_bytes)

    def restored(self) -> None:
        """The reserve is there again: no longer low."""
        self._limit_pages(self._connection, soft=True)
        self.low = False

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

    def _connect_or_make_room(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except Full:
            if not reserve.release(self._reserve):
                raise StorageFull(f"the disk has no room for the journal {self.path}") from None
        self.low = True
        try:
            return self._connect()
        except Full:
            raise StorageFull(f"the disk has no room for the journal {self.path}") from None

    def _connect(self) -> sqlite3.Connection:
        os.close(touch_private(self.path))  # SQLite itself would make it readable by others
        sync_dir(self.path.parent)
        if 0 < self.path.stat().st_size < _SMALLEST_FILE_BYTES:
            raise Corrupt(f"the journal {self.path} was cut off")  # SQLite would begin it anew
        # Opened where it may take long, used in the loop.
        connection = sqlite3.connect(
            self.path, timeout=JOURNAL_LOCK_NS / SECOND_NS, isolation_level=None, check_same_thread=False
        )
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
            raise Unavailable(f"the file system of {self.path} cannot hold a write-ahead log (mode {mode})")
        # A commit does not flush; the flusher does, and folds the log into the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        connection.execute("PRAGMA trusted_schema = OFF")
        schema.bring_up(connection, self.path)
        self._seq, self._hash = Reader(connection).check_head()
        self._limit_pages(connection, soft=True)
        held = not self.low and reserve.hold(self._reserve, self._room.reserve_bytes)
        self.low = not held or not self.has_room(connection)

    def _refusal(self, error: sqlite3.Error) -> Exception:
        if self._is_full(error):
            return Full()
        if getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
            return Unavailable(f"another program holds {self.path} locked")
        return Corrupt(f"the journal {self.path} cannot be opened: {error}")
