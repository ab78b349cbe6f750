"""Files of a home: private, whole, and one peer at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from cocoon.core.errors import HomeInUse, LaxPermissions, Unavailable
from cocoon.identity.files import private_dir, write_private
from cocoon.store.service import lock_home

HOLDER = """
import sys
from pathlib import Path
from cocoon.store.service import lock_home
with lock_home(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request):
    old = os.umask(request.param)
    yield
    os.umask(old)


def test_a_second_peer_is_refused_and_told_who_holds_the_home(tmp_path):
    with lock_home(tmp_path / "home"):
        with pytest.raises(HomeInUse, match=str(os.getpid())), lock_home(tmp_path / "home"):
            pass
    with lock_home(tmp_path / "home"):
        pass


def test_a_killed_peer_frees_its_home(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HomeInUse, match=str(holder.pid)), lock_home(tmp_path):
            pass
        holder.kill()
    with lock_home(tmp_path):
        pass


def test_written_files_are_private_and_replaced_whole(tmp_path, umask):
    path = tmp_path / "book"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_replaces_a_symbolic_link_and_not_its_target(tmp_path):
    target, path = tmp_path / "target", tmp_path / "book"
    target.write_bytes(b"theirs")
    path.symlink_to(target)
    write_private(path, b"ours")
    assert target.read_bytes() == b"theirs"
    assert not path.is_symlink()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_lax_directory_is_refused(tmp_path, mode):
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(LaxPermissions, match=f"{mode:04o}"):
        private_dir(folder)


def test_a_file_in_the_way_of_the_home_is_named(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(Unavailable, match="home"):
        private_dir(tmp_path / "home")
