"""A power cut: a peer dies, and its journal is what it was before the newest transactions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cocoon.store.service import JOURNAL_FILE, open_reader


def cut(home: Path, kind: str, rows: int) -> int:
    """Take the newest ``rows`` records of ``kind`` out of the journal of a dead peer, and whatever came after them.

    Returns:
        How many records are gone.
    """
    path = home / JOURNAL_FILE
    with open_reader(path) as reader:
        last = [entry.seq for entry in reader.entries(kind)][-rows]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        gone = int(connection.execute("DELETE FROM entries WHERE seq >= ?", (last,)).rowcount)
        (kept,) = connection.execute("SELECT hash FROM entries WHERE seq = ?", (last - 1,)).fetchone()
        connection.execute("UPDATE head SET seq = ?, hash = ? WHERE id = 1", (last - 1, kept))
    with open_reader(path) as reader:
        reader.verify()
    return gone
