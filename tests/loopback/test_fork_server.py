"""A forked process is one like a started one, but for its start."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoon import __version__
from tests.fork_server import fork
from tests.loopback.town import COCOON, PATIENCE_S, Town, town


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Town, Town]]:
    """A town that forks and one that starts."""
    for name in ("forks", "starts"):
        (tmp_path / name).mkdir()
    with town(tmp_path / "forks") as one, town(tmp_path / "starts", forks=False) as other:
        yield one, other


def test_it_says_and_returns_what_a_started_one_does(two: tuple[Town, Town]) -> None:
    for words in (("--version",), ("status",), ("nonsense",), ("wallet", "--json")):
        forked, started = (place.cocoon(place.directory, *words) for place in two)
        assert forked.code == started.code
        assert (forked.out + forked.err).replace("/forks", "/starts") == started.out + started.err


def test_it_has_the_descriptors_and_signals_of_a_started_one(two: tuple[Town, Town]) -> None:
    """No end of a pipe of another process, or somebody would wait for ever for its end."""
    seen = []
    for place in two:
        place.bootstrap("older")
        peer = place.bootstrap("younger")
        kinds = [os.readlink(path).split(":")[0] for path in Path(f"/proc/{peer.process.pid}/fd").iterdir()]
        state = Path(f"/proc/{peer.process.pid}/status").read_text().splitlines()
        seen.append((
            sorted(kind.rpartition("/")[2] for kind in kinds),
            [line for line in state if line.startswith(("SigBlk", "SigIgn", "SigCgt", "Threads"))],
        ))
        assert peer.terminate() == 0
    assert seen[0] == seen[1]


def test_its_environment_and_directory_are_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = fork(COCOON, ["status", "--json"], {"COCOON_HOME": str(home), "PATH": os.defpath}, tmp_path)
    out, _ = done.communicate(PATIENCE_S)
    assert str(home).encode() in out
    assert fork(COCOON, ["--version"], {}, tmp_path).communicate(PATIENCE_S) == (
        f"cocoon, version {__version__}\n".encode(), b"",
    )


def test_how_it_ended_is_told_once_and_for_ever(two: tuple[Town, Town]) -> None:
    peer = two[0].bootstrap()
    assert peer.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        peer.process.wait(0.0)
    peer.kill()
    assert peer.process.poll() == peer.process.wait() == -signal.SIGKILL
    peer.process.terminate()                # nobody is there
