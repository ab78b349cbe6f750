"""The journal's tables, their version, and the way from an old version to the newest.

Purity: shell (SQLite). Spec: docs/spec/store.md, rules STO-6 and STO-7.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from cocoon.core.errors import Corrupt, SchemaNewer
from cocoon.identity.files import touch_private

#: Statements of one version; step n leads from version n to n + 1.
Step = tuple[str, ...]

#: "cocn": tells file(1), and us, that a database is a journal.
APPLICATION_ID = 0x636F636E

_CREATE: Step = (
    """CREATE TABLE entries (
        seq INTEGER PRIMARY KEY CHECK (seq > 0),
        kind TEXT NOT NULL CHECK (typeof(kind) = 'text'),
        unique_key BLOB UNIQUE CHECK (unique_key IS NULL OR typeof(unique_key) = 'blob'),
        body BLOB NOT NULL CHECK (typeof(body) = 'blob'),
        hash BLOB NOT NULL CHECK (typeof(hash) = 'blob' AND length(hash) = 32),
        at_ns INTEGER NOT NULL
    )""",
    "CREATE INDEX entries_by_kind ON entries (kind, seq)",
    # Without the head a journal that lost its last rows would still be a valid chain.
    """CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL
    )""",
    "INSERT INTO head VALUES (1, 0, zeroblob(32))",
)

_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER)"

#: Every step since the first version; append only.
STEPS: tuple[Step, ...] = (_CREATE,)


def bring_up(connection: sqlite3.Connection, path: Path, steps: tuple[Step, ...] = STEPS) -> None:
    """Make the tables of a new file, or lead an old one to the newest version.

    A file with rows is copied to ``<name>.v<version>`` before it is changed,
    and all steps commit together.

    Args:
        connection: In autocommit mode, on ``path``.

    Raises:
        SchemaNewer: the file's version is above ours.
        Corrupt: the file is another program's database.
        sqlite3.Error: for the caller to translate.
    """
    version = found_version(connection)
    refuse_newer(version, path, steps)
    if version == len(steps):
        return
    if version:
        _copy(connection, path.with_name(f"{path.name}.v{version}"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_VERSION_TABLE)
        for statement in (statement for step in steps[version:] for statement in step):
            connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO schema VALUES (1, ?)", (len(steps),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def refuse_newer(version: int, path: Path, steps: tuple[Step, ...] = STEPS) -> None:
    """Raise ``SchemaNewer`` for a version that only a later Cocoon can read."""
    if version > len(steps):
        raise SchemaNewer(f"{path.name} has schema version {version}; this Cocoon knows {len(steps)}")


def found_version(connection: sqlite3.Connection) -> int:
    """Schema version of an open file; 0 if it is empty.

    Raises:
        Corrupt: the file holds tables, but not ours.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        return 0
    if application != APPLICATION_ID:
        raise Corrupt(f"the journal file is another program's database (application id {application})")
    row = connection.execute("SELECT version FROM schema WHERE id = 1").fetchone()
    if row is None or not isinstance(row[0], int) or row[0] < 1:
        raise Corrupt("the journal does not say its schema version")
    return row[0]


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """Copy a whole database as it was; a half copy of an earlier attempt is written over."""
    target.unlink(missing_ok=True)
    os.close(touch_private(target))
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        copy.execute("PRAGMA synchronous = FULL")
        connection.backup(copy)
    finally:
        copy.close()
