"""Keys on a real disk: made once, kept, refused when others could read them."""

from __future__ import annotations

import os
import stat

import pytest

from cocoon.core.errors import Corrupt, LaxPermissions
from cocoon.identity.files import create_secret
from cocoon.identity.service import load_or_create


def test_the_peer_key_stays_and_the_hpke_key_lasts_a_day(tmp_path):
    first = load_or_create(tmp_path / "home", today=100)
    same = load_or_create(tmp_path / "home", today=100)
    next_day = load_or_create(tmp_path / "home", today=101)
    clock_back = load_or_create(tmp_path / "home", today=99)
    assert (same.key, same.hpke) == (first.key, first.hpke)
    assert next_day.key == first.key and next_day.seed == first.seed
    assert next_day.hpke != first.hpke and next_day.hpke_day == 101
    assert clock_back.hpke == next_day.hpke


def test_two_homes_have_nothing_in_common(tmp_path):
    one, other = load_or_create(tmp_path / "one"), load_or_create(tmp_path / "other")
    assert one.key != other.key and one.hpke != other.hpke and one.hpke_day == other.hpke_day


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o277], ids=oct)
def test_keys_are_private_whatever_the_umask(tmp_path, umask):
    old = os.umask(umask)
    try:
        load_or_create(tmp_path / "home")
    finally:
        os.umask(old)
    modes = {
        p.name: stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    }
    assert modes == {"home": 0o700, "keys": 0o700, "peer.key": 0o600, "hpke.key": 0o600}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("keys/peer.key", 0o640),
        ("keys/peer.key", 0o604),
        ("keys/hpke.key", 0o660),
        ("keys", 0o750),
        (".", 0o711),
    ],
)
def test_a_lax_file_or_directory_is_refused_by_name(tmp_path, name, mode):
    home = tmp_path / "home"
    load_or_create(home)
    path = home / name
    path.chmod(mode)
    with pytest.raises(LaxPermissions, match=f"{path.name} has mode {mode:04o}"):
        load_or_create(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="LOUD SKIP: giving a file away needs root")
def test_a_key_of_a_foreign_owner_is_refused(tmp_path):
    home = tmp_path / "home"
    load_or_create(home)
    os.chown(home / "keys" / "peer.key", 12_345, -1)
    with pytest.raises(LaxPermissions, match="12345"):
        load_or_create(home)


def test_a_damaged_peer_key_is_never_replaced(tmp_path):
    home = tmp_path / "home"
    load_or_create(home)
    path = home / "keys" / "peer.key"
    path.write_bytes(path.read_bytes()[:-1])
    damaged = path.read_bytes()
    with pytest.raises(Corrupt):
        load_or_create(home)
    assert path.read_bytes() == damaged


def test_symbolic_links_and_directories_are_no_keys(tmp_path):
    home = tmp_path / "home"
    load_or_create(home)
    key = home / "keys" / "peer.key"
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match="symbolic link"):
        load_or_create(home)
    key.unlink()
    key.mkdir()
    with pytest.raises(Corrupt, match="no regular file"):
        load_or_create(home)


def test_a_secret_that_exists_is_not_overwritten(tmp_path):
    path = tmp_path / "secret"
    create_secret(path, b"first")
    with pytest.raises(FileExistsError):
        create_secret(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_before_the_key_was_in_place_leaves_no_half_key(tmp_path):
    """A draft left by a dead process is no key, and does not stand in the way."""
    home = tmp_path / "home"
    load_or_create(home)
    (home / "keys" / "peer.key").rename(home / "keys" / f".peer.key.{os.getpid()}.draft")
    again = load_or_create(home)
    assert load_or_create(home).key == again.key
    assert sorted(p.name for p in (home / "keys").iterdir()) == ["hpke.key", "peer.key"]
