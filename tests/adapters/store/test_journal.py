"""The journal on a real file: promises to its callers, replay, and what it refuses."""

from __future__ import annotations

import errno
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
from cocoon.store import flusher, schema
from cocoon.store.service import Journal, Room, Row, open_journal, open_reader
from cocoon.store.writer import LOG_BYTES

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
    """Holds the journal's thread before each flush, so that a test decides what is written meanwhile."""

    def __init__(self, *, shuts: bool = False) -> None:
        self.flushes = 0
        self.open = threading.Event()
        self._shuts = shuts

    def __call__(self) -> None:
        self.flushes += 1
        assert self.open.wait(60)
        if self._shuts:
            self.open.clear()


async def held(gate: Gate, flushes: int = 1) -> None:
    """The thread stands at the gate, for so many flushes at least."""
    while gate.flushes < flushes:
        await wait_all_tasks_blocked()


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


async def test_appends_that_wait_together_share_one_flush(tmp_path):
    """Group commit, counted by flushes."""
    gate = Gate()
    async with journal_at(tmp_path / "journal.db", on_flush=gate) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, "first", b"")
            await held(gate)
            for n in range(100):
                nursery.start_soon(journal.append, "k", bytes([n]))
            await wait_all_tasks_blocked()
            assert (journal.unflushed, journal.queued) == (1, 100)
            gate.open.set()
        assert gate.flushes == 2
        assert (journal.unflushed, journal.queued) == (0, 0)
        assert sorted(e.body[0] for e in journal.entries("k")) == list(range(100))


async def test_what_waits_for_a_slow_disk_does_not_grow_in_memory(tmp_path):
    gate, batch = Gate(), [Row("k", b"")] * (limits.JOURNAL_BATCH // 4)
    async with journal_at(tmp_path / "journal.db", on_flush=gate) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(journal.append, "first", b"")
        await held(gate)
        for _ in range(19):
            nursery.start_soon(journal.append_many, batch)
        await wait_all_tasks_blocked()
        assert journal.queued == 3 * len(batch), "the rest is in the file, and waits for the disk there"
        gate.open.set()


async def test_what_is_written_is_there_at_once_and_flushed_though_nobody_waits(tmp_path):
    gate = Gate()
    async with journal_at(tmp_path / "journal.db", on_flush=gate) as journal:
        assert journal.write([Row("k", b"1", b"one"), Row("k", b"2")]) == [1, 2]
        assert journal.write([]) == []
        assert [entry.body for entry in journal.entries()] == [b"1", b"2"] and journal.find(b"one") is not None
        with pytest.raises(Duplicate):
            journal.write([Row("k", b"3"), Row("k", b"4", b"one")])
        await held(gate)
        assert journal.unflushed == 1
        gate.open.set()
        while journal.unflushed:
            await wait_all_tasks_blocked()
        assert gate.flushes == 1


async def test_a_flush_is_over_when_all_that_was_written_before_is_on_the_disk(tmp_path):
    """What is written while the disk works waits for the next one."""
    gate, order = Gate(shuts=True), list[str]()

    async def flushed(journal: Journal, name: str) -> None:
        await journal.flush()
        order.append(name)

    async with journal_at(tmp_path / "journal.db", on_flush=gate) as journal:
        await journal.flush()
        async with trio.open_nursery() as nursery:
            journal.write([Row("k", b"")])
            nursery.start_soon(flushed, journal, "first")
            await held(gate)
            journal.write([Row("k", b"")])
            nursery.start_soon(flushed, journal, "second")
            await wait_all_tasks_blocked()
            assert not order and journal.unflushed == 2
            gate.open.set()
            await held(gate, 2)
            while not order:
                await wait_all_tasks_blocked()
            assert order == ["first"] and journal.unflushed == 1
            gate.open.set()
        assert order == ["first", "second"] and gate.flushes == 2


async def test_a_duplicate_spares_its_neighbours(tmp_path):
    async with journal_at(tmp_path / "journal.db") as journal:
        outcomes: dict[str, object] = {}

        async def attempt(name: str, unique: bytes) -> None:
            try:
                outcomes[name] = await journal.append(name, b"", unique)
            except Duplicate as error:
                outcomes[name] = error.code

        await attempt("first", b"x")
        async with trio.open_nursery() as nursery:
            for name, unique in (("again", b"x"), ("other", b"y")):
                nursery.start_soon(attempt, name, unique)
        assert outcomes == {"first": 1, "again": "duplicate", "other": 2}
        assert journal.verify() == 2


async def test_a_cancelled_append_leaves_the_journal_usable(tmp_path):
    gate = Gate()
    async with journal_at(tmp_path / "journal.db", on_flush=gate) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, "abandoned", b"")
            await held(gate)
            nursery.cancel_scope.cancel()
        gate.open.set()
        assert await journal.append("next", b"") == 2
        assert journal.unflushed == 0


async def test_what_is_written_at_the_end_is_flushed(tmp_path):
    path = tmp_path / "journal.db"
    gate = Gate()
    gate.open.set()
    async with journal_at(path, on_flush=gate) as journal:
        for _ in range(5):
            journal.write([Row("k", b"")])
    assert gate.flushes and journal.unflushed == 0
    with open_reader(path) as reader:
        assert reader.verify() == 5
    with pytest.raises(UsageError, match="closed"):
        await journal.append("late", b"")


async def test_a_long_life_does_not_make_a_long_log(tmp_path):
    """The thread folds it into the file; SQLite would do so in the loop."""
    path = tmp_path / "journal.db"
    async with journal_at(path) as journal:
        for _ in range(40):
            await journal.append("k", bytes(512 * 1_024))
        assert (tmp_path / "journal.db-wal").stat().st_size < 3 * LOG_BYTES < path.stat().st_size
        assert journal.verify() == 40


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

    def defect() -> None:
        raise ZeroDivisionError

    thread_errors: list[object] = []
    hook, threading.excepthook = threading.excepthook, thread_errors.append
    try:
        async with journal_at(tmp_path / "journal.db", on_flush=defect) as journal:
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


async def test_the_log_is_flushed_before_an_append_returns(tmp_path, monkeypatch):
    """STO-1: writing ahead, and each flush of the log that was measured to survive power cuts."""
    synced: list[tuple[str, int]] = []
    real = flusher._sync

    def sync(descriptor: int) -> None:
        real(descriptor)
        log = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((log, os.stat(log).st_size))

    monkeypatch.setattr(flusher, "_sync", sync)
    path = tmp_path / "journal.db"
    async with journal_at(path) as journal:
        for count in (1, 2, 3):
            await journal.append("k", bytes(10_000))
            assert len(synced) == count
            assert synced[-1] == (f"{path}-wal", os.stat(f"{path}-wal").st_size)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_disk_that_cannot_flush_ends_the_journal(tmp_path, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with journal_at(tmp_path / "journal.db") as journal:
        monkeypatch.setattr(flusher, "_sync", refuse)
        with pytest.raises(Corrupt, match="flushed"):
            await journal.append("k", b"")
        with pytest.raises(Corrupt):
            await journal.watch()
        with pytest.raises(Corrupt):
            journal.write([Row("k", b"")])
        assert not await journal.refill() or not journal.low
