"""The chain on disk: one SQLite file, one transaction per block.

A block is committed whole, with the accounts it changed and the messages it
took and left, or not at all. A message from outside is on disk before its
sender hears that it was taken.

Purity: shell (SQLite). Spec: docs/spec/devnet.md, rules DEV-21 to DEV-25.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cocoon.core.errors import Corrupt, SchemaNewer, StorageFull, Unavailable
from cocoon.core.limits import DEVNET_EMPTY_BLOCKS
from cocoon.core.units import MIB
from cocoon.core.values import Value
from cocoon.devnet.blocks import BlockId, Header
from cocoon.devnet.formats import Holder
from cocoon.identity.files import sync_dir, touch_private

CHAIN_FILE = "chain.db"
SCHEMA = 1
#: "cocd": tells file(1), and us, that a database is a devnet.
APPLICATION_ID = 0x636F6364
#: Columns as SQLite gives them: integers and bytes by the tables' types.
_Row = tuple[Any, ...]

_PRIMARY = 0xFF
_LOCK_S = 10.0
#: The write-ahead log shrinks to this after a burst: the size at which SQLite checkpoints by itself.
_LOG_BYTES = 4 * MIB

_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE blocks (
        workchain INTEGER NOT NULL, seqno INTEGER NOT NULL, root_hash BLOB NOT NULL, file_hash BLOB NOT NULL,
        state_hash BLOB NOT NULL, start_lt INTEGER NOT NULL, end_lt INTEGER NOT NULL, at_s INTEGER NOT NULL,
        data BLOB NOT NULL, PRIMARY KEY (workchain, seqno)
    ) WITHOUT ROWID""",
    """CREATE TABLE transactions (
        workchain INTEGER NOT NULL, account BLOB NOT NULL, lt INTEGER NOT NULL, hash BLOB NOT NULL,
        seqno INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (workchain, account, lt)
    ) WITHOUT ROWID""",
    "CREATE INDEX transactions_by_block ON transactions (workchain, seqno, account, lt)",
    """CREATE TABLE accounts (
        workchain INTEGER NOT NULL, account BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (workchain, account)
    ) WITHOUT ROWID""",
    "CREATE INDEX blocks_by_lt ON blocks (workchain, end_lt)",
    "CREATE INDEX blocks_by_time ON blocks (workchain, at_s)",
    # Numbers are never used again, so that a message taken twice would show.
    """CREATE TABLE messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT, hash BLOB NOT NULL UNIQUE, seqno INTEGER NOT NULL, data BLOB NOT NULL
    )""",
)


class StoredBlock(Value):
    """A block as it lies on disk."""

    header: Header
    data: bytes


class StoredTransaction(Value):
    """A transaction as it lies on disk."""

    holder: Holder
    lt: int
    hash: bytes
    seqno: int
    data: bytes


class StoredMessage(Value):
    """A message that waits: its number, and the block that left it (0: it came from outside)."""

    number: int
    seqno: int
    data: bytes


class Commit(Value):
    """Everything that one block changes.

    Attributes:
        facts: Replaced values.
        accounts: New data of each changed account; None removes it.
        taken: Numbers of the messages that ran.
        left: Hash and data of each message that waits for the next block.
    """

    blocks: Sequence[StoredBlock]
    facts: Sequence[tuple[str, bytes]]
    transactions: Sequence[StoredTransaction]
    accounts: Sequence[tuple[Holder, bytes | None]]
    taken: Sequence[int]
    left: Sequence[tuple[bytes, bytes]]


