"""A town of real peers on this machine: each a process with a home of its own.

Nothing here sleeps: every wait reads a pipe or a process until it speaks, up to
a bound. ``Town.close`` ends exactly the processes that it started.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.fork_server import Forked, fork

#: Far above what anything here takes, so that a busy machine does not fail a test; a hang still does.
PATIENCE_S = 60.0
#: The module behind the command ``cocoon``.
COCOON = "cocoon.__main__"


@dataclass(slots=True)
class Peer:
    """One running peer."""

    name: str
    home: Path
    process: subprocess.Popen[bytes] | Forked
    lines: list[str] = field(default_factory=list)
    _rest: bytes = b""

    def wait_line(self, start: str) -> str:
        """The first line (also of those already read) that begins with ``start``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for line in self.lines:
                if line.startswith(start):
                    return line
            assert self._read(deadline), f"{self.name} ended or said no {start!r}: {self.lines} {self.last_words()}"

    def wait_exit(self) -> int:
        """The exit code, once the process has ended by itself."""
        return self.process.wait(PATIENCE_S)

    def terminate(self) -> int:
        """SIGTERM, as a person or systemd would; returns the exit code."""
        self.process.terminate()
        return self.wait_exit()

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def kill_tree(self) -> None:
        """SIGKILL it and all its descendants, frozen or not, and reap."""
        for pid in self.tree():
            _kill(pid)
        self.process.wait(PATIENCE_S)

    def freeze(self, seconds: float) -> None:
        """It stands still for so long; its workers go on."""
        self.signal(signal.SIGSTOP)
        wait_s(seconds)
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        self.process.send_signal(number)

    def tree(self) -> list[int]:
        """Process ids of the peer and all its descendants."""
        return list(descendants(self.process.pid))

    def last_words(self) -> str:
        """What it wrote on standard error."""
        return (self.home.parent / f"{self.name}.err").read_text(errors="replace")[-2_000:]

    def log(self) -> str:
        """Its whole log."""
        path = self.home / "log" / "peer.jsonl"
        return path.read_text() if path.exists() else ""

    def _read(self, deadline: float) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in whole]
        return bool(data)


@dataclass(slots=True)
class Outcome:
    """A finished command. ``objects`` are the JSON lines of its standard output."""

    code: int
    out: str
    err: str
    took_s: float

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output, line by line, as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The typed error that a ``--json`` command ended with."""
        found: dict[str, Any] = self.objects[-1]["error"]
        return found


class Town:
    """Starts peers and runs commands against them."""

    def __init__(self, directory: Path, ledger: str = "none", forks: bool = True) -> None:
        """Empty.

        Args:
            ledger: That of the networks that are made here; one with money takes a devnet beside its bootstrap.
            forks: Its processes come out of a fork server; False starts Python for each.
        """
        self.directory = directory
        self.ledger = ledger
        self.forks = forks
        self.peers: list[Peer] = []
        self.link = ""

    def up(self, name: str, *arguments: str, **environment: str) -> Peer:
        """Start ``cocoon up ARGUMENTS`` on the home ``name``; it is not ready yet."""
        return self.start(name, COCOON, "up", *arguments, **environment)

    def start(self, name: str, root: str, *arguments: str, **environment: str) -> Peer:
        """Start the ``main`` of the module ``root`` on the home ``name``."""
        home = self.directory / name
        with (self.directory / f"{name}.err").open("ab") as errors:
            process = self.process(root, arguments, self.environment(home, **environment), errors)
        peer = Peer(name, home, process)
        self.peers.append(peer)
        return peer

    def process(
        self, root: str, arguments: Sequence[str], environment: Mapping[str, str], errors: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes] | Forked:
        """Run a ``main``; what it says is read through pipes, but for what goes into the file ``errors``."""
        if self.forks:
            return fork(root, arguments, environment, self.directory, errors=errors and errors.fileno())
        return subprocess.Popen(
            [sys.executable, "-m", root, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors or subprocess.PIPE, env=environment, cwd=self.directory,
        )

    def bootstrap(self, name: str = "bootstrap", **environment: str) -> Peer:
        """A bootstrap that is ready; its link becomes the town's."""
        peer = self.up(name, "--role", "bootstrap", **environment)
        self.link = peer.wait_line("cocoon://join/")
        peer.wait_line("ready")
        return peer

    def provider(self, name: str = "provider", *arguments: str, **environment: str) -> Peer:
        """A provider that is ready."""
        peer = self.up(name, "--provide", "--join", self.link, *arguments, **environment)
        peer.wait_line("ready")
        return peer

    def requester(self, name: str = "requester", **environment: str) -> Peer:
        """A peer that only buys, ready."""
        peer = self.up(name, "--join", self.link, **environment)
        peer.wait_line("ready")
        return peer

    def cocoon(self, peer: Peer | Path, *arguments: str, patience_s: float = PATIENCE_S, **environment: str) -> Outcome:
        """Run one command against a peer's home until it ends."""
        return self.begin(peer, *arguments, **environment).finish(patience_s)

    def begin(self, peer: Peer | Path, *arguments: str, **environment: str) -> Command:
        """Start one command without waiting."""
        home = peer if isinstance(peer, Path) else peer.home
        return Command(arguments, self.process(COCOON, arguments, self.environment(home, **environment)))

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """This environment without the user's own Cocoon settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COCOON_")}
        ours = {"home": str(home), "ledger": self.ledger, **more}
        return {**kept, **{f"COCOON_{name.upper()}": value for name, value in ours.items()}}

    def close(self) -> None:
        """End every process that this town started, and what those started."""
        for peer in reversed(self.peers):
            if peer.process.poll() is None:
                peer.kill_tree()
            assert peer.process.stdout is not None
            peer.process.stdout.close()


class Command:
    """A running command."""

    def __init__(self, arguments: tuple[str, ...], process: subprocess.Popen[bytes] | Forked) -> None:
        self._started = time.monotonic()
        self.arguments = arguments
        self.process = process

    def follow(self, hear: Callable[[dict[str, Any]], None], patience_s: float = PATIENCE_S) -> Outcome:
        """Hear each JSON line as it is said, then as ``finish``; standard error must fit into a pipe."""
        assert self.process.stdout is not None and self.process.stderr is not None
        late = threading.Timer(patience_s, self.process.kill)
        late.start()
        said: list[bytes] = []
        try:
            for line in self.process.stdout:
                said.append(line)
                hear(json.loads(line))
            errors = self.process.stderr.read()
            self.process.wait()
        finally:
            late.cancel()
            self.process.stdout.close()
            self.process.stderr.close()
        took_s = time.monotonic() - self._started
        return Outcome(self.process.returncode, b"".join(said).decode(), errors.decode(), took_s)

    def finish(self, patience_s: float = PATIENCE_S) -> Outcome:
        """Wait for its end; a command that hangs fails the test."""
        try:
            out, err = self.process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"cocoon {' '.join(self.arguments)} hangs: {out!r} {err!r}") from None
        return Outcome(self.process.returncode, out.decode(), err.decode(), time.monotonic() - self._started)


def descendants(pid: int) -> Iterator[int]:
    """``pid`` and every living process below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from descendants(int(child))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@contextmanager
def town(directory: Path, ledger: str = "none", forks: bool = True) -> Iterator[Town]:
    """A town whose peers all end with the block."""
    place = Town(directory, ledger, forks)
    try:
        yield place
    finally:
        place.close()


def wait_s(seconds: float) -> None:
    """Let real time pass up to a random moment of a schedule: what happens meanwhile is the test."""
    select.select([], [], [], seconds)
