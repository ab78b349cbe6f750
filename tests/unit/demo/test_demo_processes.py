"""Whatever happens, no process and no file is left; tried with real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cocoon.demo import processes
from cocoon.demo.errors import PeerNotStarted
from cocoon.demo.interrupts import Interrupts
from cocoon.demo.processes import Crew, crew, environment

HERE = Path(__file__).parent
COMMAND = [sys.executable, str(HERE / "peer_stand_in.py")]
PATIENCE_S = 60


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def members() -> Iterator[Crew]:
    with crew(Interrupts(), COMMAND) as members:
        yield members


def test_a_peer_tells_its_link_and_then_that_it_is_ready(members: Crew) -> None:
    peer = members.start("one", "good")
    assert members.wait_link(peer) == "cocoon://join/abc-DEF_123"
    assert members.wait_ready(peer) > 0
    assert members.close() == {"one": 0}


def test_every_peer_has_a_home_of_its_own_that_others_cannot_read(members: Crew) -> None:
    homes = {members.start(name, "good").home for name in ("one", "two")}
    assert len(homes) == 2
    assert {home.stat().st_mode & 0o777 for home in homes} == {0o700}
    assert {home.parent.stat().st_mode & 0o777 for home in homes} == {0o700}


def test_nothing_is_left_when_the_block_ends_or_fails() -> None:
    for failure in (None, ValueError("in the middle")):
        try:
            with crew(Interrupts(), COMMAND) as members:
                peer = members.start("one", "good")
                members.wait_ready(peer)
                if failure:
                    raise failure
        except ValueError as caught:
            assert caught is failure
        assert not is_alive(peer.pid)
        assert not peer.home.parent.exists()


def test_a_peer_that_ends_early_is_reported_with_its_last_words(members: Crew) -> None:
    with pytest.raises(PeerNotStarted, match=r"the one ended with exit code 30.*no disk \[storage_full\]"):
        members.wait_ready(members.start("one", "ends"))


def test_a_silent_peer_is_not_waited_for_without_end(
    members: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READY_S", 0.2)
    with pytest.raises(PeerNotStarted, match="printed no"):
        members.wait_ready(members.start("one", "silent"))


def test_a_peer_that_ignores_sigterm_is_killed(members: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DRAIN_S", 0.2)
    peer = members.start("one", "stubborn")
    members.wait_ready(peer)
    assert members.close() == {"one": -signal.SIGKILL}
    assert not is_alive(peer.pid)


def test_what_a_peer_started_ends_with_it(members: Crew) -> None:
    peer = members.start("one", "parent")
    members.wait_ready(peer)
    child = int(peer.errors.read_text())
    with open(f"/proc/{child}/stat"):
        watcher = os.pidfd_open(child)
    members.close()
    # Orphans are reaped by init, in its own time; a pidfd tells the end itself.
    assert select.select([watcher], [], [], PATIENCE_S)[0]
    os.close(watcher)


def test_a_peer_that_talks_much_is_not_blocked_by_nobody_listening(members: Crew) -> None:
    peer = members.start("one", "chatty")
    members.wait_ready(peer)
    assert peer.process.wait(PATIENCE_S) == 7  # it got rid of all its lines and ended by itself


def test_closing_twice_is_harmless(members: Crew) -> None:
    members.wait_ready(members.start("one", "good"))
    assert members.close() == members.close() == {"one": 0}


def test_the_users_own_settings_do_not_reach_the_peers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COCOON_HOME", "/somewhere/else")
    monkeypatch.setenv("COCOON_LISTEN", "nonsense")
    found = environment(tmp_path)
    assert {name: value for name, value in found.items() if name.startswith("COCOON_")} == {
        "COCOON_HOME": str(tmp_path)
    }
    assert found["PATH"] == os.environ["PATH"]


@contextmanager
def running_crew(how: str) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A process that runs a crew: itself, its peers, its directory. One that hangs fails the test, not the run."""
    program = [sys.executable, str(HERE / "crew_stand_in.py"), how]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        *pids, directory = process.stdout.readline().split()
        try:
            yield process, [int(pid) for pid in pids], Path(directory)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_peer_and_shows_in_the_exit_code(number: signal.Signals) -> None:
    with running_crew("good") as (process, pids, directory):
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number
    assert not any(is_alive(pid) for pid in pids)
    assert not directory.exists()


def test_a_second_signal_ends_stubborn_peers_at_once() -> None:
    """Without the second one, SIGKILL would come after the whole drain time."""
    with running_crew("stubborn") as (process, pids, directory):
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert not any(is_alive(pid) for pid in pids)
    assert not directory.exists()


def test_an_interrupt_inside_a_held_section_comes_after_it() -> None:
    interrupts = Interrupts()
    done = []
    with interrupts.installed():
        with pytest.raises(KeyboardInterrupt):
            with interrupts.hold():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("held")
        os.kill(os.getpid(), signal.SIGINT)  # raised once only: the way out is not interrupted again
        done.append("way out")
    assert (done, interrupts.count) == (["held", "way out"], 2)


def test_handlers_are_given_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts().installed():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)