class Store:
    """An open chain file: one thread reads, one at a time writes; a reader sees whole blocks only."""

    def __init__(self, reader: sqlite3.Connection, writer: sqlite3.Connection, path: Path) -> None:
        self._reader = reader
        self._writer = writer
        self._path = path

    # --- reading -----------------------------------------------------------

    def fact(self, name: str) -> bytes | None:
        """A value that is not part of a block."""
        row = self._one("SELECT value FROM facts WHERE name = ?", (name,))
        return None if row is None else row[0]

    def needed(self, name: str) -> bytes:
        """A value that every chain has.

        Raises:
            Corrupt: it is not there.
        """
        value = self.fact(name)
        if value is None:
            raise Corrupt(f"the chain's file lacks {name}")
        return value

    def number(self, name: str, absent: int | None = None) -> int:
        """A value that is a decimal number; ``absent`` if it is not there and need not be.

        Raises:
            Corrupt: it is no number, or not there and must be.
        """
        if absent is not None and self.fact(name) is None:
            return absent
        try:
            return int(self.needed(name))
        except (TypeError, ValueError) as error:
            raise Corrupt(f"{name} in the chain's file is no number") from error

    def block(self, workchain: int, seqno: int) -> StoredBlock | None:
        """The block with this number."""
        return _block(self._one(f"{_SELECT_BLOCK} WHERE workchain = ? AND seqno = ?", (workchain, seqno)))

    def header(self, workchain: int, seqno: int) -> Header | None:
        """The header of the block with this number, without its data."""
        found = _block(self._one(f"{_SELECT_HEADER} WHERE workchain = ? AND seqno = ?", (workchain, seqno)))
        return None if found is None else found.header

    def block_with_lt(self, workchain: int, lt: int) -> StoredBlock | None:
        """The first block that ends at or after ``lt``."""
        return _block(self._one(
            f"{_SELECT_BLOCK} WHERE workchain = ? AND end_lt >= ? ORDER BY end_lt LIMIT 1", (workchain, lt)
        ))

    def block_at(self, workchain: int, at_s: int) -> StoredBlock | None:
        """The first block made at ``at_s`` or later."""
        return _block(self._one(
            f"{_SELECT_BLOCK} WHERE workchain = ? AND at_s >= ? ORDER BY at_s, seqno LIMIT 1", (workchain, at_s)
        ))

    def newest(self, workchain: int) -> StoredBlock | None:
        """The last block."""
        return _block(self._one(f"{_SELECT_BLOCK} WHERE workchain = ? ORDER BY seqno DESC LIMIT 1", (workchain,)))

    def accounts(self, workchain: int) -> Iterator[tuple[bytes, bytes]]:
        """Every account of a workchain with its data, ascending."""
        with _translated(self._path):
            yield from self._reader.execute(
                "SELECT account, data FROM accounts WHERE workchain = ? ORDER BY account", (workchain,)
            )

    def messages(self) -> list[StoredMessage]:
        """What waits, in the order in which it came."""
        rows = self._all("SELECT number, seqno, data FROM messages ORDER BY number", ())
        return [StoredMessage(*row) for row in rows]

    def transaction(self, holder: Holder, lt: int) -> StoredTransaction | None:
        """One transaction of an account."""
        row = self._one(f"{_SELECT_TRANSACTION} WHERE workchain = ? AND account = ? AND lt = ?", (*holder, lt))
        return None if row is None else _transaction(row)

    def history(self, holder: Holder, lt: int, most: int) -> list[StoredTransaction]:
        """Transactions of an account from ``lt`` backwards, the newest first."""
        rows = self._all(
            f"{_SELECT_TRANSACTION} WHERE workchain = ? AND account = ? AND lt <= ? ORDER BY lt DESC LIMIT ?",
            (*holder, lt, most),
        )
        return [_transaction(row) for row in rows]

    def of_block(self, workchain: int, seqno: int) -> list[StoredTransaction]:
        """Transactions of a block by account, then by logical time."""
        rows = self._all(
            f"{_SELECT_TRANSACTION} WHERE workchain = ? AND seqno = ? ORDER BY account, lt", (workchain, seqno)
        )
        return [_transaction(row) for row in rows]

    # --- writing -----------------------------------------------------------

    def begin_chain(self, facts: Iterable[tuple[str, bytes]], accounts: Iterable[tuple[Holder, bytes]]) -> None:
        """Write a zerostate into a new file."""
        with self._transaction():
            self._writer.executemany("INSERT INTO facts VALUES (?, ?)", list(facts))
            self._put_accounts(list(accounts))

    def remember(self, name: str, value: bytes) -> None:
        """Replace one value that is not part of a block."""
        with self._transaction():
            self._writer.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def take(self, messages: Sequence[tuple[bytes, bytes]]) -> list[int | None]:
        """Keep messages from outside, all in one flush.

        Args:
            messages: Hash and data of each.

        Returns:
            The number of each; None for one that waits already.
        """
        numbers: list[int | None] = []
        with self._transaction():
            for digest, data in messages:
                cursor = self._writer.execute(
                    "INSERT OR IGNORE INTO messages (hash, seqno, data) VALUES (?, 0, ?)", (digest, data)
                )
                numbers.append(cursor.lastrowid if cursor.rowcount else None)
        return numbers

    def commit(self, commit: Commit, seqno: int) -> list[int]:
        """Make a block durable; returns the numbers of the messages it left."""
        with self._transaction():
            self._writer.executemany(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [_block_row(block) for block in commit.blocks]
            )
            self._writer.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", commit.facts)
            self._writer.executemany(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
                [(*one.holder, one.lt, one.hash, one.seqno, one.data) for one in commit.transactions],
            )
            self._put_accounts([(holder, data) for holder, data in commit.accounts if data is not None])
            self._writer.executemany(
                "DELETE FROM accounts WHERE workchain = ? AND account = ?",
                [holder for holder, data in commit.accounts if data is None],
            )
            self._writer.executemany("DELETE FROM messages WHERE number = ?", [(one,) for one in commit.taken])
            self._writer.execute(_FORGET, (seqno - DEVNET_EMPTY_BLOCKS,))
            return [self._leave(digest, seqno, data) for digest, data in commit.left]

    def _put_accounts(self, accounts: Sequence[tuple[Holder, bytes]]) -> None:
        self._writer.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", [(*holder, data) for holder, data in accounts]
        )

    def _leave(self, digest: bytes, seqno: int, data: bytes) -> int:
        cursor = self._writer.execute(
            "INSERT INTO messages (hash, seqno, data) VALUES (?, ?, ?)", (digest, seqno, data)
        )
        return int(cursor.lastrowid or 0)

    # --- SQLite ------------------------------------------------------------

    def _one(self, query: str, values: Sequence[object]) -> _Row | None:
        with _translated(self._path):
            row: _Row | None = self._reader.execute(query, values).fetchone()
            return row

    def _all(self, query: str, values: Sequence[object]) -> list[_Row]:
        with _translated(self._path):
            rows: list[_Row] = self._reader.execute(query, values).fetchall()
            return rows

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Typed errors instead of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        raise _refusal(error, path) from error


