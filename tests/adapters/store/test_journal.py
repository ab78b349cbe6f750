"""The journal on a real file: promises to its callers, replay, and what it refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cocoon.core import limits
from cocoon.core.errors import Corrupt, Duplicate, NotFound, SchemaNewer, UsageError
from cocoon.store import schema
from cocoon.store.service import Journal, Room, Row, open_journal, open_reader

SMALL = Room(reserve_bytes=65_536)


def journal_at(path: Path, **options):
    return open_journal(path, time.time_ns, **{"room": SMALL, **options})


async def write(path: Path, *bodies: bytes) -> None:
    async with journal_at(path) as journal:
        for body in bodies:
            await journal.append("fact", body)


def edit(path: Path, statement: str) -> None:
    """Change the file behind the journal's back, as a person with an editor would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)


class Gate:
    """Holds the journal's thread after its first commit, so that a test decides what queues up."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.open = threading.Event()

    def __call__(self, rows: int) -> None:
        self.rows.append(rows)
        assert self.open.wait(60)


async def test_records_come_back_in_order_with_all_their_parts(tmp_path):
    path = tmp_path / "journal.db"
    async with journal_at(path) as journal:
        assert await journal.append("offer", b"one") == 1
        assert await journal.append("lease", b"", b"key") == 2
        assert await journal.append("offer", b"three") == 3
    async with journal_at(path) as journal:
        found = [(e.seq, e.kind, e.body, e.unique) for e in journal.entries()]
        assert found == [(1, "offer", b"one", None), (2, "lease", b"", b"key"), (3, "offer", b"three", None)]
        assert [e.seq for e in journal.entries("offer")] == [1, 3]
        assert [e.seq for e in journal.entries(after=2)] == [3]
        assert [e.seq for e in journal.entries("offer", after=1)] == [3]
        assert journal.verify() == 3


async def test_replay_of_more_than_one_page_misses_nothing(tmp_path):
    async with journal_at(tmp_path / "journal.db") as journal:
        await journal.append_many([Row("k", bytes([n])) for n in range(200)])
        assert [e.body[0] for e in journal.entries()] == list(range(200))
        assert len(list(journal.entries("k", after=7))) == 193


async def test_a_unique_key_is_taken_once_and_found_again(tmp_path):
    path = tmp_path / "journal.db"
    async with journal_at(path) as journal:
        await journal.append("run", b"first", b"id")
        with pytest.raises(Duplicate, match="record 1"):
            await journal.append("run", b"second", b"id")
    async with journal_at(path) as journal:
        with pytest.raises(Duplicate):
            await journal.append("run", b"third", b"id")
        entry = journal.find(b"id")
        assert entry is not None and entry.body == b"first"
        assert journal.find(b"other") is None
        assert journal.verify() == 1


async def test_a_batch_with_one_taken_key_writes_nothing(tmp_path):
    async with journal_at(tmp_path / "journal.db") as journal:
        await journal.append("run", b"", b"id")
        with pytest.raises(Duplicate):
            await journal.append_many([Row("a", b""), Row("run", b"", b"id"), Row("b", b"")])
        with pytest.raises(UsageError, match="twice"):
            await journal.append_many([Row("a", b"", b"same"), Row("b", b"", b"same")])
        assert await journal.append_many([Row("a", b"1"), Row("b", b"2", b"new")]) == [2, 3]
        assert journal.verify() == 3


async def test_appends_that_wait_together_share_one_transaction(tmp_path):
    """Group commit, counted by transactions."""
    gate = Gate()
    async with journal_at(tmp_path / "journal.db", on_commit=gate) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, "first", b"")
            while not gate.rows:
                await wait_all_tasks_blocked()
            for n in range(100):
                nursery.start_soon(journal.append, "k", bytes([n]))
            await wait_all_tasks_blocked()
            assert journal.queued == 101
            gate.open.set()
        assert gate.rows == [1, 100]
        assert journal.commits == 2
        assert journal.queued == 0
        assert sorted(e.body[0] for e in journal.entries("k")) == list(range(100))


async def test_a_duplicate_inside_a_group_spares_its_neighbours(tmp_path):
    gate = Gate()
    outcomes: dict[str, object] = {}

    async def attempt(journal: Journal, name: str, unique: bytes) -> None:
        try:
            outcomes[name] = await journal.append(name, b"", unique)
        except Duplicate as error:
            outcomes[name] = error.code

    async with journal_at(tmp_path / "journal.db", on_commit=gate) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, journal, "first", b"x")
            while not gate.rows:
                await wait_all_tasks_blocked()
            for name, unique in (("again", b"x"), ("other", b"y")):
                nursery.start_soon(attempt, journal, name, unique)
            await wait_all_tasks_blocked()
            gate.open.set()
        assert outcomes == {"first": 1, "again": "duplicate", "other": 2}
        assert journal.verify() == 2


async def test_rows_that_come_after_others_are_recorded_only_if_those_are(tmp_path):
    async with journal_at(tmp_path / "journal.db") as journal:
        await journal.append("k", b"", b"taken")
        failed = await journal.queue([Row("k", b"", b"taken")])
        good = await journal.queue([Row("k", b"good")])
        assert await journal.append_many([Row("k", b"behind")], [good]) == [3]
        for _ in range(2):                              # in one transaction with it, and in a later one
            with pytest.raises(Duplicate):
                await journal.append_many([Row("k", b"lost")], [good, failed])
        with pytest.raises(Duplicate):
            await failed.durable()
        with pytest.raises(Duplicate):
            await journal.append_many([], [good, failed])
        behind = await journal.queue([Row("k", b"last")], [good])
        assert await behind.durable() == [4] and behind.ticket.needs == ()
        assert [entry.body for entry in journal.entries("k")] == [b"", b"good", b"behind", b"last"]


async def test_a_full_queue_makes_callers_wait_instead_of_growing(tmp_path):
    gate = Gate()
    batch = [Row("k", b"")] * limits.JOURNAL_BATCH
    async with journal_at(tmp_path / "journal.db", on_commit=gate) as journal:
        async with trio.open_nursery() as nursery:
            for _ in range(limits.JOURNAL_QUEUE // limits.JOURNAL_BATCH + 3):
                nursery.start_soon(journal.append_many, batch)
            await wait_all_tasks_blocked()
            assert journal.queued == limits.JOURNAL_QUEUE
            gate.open.set()
        assert journal.queued == 0
        assert journal.verify() == limits.JOURNAL_QUEUE + 3 * limits.JOURNAL_BATCH


async def test_a_cancelled_append_leaves_the_journal_usable(tmp_path):
    gate = Gate()
    async with journal_at(tmp_path / "journal.db", on_commit=gate) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, "abandoned", b"")
            while not gate.rows:
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        gate.open.set()
        assert await journal.append("next", b"") == 2
        assert journal.queued == 0


async def test_what_is_queued_at_the_end_is_committed(tmp_path):
    path = tmp_path / "journal.db"
    gate = Gate()
    async with trio.open_nursery() as nursery:
        async with journal_at(path, on_commit=gate) as journal:
            for _ in range(5):
                nursery.start_soon(journal.append, "k", b"")
            await wait_all_tasks_blocked()
            gate.open.set()
    with open_reader(path) as reader:
        assert reader.verify() == 5
    with pytest.raises(UsageError, match="closed"):
        await journal.append("late", b"")


@pytest.mark.parametrize(
    "row",
    [Row("", b""), Row("k" * 65, b""), Row("k", bytes(limits.JOURNAL_ROW_BYTES + 1)), Row("k", b"", b"")],
)
async def test_a_record_beyond_its_bounds_is_refused(tmp_path, row):
    async with journal_at(tmp_path / "journal.db") as journal:
        with pytest.raises(UsageError):
            await journal.append_many([row])


EDITS = {
    "a body": ("UPDATE entries SET body = x'00' WHERE seq = 3", 3),
    "a kind": ("UPDATE entries SET kind = 'lie' WHERE seq = 2", 2),
    "a unique key": ("UPDATE entries SET unique_key = x'aa' WHERE seq = 4", 4),
    "a hash": ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 3", 3),
    "a type": ("UPDATE entries SET body = 'text' WHERE seq = 3", 3),
    "a row lost in the middle": ("DELETE FROM entries WHERE seq = 2", 2),
    "the last row lost": ("DELETE FROM entries WHERE seq = 5", 5),
    "a row invented": ("INSERT INTO entries VALUES (6, 'k', NULL, x'', zeroblob(32), 0)", 6),
    "two rows exchanged": (
        "UPDATE entries SET body = CASE seq WHEN 1 THEN x'32' ELSE x'31' END WHERE seq < 3",
        1,
    ),
    "the head": ("UPDATE head SET seq = 4", 5),
}


@pytest.mark.parametrize("name", EDITS)
async def test_verify_names_the_edited_record(tmp_path, name):
    path = tmp_path / "journal.db"
    statement, seq = EDITS[name]
    await write(path, b"1", b"2", b"3", b"4", b"5")
    edit(path, statement)
    with open_reader(path) as reader, pytest.raises(Corrupt, match=rf"record {seq} "):
        reader.verify()


async def test_replay_stops_at_the_edited_record(tmp_path):
    path = tmp_path / "journal.db"
    await write(path, b"1", b"2", b"3")
    edit(path, EDITS["a kind"][0])
    async with journal_at(path) as journal:
        replay = journal.entries()
        assert next(replay).seq == 1
        with pytest.raises(Corrupt, match="record 2 "):
            next(replay)
        with pytest.raises(Corrupt, match="record 2 "):
            list(journal.entries("lie"))


async def test_a_journal_with_a_torn_end_does_not_open(tmp_path):
    path = tmp_path / "journal.db"
    await write(path, b"1", b"2")
    edit(path, "DELETE FROM entries WHERE seq = 2")
    with pytest.raises(Corrupt, match="record 2 is lost"):
        async with journal_at(path):
            pass


async def test_torn_pages_are_noticed(tmp_path):
    """Whole pages overwritten in the file: SQLite or the chain must say so."""
    path = tmp_path / "journal.db"
    await write(path, *[bytes([n]) * 900 for n in range(60)])
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size // 2 // 4096 * 4096)
        stream.write(os.urandom(8192))
    with open_reader(path) as reader, pytest.raises(Corrupt):
        reader.verify()


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"x"])
async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(Corrupt):
        async with journal_at(path):
            pass
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused(tmp_path):
    path = tmp_path / "journal.db"
    edit(path, "CREATE TABLE theirs (x)")
    with pytest.raises(Corrupt, match="another program"):
        async with journal_at(path):
            pass


async def test_a_newer_schema_is_refused_and_not_touched(tmp_path):
    path = tmp_path / "journal.db"
    await write(path, b"1")
    edit(path, "UPDATE schema SET version = 99")
    before = path.read_bytes()
    with pytest.raises(SchemaNewer, match="version 99"):
        async with journal_at(path):
            pass
    with pytest.raises(SchemaNewer), open_reader(path):
        pass
    assert path.read_bytes() == before


async def test_an_older_schema_is_copied_then_led_forward(tmp_path):
    path = tmp_path / "journal.db"
    await write(path, b"1", b"2")
    steps = (*schema.STEPS, ("ALTER TABLE entries ADD COLUMN note TEXT", "UPDATE entries SET note = 'old'"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.bring_up(connection, path, steps)
        assert schema.found_version(connection) == 2
        assert connection.execute("SELECT DISTINCT note FROM entries").fetchall() == [("old",)]
    copy = tmp_path / "journal.db.v1"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with open_reader(copy) as reader:
        assert reader.verify() == 2
    with pytest.raises(SchemaNewer):
        async with journal_at(path):
            pass


async def test_a_migration_that_fails_half_way_changes_nothing(tmp_path):
    path = tmp_path / "journal.db"
    await write(path, b"1")
    steps = (*schema.STEPS, ("ALTER TABLE entries ADD COLUMN note TEXT", "UPDATE nowhere SET x = 1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.bring_up(connection, path, steps)
    async with journal_at(path) as journal:
        assert journal.verify() == 1


async def test_a_broken_journal_stops_everyone_and_wakes_the_watch(tmp_path):
    """Any failure but a full disk is final: the table is gone under the running journal."""
    path = tmp_path / "journal.db"
    seen: list[str] = []

    async def watch(journal: Journal) -> None:
        with pytest.raises(Corrupt):
            await journal.watch()
        seen.append("watch")

    async with journal_at(path) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(watch, journal)
        await journal.append("k", b"")
        edit(path, "DROP TABLE entries")
        for _ in range(2):
            with pytest.raises(Corrupt):
                await journal.append("k", b"")
    assert seen == ["watch"]


async def test_a_defect_in_the_thread_refuses_the_waiting_and_the_later(tmp_path, capfd):
    """No caller may hang because the thread died."""

    def defect(rows: int) -> None:
        raise ZeroDivisionError

    thread_errors: list[object] = []
    hook, threading.excepthook = threading.excepthook, thread_errors.append
    try:
        async with journal_at(tmp_path / "journal.db", on_commit=defect) as journal:
            for _ in range(2):
                with pytest.raises(Corrupt, match="defect"):
                    await journal.append("k", b"")
            with pytest.raises(Corrupt):
                await journal.watch()
    finally:
        threading.excepthook = hook
    assert len(thread_errors) == 1


async def test_files_of_the_journal_are_for_the_owner_only(tmp_path):
    old = os.umask(0)
    try:
        async with journal_at(tmp_path / "journal.db") as journal:
            await journal.append("k", b"")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert set(modes) == {"journal.db", "journal.db-wal", "journal.db-shm", "journal.db.reserve"}
    assert set(modes.values()) == {0o600}


async def test_a_reader_follows_a_running_journal(tmp_path):
    path = tmp_path / "journal.db"
    async with journal_at(path) as journal:
        await journal.append("k", b"1")
        with open_reader(path) as reader:
            assert reader.verify() == 1
            await journal.append("k", b"2")
            assert reader.verify() == 2
    with pytest.raises(NotFound), open_reader(tmp_path / "none.db"):
        pass


async def test_the_connection_writes_ahead_and_flushes_fully(tmp_path):
    """STO-1: the one mode that was measured to survive power cuts."""
    seen: list[str] = []
    real = sqlite3.connect

    class Traced(sqlite3.Connection):
        def execute(self, sql, *rest):
            seen.append(sql)
            return super().execute(sql, *rest)

    def connect(*args, **options):
        return real(*args, **{"factory": Traced, **options})

    sqlite3.connect = connect
    try:
        async with journal_at(tmp_path / "journal.db") as journal:
            await journal.append("k", b"")
    finally:
        sqlite3.connect = real
    assert seen.index("PRAGMA synchronous = FULL") < seen.index("BEGIN IMMEDIATE")
    assert "PRAGMA journal_mode = WAL" in seen
