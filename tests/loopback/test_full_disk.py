"""A full disk costs a typed error, never a peer; when there is room again, the peer goes on."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

import cocoon
from cocoon.core.errors import StorageFull
from cocoon.core.units import KIB, MIB
from cocoon.store.service import JOURNAL_FILE, Room, open_journal
from tests.loopback.town import Outcome, Peer, Town
from tests.loopback.verdict import all_up, good_task_runs, refused, run, runs_again
from tests.models import adder_model, affine_inputs, affine_model

#: Units of one task; a unit takes several hundred bytes of a journal.
UNITS = 200
#: More than fit into what is left of a journal after ``worn``.
TASKS = 20


def worn(home: Path) -> None:
    """A journal that has little room left below 1 MiB, so that not all of it need be filled by tasks."""

    async def write() -> None:
        async with open_journal(home / JOURNAL_FILE, time.time_ns, room=Room(limit_bytes=MIB)) as journal:
            for _ in range(34):
                await journal.append("worn", bytes(20 * KIB))
            assert not journal.low

    home.mkdir(mode=0o700)
    trio.run(write)


def fill(requester: Peer, folder: Path) -> str:
    """Run tasks until somebody's journal takes no more; returns what the error says."""
    (folder / "model.onnx").write_bytes(affine_model())
    client = cocoon.connect(requester.home)
    with pytest.raises(StorageFull) as caught:
        for _ in range(TASKS):
            client.run(folder / "model.onnx", [affine_inputs()] * UNITS)
    return caught.value.text


def told(place: Town, requester: Peer, folder: Path, *words: str) -> None:
    """The command says that a disk is full, as often as it is asked, and everybody stays up."""
    for _ in range(2):
        refused(run(place, requester, folder, affine_model(), affine_inputs()), StorageFull, *words)
    all_up(place)
    assert cocoon.connect(requester.home).status()["tasks_open"] == 0


def test_a_full_journal_refuses_tasks_and_leases_until_it_has_room(empty_town: Town, tmp_path: Path) -> None:
    small = {"journal_limit_bytes": str(MIB)}
    for name in ("provider", "poor"):
        worn(tmp_path / name)
    empty_town.bootstrap()
    provider, requester = empty_town.provider(**small), empty_town.requester()
    good_task_runs(requester, tmp_path)
    assert str(provider.home) not in fill(requester, tmp_path), "where its disk lies is nobody's business"
    told(empty_town, requester, tmp_path, "'s disk is")
    assert provider.terminate() == 0
    empty_town.peers.remove(provider)
    provider = empty_town.provider()
    runs_again(requester, tmp_path)
    poor = empty_town.requester("poor", **small)
    good_task_runs(poor, tmp_path)
    fill(poor, tmp_path)
    told(empty_town, poor, tmp_path, "the disk of COCOON_HOME is nearly full")
    assert len(cocoon.connect(poor.home).receipts()) > 1
    good_task_runs(requester, tmp_path)
    assert poor.terminate() == 0
    empty_town.peers.remove(poor)
    runs_again(empty_town.requester("poor"), tmp_path)
    all_up(empty_town)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB: the journal's reserve, twice that to make it again, and little more."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("LOUD SKIP: mounting a small tmpfs needs root; peers on a really full disk were not tried")
    try:
        yield folder
    finally:
        # Lazily: its peer ends after this, with the town.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def used_up(disk: Path) -> Iterator[Callable[[], None]]:
    """Take all that is left, again with each call; the block's end gives it back."""
    ballast = disk / "ballast"

    def take() -> None:
        with ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4 * KIB))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    take()
    yield take
    ballast.unlink()


def spend_reserve(disk: Path, requester: Peer, folder: Path) -> None:
    """Run tasks on the open lease until the journal of ``disk`` had to give its reserve back."""
    for _ in range(TASKS):
        if not (disk / f"{JOURNAL_FILE}.reserve").exists():
            return
        cocoon.connect(requester.home).run(folder / "good.onnx", [affine_inputs()] * 20)
    raise AssertionError("the disk is full, but its journal still holds its reserve")


def another_model(place: Town, requester: Peer, folder: Path) -> Outcome:
    """A task that needs a lease of its own."""
    return run(place, requester, folder, adder_model(), {"x": affine_inputs()["b"]})


def test_peers_on_full_disks_go_on_when_they_have_room(empty_town: Town, tmp_path: Path) -> None:
    empty_town.bootstrap()
    with small_disk(tmp_path / "provider") as theirs, small_disk(tmp_path / "requester") as ours:
        empty_town.provider()
        requester = empty_town.requester()
        good_task_runs(requester, tmp_path)
        with used_up(ours) as take_again:
            fill(requester, tmp_path)
            refused(another_model(empty_town, requester, tmp_path), StorageFull, "the disk of COCOON_HOME")
            take_again()
            told(empty_town, requester, tmp_path, "the disk of COCOON_HOME")
        runs_again(requester, tmp_path)
        with used_up(theirs) as take_again:
            spend_reserve(theirs, requester, tmp_path)
            refused(another_model(empty_town, requester, tmp_path), StorageFull, "'s disk is")
            # What was kept for open leases goes too.
            take_again()
            fill(requester, tmp_path)
            told(empty_town, requester, tmp_path, "'s disk is")
        runs_again(requester, tmp_path)
        assert another_model(empty_town, requester, tmp_path).code == 0
        all_up(empty_town)
