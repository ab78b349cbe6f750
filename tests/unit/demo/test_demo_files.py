"""A directory may hold anything; the walk must end and open regular files only."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoon.core.errors import NotFound, NothingToDo
from cocoon.demo import files
from cocoon.demo.files import FileRefused, list_files, read_edges

NOBODY = 65_534


def names(root: Path, listing: files.Listing) -> list[str]:
    return [os.path.relpath(path, root) for path in listing.files]


def test_files_come_in_order_and_from_every_depth(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "a.txt", "A.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert names(tmp_path, list_files(str(tmp_path))) == ["A.txt", "a/b/c.txt", "a/z.txt", "a.txt", "b.txt"]


def test_links_pipes_sockets_and_devices_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listing = list_files(str(tmp_path))
    assert names(tmp_path, listing) == ["real"]
    assert (listing.skipped, listing.unreadable) == (5, [])


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert len(list_files(str(tmp_path / "link")).files) == 1


def test_a_single_file_is_a_listing_of_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert list_files(str(tmp_path / "x")).files == [str(tmp_path / "x")]


@pytest.mark.parametrize("name", ["absent", "absent/deeper", "a\0b"])
def test_a_missing_directory_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        list_files(str(tmp_path / name))


def test_a_directory_without_regular_files_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "inner" / "most").mkdir(parents=True)
    (tmp_path / "link").symlink_to("inner")
    with pytest.raises(NothingToDo):
        list_files(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NothingToDo):
        list_files(str(tmp_path / "pipe"))


def test_the_listing_stops_at_the_limit_and_says_so(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(b"")
    assert names(tmp_path, listing := list_files(str(tmp_path), most_files=4)) == ["0", "1", "2", "3"]
    assert listing.cut
    assert not list_files(str(tmp_path), most_files=5).cut


def test_the_walk_stops_after_so_many_entries(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}").mkdir()
    (tmp_path / "z").write_bytes(b"")
    assert list_files(str(tmp_path), most_entries=100).files
    with pytest.raises(NothingToDo):
        list_files(str(tmp_path), most_entries=3)


def test_a_deep_tree_is_walked_without_recursion(tmp_path: Path) -> None:
    folders = [str(tmp_path)]
    for _ in range(1_500):
        folders.append(folders[-1] + "/d")
        os.mkdir(folders[-1])
    (file := Path(folders[-1]) / "x").write_bytes(b"x")
    try:
        assert list_files(str(tmp_path)).files == [str(file)]
    finally:
        # pytest's own cleanup is recursive and would fail on this one.
        file.unlink()
        for folder in reversed(folders[1:]):
            os.rmdir(folder)


def test_a_name_that_is_no_utf8_survives(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9"
    with open(raw, "wb") as file:
        file.write(b"x" * 20)
    (path,) = list_files(str(tmp_path)).files
    assert os.fsencode(path) == raw
    assert read_edges(path, 4096).head == b"x" * 20


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of a user whom permissions bind; root, who may read all, becomes nobody for a while."""
    with tempfile.TemporaryDirectory() as name:
        user = NOBODY if os.geteuid() == 0 else os.geteuid()
        os.chown(name, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


def test_what_may_not_be_read_is_reported(unprivileged: Path) -> None:
    (unprivileged / "open").write_bytes(b"x")
    (unprivileged / "shut").mkdir(mode=0)
    (unprivileged / "secret").write_bytes(b"x")
    (unprivileged / "secret").chmod(0)
    listing = list_files(str(unprivileged))
    assert names(unprivileged, listing) == ["open", "secret"]
    assert [(left.path, left.reason) for left in listing.unreadable] == [
        (str(unprivileged / "shut"), "permission denied")
    ]
    with pytest.raises(FileRefused, match="permission denied"):
        read_edges(str(unprivileged / "secret"), 4096)
    (unprivileged / "shut").chmod(0o700)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 10_000])
def test_exactly_the_first_and_the_last_block_are_read(tmp_path: Path, size: int) -> None:
    content = bytes(i * 7 % 256 for i in range(size))
    (tmp_path / "x").write_bytes(content)
    edges = read_edges(str(tmp_path / "x"), 4096)
    block = min(size, 4096)
    assert (edges.size_bytes, edges.head, edges.tail) == (size, content[:block], content[size - block :])


def test_a_huge_file_costs_two_blocks(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        file.write(b"head")
        file.truncate(10 << 30)
        file.seek(-4, os.SEEK_END)
        file.write(b"tail")
    edges = read_edges(str(tmp_path / "x"), 4096)
    assert edges.size_bytes == 10 << 30
    assert (edges.head[:4], edges.tail[-4:]) == (b"head", b"tail")
    assert (len(edges.head), len(edges.tail)) == (4096, 4096)


def test_a_file_that_vanished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="no such file"):
        read_edges(str(tmp_path / "gone"), 4096)


def test_a_file_that_became_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(FileRefused, match="no regular file"):
        read_edges(str(tmp_path / "x"), 4096)


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "x").symlink_to("target")
    with pytest.raises(FileRefused):
        read_edges(str(tmp_path / "x"), 4096)


@pytest.mark.parametrize("new_size", [3, 20_000])
def test_a_file_that_shrinks_or_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_size: int
) -> None:
    """The change happens at the exact moment between looking at the size and reading."""
    real_pread = os.pread
    path = tmp_path / "x"
    path.write_bytes(b"x" * 10_000)

    def change_then_read(descriptor: int, length: int, offset: int) -> bytes:
        os.truncate(path, new_size)
        return real_pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", change_then_read)
    with pytest.raises(FileRefused, match="changed while it was read"):
        read_edges(str(path), 4096)
