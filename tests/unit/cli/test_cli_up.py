"""``cocoon up`` as a process: its lines, its end, and who reads them. Tasks are tested elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.cli.conftest import LIMIT_S, Command, environment


@contextmanager
def up(home: Path, root: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A peer in a process of its own; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cocoon", "up", *arguments], env=environment(home, root), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of the peer."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_a_peer_says_its_link_and_ready_and_answers_until_it_is_stopped(
    home: Path, root: Path, command: Command
) -> None:
    with up(home, root) as process:
        assert line(process).startswith("cocoon://join/")
        assert line(process) == "ready"
        assert command("status", "--json").objects[-1]["summary"]["pid"] == process.pid
        assert command("doctor").code == 0
        second = command("up", "--json")
        assert second.code == 14 and second.objects[-1]["error"]["code"] == "home_in_use"
        stopped = command("stop")
        assert (stopped.code, stopped.out) == (0, "the peer is stopping\n")
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, err) == (0, "")
    assert command("status").code == 11


def test_lines_are_objects_with_json_and_sigterm_ends_with_0(home: Path, root: Path) -> None:
    with up(home, root, "--json", "--role", "bootstrap") as process:
        join = json.loads(line(process))
        assert join["event"] == "join" and join["link"].startswith("cocoon://join/")
        assert json.loads(line(process)) == {"event": "ready"}
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert json.loads(out.splitlines()[-1]) == {"summary": {"exit": 0}}


def test_a_peer_outlives_the_reader_of_its_lines(home: Path, root: Path, command: Command) -> None:
    """``cocoon up | head -1`` must not take the peer down when it says the next line."""
    with up(home, root) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        process.stdout = None
        # control.json appears before `ready`, so ask until the peer answers: it must not have ended.
        while command("status").code != 0:
            assert process.poll() is None
        assert command("stop").code == 0
        assert process.wait(LIMIT_S) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_bad_arguments_name_what_was_typed(command: Command) -> None:
    assert command("up", "--join", "cocoon://join/abc").code == 17
    said = command("up", "--network-name", "Bad Name")
    assert said.code == 16 and "--network-name" in said.err
    said = command("up", "--listen", "nonsense")
    assert said.code == 16 and "--listen" in said.err
