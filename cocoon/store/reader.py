"""Reading a journal: every row that is handed out was checked against the chain.

A reader never blocks the writer (WAL) and may be used while a peer runs.

Purity: shell (SQLite). Spec: docs/spec/store.md, rules STO-4 and STO-5.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cocoon.core.errors import Corrupt, NotFound
from cocoon.store import schema
from cocoon.store.chain import GENESIS, Entry, check, check_all

#: Rows per query: an iterator that is left lying holds no snapshot of the WAL.
_PAGE_ROWS = 64
_COLUMNS = "e.seq, e.kind, e.unique_key, e.body, e.hash, e.at_ns"
_WITH_PREVIOUS = f"SELECT {_COLUMNS}, p.hash FROM entries e LEFT JOIN entries p ON p.seq = e.seq - 1"


class Reader:
    """Checked, read-only view of a journal file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def entries(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Records with ``seq > after`` in order, all or of one kind.

        Raises:
            Corrupt: a record does not fit its hash or its predecessor; names the seq.
        """
        where = "e.seq > ? AND e.kind = ?" if kind is not None else "e.seq > ?"
        query = f"{_WITH_PREVIOUS} WHERE {where} ORDER BY e.seq LIMIT {_PAGE_ROWS}"
        last = after
        while True:
            rows = self._rows(query, (last, kind) if kind is not None else (last,), last)
            for row in rows:
                entry = _entry(row)
                if kind is None and entry.seq != last + 1:
                    raise Corrupt(f"journal record {last + 1} is missing; the next one is {entry.seq}")
                check(_previous(row, entry.seq), entry)
                last = entry.seq
                yield entry
            if len(rows) < _PAGE_ROWS:
                return

    def find(self, unique: bytes) -> Entry | None:
        """The record with this unique key, or None.

        Raises:
            Corrupt: the record does not fit its hash.
        """
        rows = self._rows(f"{_WITH_PREVIOUS} WHERE e.unique_key = ?", (unique,), 0)
        return self._checked(rows[0]) if rows else None

    def under(self, prefix: bytes) -> Iterator[Entry]:
        """Records whose unique key begins with ``prefix``, by ascending key, however long the journal is.

        Raises:
            Corrupt: a record does not fit its hash.
        """
        last, end = prefix, _after(prefix)
        where = "e.unique_key >= ? AND e.unique_key < ?"
        while True:
            query = f"{_WITH_PREVIOUS} WHERE {where} ORDER BY e.unique_key LIMIT {_PAGE_ROWS}"
            rows = self._rows(query, (last, end), 0)
            for row in rows:
                yield self._checked(row)
            if len(rows) < _PAGE_ROWS:
                return
            last = _entry(rows[-1]).unique or b""
            where = "e.unique_key > ? AND e.unique_key < ?"

    def last_under(self, prefix: bytes) -> Entry | None:
        """The record with the highest unique key that begins with ``prefix``; None if there is none.

        Raises:
            Corrupt: the record does not fit its hash.
        """
        where = "e.unique_key >= ? AND e.unique_key < ? ORDER BY e.unique_key DESC LIMIT 1"
        rows = self._rows(f"{_WITH_PREVIOUS} WHERE {where}", (prefix, _after(prefix)), 0)
        return self._checked(rows[0]) if rows else None

    def head(self) -> tuple[int, bytes]:
        """Number of records and hash of the last, as the journal itself says it."""
        rows = self._rows("SELECT seq, hash FROM head WHERE id = 1", (), 0)
        if not rows or not isinstance(rows[0][0], int) or not isinstance(rows[0][1], bytes):
            raise Corrupt("the journal has no head")
        return rows[0][0], rows[0][1]

    def verify(self) -> int:
        """Walk everything from the first record; the number of records.

        Raises:
            Corrupt: names the first bad or missing seq, or what SQLite found wrong.
        """
        self._rows("BEGIN", (), 0)  # one snapshot: the peer may be writing
        try:
            count, last_hash = check_all(self._walk())
            seq, head_hash = self.head()
            if (seq, head_hash) != (count, last_hash):
                raise Corrupt(f"journal record {min(seq, count) + 1} is lost: {count} of {seq} are there")
            for (line,) in self._rows("PRAGMA integrity_check(1)", (), count):
                if line not in ("ok", b"ok"):
                    raise Corrupt(f"SQLite finds the journal damaged: {str(line)[:200]}")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return count

    def check_head(self) -> tuple[int, bytes]:
        """Compare the head with the last record: the quick check of every start.

        Raises:
            Corrupt: they differ; names the seq.
        """
        seq, head_hash = self.head()
        last = list(self._rows("SELECT max(seq) FROM entries", (), seq))[0][0] or 0
        if last != seq:
            raise Corrupt(f"journal record {min(seq, last) + 1} is lost: {last} of {seq} are there")
        found = [entry.hash for entry in self.entries(after=seq - 1)] if seq else [GENESIS]
        if found != [head_hash]:
            raise Corrupt(f"journal record {seq} is not the one that was written last")
        return seq, head_hash

    def _checked(self, row: Any) -> Entry:
        entry = _entry(row)
        check(_previous(row, entry.seq), entry)
        return entry

    def _walk(self) -> Iterator[Entry]:
        last = 0
        try:
            for row in self._connection.execute(f"SELECT {_COLUMNS} FROM entries e ORDER BY e.seq"):
                entry = _entry(row)
                last = entry.seq
                yield entry
        except sqlite3.Error as error:
            raise Corrupt(f"the journal cannot be read after record {last}: {error}") from error

    def _rows(self, query: str, values: tuple[object, ...], last: int) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise Corrupt(f"the journal cannot be read after record {last}: {error}") from error


@contextmanager
def open_reader(path: Path) -> Iterator[Reader]:
    """Read a journal without writing a byte of it, also while a peer runs on it.

    Raises:
        NotFound: there is no such file.
        SchemaNewer, Corrupt: it is no journal that this version can read.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = bytes
    try:
        schema.refuse_newer(schema.found_version(connection), path)
        yield Reader(connection)
    except sqlite3.Error as error:
        raise Corrupt(f"{path.name} cannot be read: {error}") from error
    finally:
        connection.close()


def _entry(row: Any) -> Entry:
    seq, kind, unique, body, hashed, at_ns = row[:6]
    try:
        name = kind.decode("utf-8") if isinstance(kind, bytes) else kind
    except UnicodeDecodeError:
        name = None
    match name, body, unique, hashed, at_ns:
        case str(), bytes(), bytes() | None, bytes(), int():
            return Entry(seq, name, body, unique, hashed, at_ns)
    raise Corrupt(f"journal record {seq} holds values of the wrong type; it was edited")


def _previous(row: Any, seq: int) -> bytes:
    if seq == 1:
        return GENESIS
    if not isinstance(row[6], bytes):
        raise Corrupt(f"journal record {seq - 1} is missing; the next one is {seq}")
    return row[6]


def _after(prefix: bytes) -> bytes:
    """The lowest key above all that begin with ``prefix``, which is not all 0xff."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])
