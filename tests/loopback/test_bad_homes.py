"""Bad homes, links and settings: `cocoon up` and its kin end at once, typed, and harm no running peer."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cocoon.config.network import NetworkFile, format_link, parse_link, to_toml
from cocoon.core.errors import (
    BadConfig,
    BadLink,
    BootstrapUnreachable,
    CocoonError,
    Corrupt,
    HomeInUse,
    LaxPermissions,
    ListenFailed,
    NoLocalPeer,
    NoProvider,
    NotFound,
    NothingToDo,
    Unavailable,
    WrongNetwork,
)
from cocoon.core.values import replace
from tests.loopback.conftest import Settled
from tests.loopback.verdict import all_up, good_task_runs, refused, run
from tests.models import affine_inputs, affine_model

MAGIKA = Path(__file__).parents[2] / "build" / "magika"


@pytest.fixture(autouse=True)
def unharmed(settled: Settled, tmp_path: Path) -> Iterator[None]:
    """Whatever a test here does, the running peers stay up and the next good task succeeds."""
    yield
    good_task_runs(settled.requester, tmp_path)
    all_up(settled.town)


def made_home(home: Path) -> Path:
    """A directory as a peer would make it."""
    home.mkdir(mode=0o700)
    return home


def put(home: Path, name: str, data: bytes | str) -> None:
    """A file of mode 0600 in ``home``."""
    path = home / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(0o600)


# --- one home, one peer, one network ------------------------------------------


def test_a_second_peer_on_a_home_is_refused_and_the_first_goes_on(settled: Settled) -> None:
    for peer in (settled.bootstrap, settled.provider, settled.requester):
        done = settled.town.cocoon(peer, "up", "--json")
        refused(done, HomeInUse, f"process {peer.process.pid} runs on {peer.home}")


def test_a_link_of_another_network_is_refused_on_a_home_that_has_one(settled: Settled, tmp_path: Path) -> None:
    ours = parse_link(settled.town.link)
    home = made_home(tmp_path / "elsewhere")
    put(home, "network.toml", to_toml(NetworkFile("elsewhere", "none", os.urandom(16))))
    done = settled.town.cocoon(home, "up", "--join", settled.town.link, "--json")
    refused(done, WrongNetwork, "'elsewhere'", ours.id.hex()[:12])


def test_a_link_whose_bootstrap_belongs_to_another_network_is_refused_and_the_right_one_still_works(
    settled: Settled, tmp_path: Path
) -> None:
    ours = parse_link(settled.town.link)
    foreign = replace(ours, nonce=os.urandom(16))
    done = settled.town.cocoon(tmp_path / "new", "up", "--join", format_link(foreign), "--json")
    refused(done, WrongNetwork, ours.id.hex()[:16], foreign.id.hex()[:16])
    newcomer = settled.town.requester("../" + str((tmp_path / "new").relative_to(settled.town.directory.parent)))
    assert newcomer.terminate() == 0
    settled.town.peers.remove(newcomer)


@pytest.mark.parametrize("role", [("--provide",), ("--role", "bootstrap"), ()])
def test_a_newcomer_whose_bootstrap_is_dead_says_so(settled: Settled, tmp_path: Path, role: tuple[str, ...]) -> None:
    ours = parse_link(settled.town.link)
    _, _, peer = ours.bootstraps[0].rpartition("/")
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{peer}"
    link = format_link(replace(ours, bootstraps=(dead,)))
    done = settled.town.cocoon(tmp_path / "new", "up", *role, "--join", link, "--json")
    refused(done, BootstrapUnreachable, dead)


LINKS: dict[str, Callable[[str], str]] = {
    "empty": lambda link: "",
    "another scheme": lambda link: "https://example.org/",
    "cut off": lambda link: link[:-9],
    "one letter wrong": lambda link: link[:40] + ("A" if link[40] != "A" else "B") + link[41:],
    "two at once": lambda link: link + link,
}


@pytest.mark.parametrize("name", list(LINKS))
def test_a_broken_link_is_refused(settled: Settled, tmp_path: Path, name: str) -> None:
    done = settled.town.cocoon(tmp_path / "new", "up", "--join", LINKS[name](settled.town.link), "--json")
    refused(done, BadLink, "join link")


def test_a_taken_port_is_named(settled: Settled, tmp_path: Path) -> None:
    address, _, _ = parse_link(settled.town.link).bootstraps[0].partition("/p2p/")
    done = settled.town.cocoon(tmp_path / "new", "up", "--join", settled.town.link, "--listen", address, "--json")
    refused(done, ListenFailed, address)


# --- homes that cannot be used -------------------------------------------------


def lax_home(home: Path) -> None:
    made_home(home).chmod(0o755)


def lax_key(home: Path) -> None:
    put(made_home(made_home(home) / "keys"), "peer.key", bytes(64))
    (home / "keys" / "peer.key").chmod(0o644)


def broken_key(home: Path) -> None:
    put(made_home(made_home(home) / "keys"), "peer.key", b"no key at all")


def linked_key(home: Path) -> None:
    (made_home(made_home(home) / "keys") / "peer.key").symlink_to("/etc/hostname")


def broken_journal(home: Path) -> None:
    put(made_home(home), "journal.db", b"SQLite format 3\0" + os.urandom(8_192))


def cut_journal(home: Path) -> None:
    put(made_home(home), "journal.db", b"SQLite")


def unknown_setting(home: Path) -> None:
    put(made_home(home), "config.toml", "log_level = 'info'\nprovdie = true\n")


def impossible_value(home: Path) -> None:
    put(made_home(home), "config.toml", "threads = 'many'\n")


def broken_toml(home: Path) -> None:
    put(made_home(home), "config.toml", "threads = = 1\n")


def binary_config(home: Path) -> None:
    put(made_home(home), "config.toml", b"\xff\xfe\x00threads")


def folder_as_config(home: Path) -> None:
    (made_home(home) / "config.toml").mkdir()


def broken_network(home: Path) -> None:
    put(made_home(home), "network.toml", "name = 'x'\n")


def below_a_file(home: Path) -> None:
    home.parent.rmdir()
    home.parent.write_text("a file")


HOMES: list[tuple[Callable[[Path], None], type[CocoonError], str]] = [
    (lax_home, LaxPermissions, "0755"),
    (lax_key, LaxPermissions, "has mode 0644, wanted 0600"),
    (broken_key, Corrupt, "keys/peer.key is damaged"),
    (linked_key, Corrupt, "symbolic link"),
    (broken_journal, Corrupt, "journal.db"),
    (cut_journal, Corrupt, "was cut off"),
    (unknown_setting, BadConfig, "config.toml:2: there is no setting 'provdie'; the nearest is 'provide'"),
    (impossible_value, BadConfig, "config.toml:1: threads must be a whole number"),
    (broken_toml, BadConfig, "config.toml"),
    (binary_config, BadConfig, "is not UTF-8"),
    (folder_as_config, BadConfig, "Is a directory"),
    (broken_network, BadConfig, "network.toml"),
    (below_a_file, BadConfig, "Not a directory"),
]


@pytest.mark.parametrize(("break_it", "error", "words"), HOMES, ids=[case[0].__name__ for case in HOMES])
def test_a_home_that_cannot_be_used_says_why(
    settled: Settled, tmp_path: Path, break_it: Callable[[Path], None], error: type[CocoonError], words: str
) -> None:
    home = tmp_path / "between" / "home"
    home.parent.mkdir(mode=0o700)
    break_it(home)
    refused(settled.town.cocoon(home, "up", "--join", settled.town.link, "--json"), error, words)


def test_a_home_on_a_disk_that_takes_no_write_says_why(settled: Settled, tmp_path: Path) -> None:
    folder = made_home(tmp_path / "readonly")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700,ro", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            refused(settled.town.cocoon(folder, "up", "--json"), Unavailable, "Read-only file system")
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    elif os.geteuid() != 0:
        folder.chmod(0o500)
        refused(settled.town.cocoon(folder, "up", "--json"), Unavailable, "Permission denied")
    else:
        pytest.skip("LOUD SKIP: root may write everywhere and this root cannot mount; the read-only home did not run")


@pytest.mark.parametrize(("name", "value", "words"), [
    ("nonsense", "1", "COCOON_NONSENSE: there is no setting 'nonsense'"),
    ("threads", "0", "COCOON_THREADS: threads must lie between 1"),
    ("listen", "127.0.0.1:4001", "COCOON_LISTEN: listen holds a bad address"),
    ("price_run_nanoton", "5", "price"),
])
def test_a_bad_setting_in_the_environment_is_named(
    settled: Settled, tmp_path: Path, name: str, value: str, words: str
) -> None:
    command = ("up", "--provide", "--join", settled.town.link, "--json")
    done = settled.town.begin(tmp_path / "new", *command, **{name: value}).finish()
    refused(done, BadConfig, words)


# --- no peer, no provider, nothing to do ---------------------------------------


def control(home: Path, **changes: object) -> None:
    """A control.json that says something false."""
    claim = {"path": "control.sock", "token": "t", "pid": os.getpid(), **changes}
    put(home, "control.json", json.dumps(claim))


def lax_control(home: Path) -> None:
    control(home)
    (home / "control.json").chmod(0o644)


@pytest.mark.parametrize(("prepare", "error", "words"), [
    (lambda home: None, NoLocalPeer, "there is no control.json"),
    (lambda home: control(home, pid=4_000_000), NoLocalPeer, "is stale"),
    (lambda home: control(home), NoLocalPeer, "nothing listens"),
    (lambda home: put(home, "control.json", b"\xff{"), NoLocalPeer, "is no control file"),
    (lax_control, LaxPermissions, "expected 0600"),
], ids=["no peer", "stale", "deaf", "broken", "lax"])
def test_a_command_without_its_peer_says_how_to_start_one(
    settled: Settled, tmp_path: Path, prepare: Callable[[Path], object], error: type[CocoonError], words: str
) -> None:
    home = made_home(tmp_path / "home")
    prepare(home)
    np.savez(tmp_path / "in.npz", x=np.ones(1, "f4"))
    (tmp_path / "model.onnx").write_bytes(affine_model())
    commands = (("status",), ("run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "in.npz")))
    for command in commands:
        refused(settled.town.cocoon(home, *command, "--json"), error, words)


def test_without_a_provider_a_task_says_so_and_the_peer_stays(settled: Settled, tmp_path: Path) -> None:
    alone = settled.town.up("alone")
    alone.wait_line("ready")
    refused(run(settled.town, alone, tmp_path, affine_model(), affine_inputs()), NoProvider)
    assert settled.town.cocoon(alone, "offers", "--json").objects == [{"summary": {"offers": 0}}]


@pytest.mark.skipif(not MAGIKA.is_dir(), reason="LOUD SKIP: no build/magika; `make test` puts it there")
def test_the_demo_of_nothing_starts_no_peer(settled: Settled, tmp_path: Path) -> None:
    empty, rules = tmp_path / "empty", tmp_path / "rules"
    empty.mkdir()
    rules.mkdir()
    (rules / "nothing").touch()
    cases: list[tuple[Path, type[CocoonError], str]] = [
        (empty, NothingToDo, "holds no readable regular file"),
        (rules, NothingToDo, "1 decided by rule"),
        (tmp_path / "nowhere", NotFound, "no directory"),
    ]
    for path, error, words in cases:
        done = settled.town.cocoon(tmp_path / "home", "demo", str(path), "--magika", str(MAGIKA), "--json")
        refused(done, error, words)
    assert not (tmp_path / "home").exists()