#: Both blocks of one number, if neither executed anything.
_FORGET = """DELETE FROM blocks WHERE workchain IN (-1, 0) AND seqno = ?1 AND NOT EXISTS (
    SELECT 1 FROM transactions WHERE workchain IN (-1, 0) AND transactions.seqno = ?1
)"""
_HEADER = "workchain, seqno, root_hash, file_hash, state_hash, start_lt, end_lt, at_s"
_SELECT_BLOCK = f"SELECT {_HEADER}, data FROM blocks"
_SELECT_HEADER = f"SELECT {_HEADER}, x'' FROM blocks"
_SELECT_TRANSACTION = "SELECT workchain, account, lt, hash, seqno, data FROM transactions"


def _block(row: _Row | None) -> StoredBlock | None:
    if row is None:
        return None
    workchain, seqno, root_hash, file_hash, state_hash, start_lt, end_lt, at_s, data = row
    block = BlockId(workchain, seqno, root_hash, file_hash)
    return StoredBlock(Header(block, state_hash, start_lt, end_lt, at_s), data)


def _block_row(block: StoredBlock) -> _Row:
    header = block.header
    one = header.id
    return (
        one.workchain, one.seqno, one.root_hash, one.file_hash, header.state_hash,
        header.start_lt, header.end_lt, header.at_s, block.data,
    )


def _transaction(row: _Row) -> StoredTransaction:
    workchain, account, lt, digest, seqno, data = row
    return StoredTransaction((workchain, account), lt, digest, seqno, data)


def _refusal(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"the disk has no room for the chain {path}")
    if code & _PRIMARY == sqlite3.SQLITE_BUSY:
        return Unavailable(f"another program holds {path} locked")
    return Corrupt(f"the chain {path} cannot be used: {error}")


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """Open the chain of a private folder, made if missing.

    Raises:
        SchemaNewer: a newer version wrote it.
        Corrupt: it is another program's database, or damaged.
        StorageFull, Unavailable: it cannot be made or opened now.
    """
    path = folder / CHAIN_FILE
    os.close(touch_private(path))  # SQLite itself would make it readable by others
    sync_dir(folder)
    writer = _connect(path)
    try:
        with _translated(path):
            _prepare(writer, path)
            reader = _connect(path)
        try:
            yield Store(reader, writer, path)
        finally:
            reader.close()
    finally:
        writer.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_LOCK_S, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise Unavailable(f"the file system of {path} cannot hold a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    connection.execute("PRAGMA trusted_schema = OFF")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise SchemaNewer(f"{path.name} has schema version {version}; this Cocoon knows {SCHEMA}")
    if version == 0:
        _create(connection, path)
    elif connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise Corrupt(f"{path} is another program's database")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise Corrupt(f"{path} is another program's database")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
