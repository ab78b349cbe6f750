"""A full disk: the page limit everywhere, and a real small file system where we may mount one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cocoon.core.errors import StorageFull
from cocoon.core.units import KIB, MIB
from cocoon.identity.files import write_private
from cocoon.store.service import Journal, Room, Row, open_journal, open_reader

BODY = bytes(20 * KIB)
LIMITED = Room(reserve_bytes=256 * KIB, limit_bytes=MIB)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB; needs root, and says so where there is none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip(
            "LOUD SKIP: mounting a small tmpfs needs root; the full-disk test on a real disk did not run"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def append_until(journal: Journal, done) -> int:
    """Append until ``done()``; the number that succeeded. Ends by StorageFull at the latest."""
    count = 0
    while not done():
        await journal.append("k", BODY)
        count += 1
    return count


async def fill(journal: Journal) -> int:
    """Append until refused; the number that succeeded."""
    count = 0
    with pytest.raises(StorageFull):
        while True:
            await journal.append("k", BODY)
            count += 1
    return count


async def test_a_limited_journal_warns_before_it_refuses(tmp_path):
    path = tmp_path / "journal.db"
    async with open_journal(path, time.time_ns, room=LIMITED) as journal:
        assert not journal.low
        before = await append_until(journal, lambda: journal.low)
        assert before > 10
        obligations = await fill(journal)
        assert obligations > 5
        assert journal.low
        assert journal.verify() == before + obligations
    assert path.stat().st_size <= MIB


async def test_a_refused_batch_leaves_nothing_and_smaller_ones_still_fit(tmp_path):
    async with open_journal(tmp_path / "journal.db", time.time_ns, room=LIMITED) as journal:
        with pytest.raises(StorageFull):
            await journal.append_many([Row("k", BODY)] * 100)
        assert await journal.append("k", b"small") == 1
        assert journal.verify() == 1


async def test_a_full_journal_goes_on_when_it_gets_room(tmp_path):
    path = tmp_path / "journal.db"
    async with open_journal(path, time.time_ns, room=LIMITED) as journal:
        count = await fill(journal)
    async with open_journal(path, time.time_ns, room=LIMITED) as journal:
        assert journal.low
        assert not await journal.refill()
    async with open_journal(path, time.time_ns, room=Room(256 * KIB, 4 * MIB)) as journal:
        assert not journal.low
        assert await journal.append("k", BODY) == count + 1


async def test_every_waiting_append_learns_that_the_disk_is_full(tmp_path):
    outcomes: list[object] = []

    async def attempt(journal: Journal) -> None:
        try:
            outcomes.append(await journal.append("k", BODY))
        except StorageFull as error:
            outcomes.append(error.code)

    async with open_journal(tmp_path / "journal.db", time.time_ns, room=LIMITED) as journal:
        await fill(journal)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(attempt, journal)
        assert outcomes == ["storage_full"] * 20


async def test_a_full_disk_gives_the_reserve_back_and_recovers(small_disk):
    """ENOSPC for real: reserve released, obligations recorded, refused, freed, reserve made again."""
    path, ballast = small_disk / "journal.db", small_disk / "ballast"
    ballast.write_bytes(os.urandom(MIB))
    async with open_journal(path, time.time_ns, room=Room(reserve_bytes=512 * KIB)) as journal:
        reserve = small_disk / "journal.db.reserve"
        assert reserve.exists() and not journal.low
        before = await append_until(journal, lambda: journal.low)
        assert not reserve.exists()
        count = before + await fill(journal)
        assert count > before
        assert not await journal.refill()

        ballast.unlink()
        assert await journal.append("k", BODY) == count + 1
        assert journal.verify() == count + 1
    with open_reader(path) as reader:
        assert reader.verify() == count + 1


async def test_the_reserve_is_made_again_when_there_is_space(small_disk):
    path, ballast = small_disk / "journal.db", small_disk / "ballast"
    room = Room(reserve_bytes=512 * KIB)
    ballast.write_bytes(os.urandom(3 * MIB))
    async with open_journal(path, time.time_ns, room=room) as journal:
        assert journal.low
        assert await journal.append("k", b"an obligation") == 1
        ballast.unlink()
        assert await journal.refill()
        assert not journal.low
        assert (small_disk / "journal.db.reserve").stat().st_size == room.reserve_bytes


async def test_two_who_ask_for_room_at_once_both_learn_of_it_and_the_thread_rests_again(small_disk):
    path, ballast = small_disk / "journal.db", small_disk / "ballast"
    ballast.write_bytes(os.urandom(3 * MIB))
    async with open_journal(path, time.time_ns, room=Room(reserve_bytes=512 * KIB)) as journal:
        assert journal.low
        ballast.unlink()
        told: list[bool] = []

        async def ask() -> None:
            told.append(await journal.refill())

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(ask)
            journal._flusher.try_refill()
            while journal._flusher._try_refill:
                await wait_all_tasks_blocked()
        assert told == [True, True] and not journal.low


async def test_a_journal_opens_on_a_full_disk_thanks_to_its_reserve(small_disk):
    path, ballast = small_disk / "journal.db", small_disk / "ballast"
    room = Room(reserve_bytes=512 * KIB)
    async with open_journal(path, time.time_ns, room=room) as journal:
        await journal.append("k", b"1")
    with pytest.raises(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            assert stream.write(os.urandom(4 * KIB)) > 0
    async with open_journal(path, time.time_ns, room=room) as journal:
        assert await journal.append("k", b"2") == 2
        assert journal.low
        assert journal.verify() == 2


async def test_a_new_journal_on_a_full_disk_says_so(small_disk):
    with pytest.raises(OSError), (small_disk / "ballast").open("wb", buffering=0) as stream:
        while True:
            assert stream.write(os.urandom(4 * KIB)) > 0
    with pytest.raises(StorageFull):
        async with open_journal(small_disk / "journal.db", time.time_ns):
            pass


def test_a_file_that_does_not_fit_leaves_the_old_content(small_disk):
    path = small_disk / "book"
    write_private(path, b"old")
    with pytest.raises(StorageFull):
        write_private(path, bytes(8 * MIB))
    assert path.read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["book"]
