"""Finding the local peer: control.json, its permissions, and the process it names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cocoon.config.service import home_path
from cocoon.core.errors import LaxPermissions, NoLocalPeer
from cocoon.sdk import connect
from cocoon.sdk.home import checked_home, default_home, find_peer
from tests.control_server import TOKEN, serving


def dead_pid() -> int:
    """A process that has just ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_a_home_without_a_peer_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(NoLocalPeer, match="no peer runs") as caught:
        connect(home)
    assert "cocoon up" in caught.value.remedy


def test_a_peer_is_found_and_its_token_is_not_shown(home: Path) -> None:
    with serving(home):
        contact = find_peer(home)
        assert contact.token == TOKEN and TOKEN not in repr(contact)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_control_file_that_others_can_touch_is_refused(home: Path, mode: int) -> None:
    with serving(home) as server:
        server.write_contact(mode=mode)
        with pytest.raises(LaxPermissions, match=f"{mode:04o}"):
            connect(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_control_file_of_another_user_is_refused(home: Path) -> None:
    with serving(home) as server:
        os.chown(server.write_contact(), 12345, -1)
        with pytest.raises(LaxPermissions, match="12345"):
            connect(home)


def test_a_control_file_of_a_dead_process_is_stale(home: Path) -> None:
    with serving(home) as server:
        server.write_contact(pid=dead_pid())
        with pytest.raises(NoLocalPeer, match="stale"):
            connect(home)


def test_a_socket_that_nobody_listens_on_is_no_peer(home: Path) -> None:
    with serving(home):
        client = connect(home)
    with pytest.raises(NoLocalPeer, match="nothing listens"):
        client.status()


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"path": 1, "token": "t", "pid": 1}',
    b'{"path": "p", "token": "t"}',
    b'{"path": "p", "token": "", "pid": 1}', b'{"path": "a\\u0000b", "token": "t", "pid": 1}',
    b'{"path": "p", "token": "t", "pid": -1}', b'{"path": "p", "token": "t", "pid": 0}', b"[" * 4_000,
    b'{"path": "p", "token": "t", "pid": 99999999999999999999999}', b" " * 5_000,
    b'{"path": "\\ud800", "token": "t", "pid": 1e3}',
])
def test_a_damaged_control_file_is_a_typed_error(home: Path, content: bytes) -> None:
    home.mkdir()
    path = home / "control.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(NoLocalPeer):
        connect(home)


def test_a_link_a_directory_and_a_fifo_are_no_control_file(home: Path) -> None:
    home.mkdir()
    path = home / "control.json"
    path.symlink_to("/etc/hostname")
    with pytest.raises(NoLocalPeer):
        connect(home)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(NoLocalPeer):
        connect(home)
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(NoLocalPeer):
        connect(home)


def test_a_home_with_a_name_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 40)
    with serving(home):
        assert connect(home).status()["connections"] == 1


def test_a_relative_socket_path_is_below_the_home(home: Path) -> None:
    with serving(home) as server:
        server.write_contact(path="control.sock")
        assert connect(home).status()["connections"] == 1


def test_the_default_home_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for env in ({"COCOON_HOME": str(tmp_path)}, {"XDG_DATA_HOME": str(tmp_path)}, {"COCOON_HOME": "~/x"}, {}):
        monkeypatch.delenv("COCOON_HOME", raising=False)
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert default_home() == home_path() == checked_home(None)


def test_a_client_survives_the_restart_of_its_peer(home: Path) -> None:
    with serving(home):
        client = connect(home)
    (home / "control.sock").unlink()
    with serving(home):
        assert client.status()["connections"] == 1
