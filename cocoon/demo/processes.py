"""The demonstration's peers: separate processes, started by command line, always ended.

Each peer has its own COCOON_HOME in one temporary directory and shares nothing
with the others but the join link. Whatever happens in between (an error,
Ctrl-C, SIGTERM, a closed terminal), ``crew`` ends every process it started and
removes the directory.

Purity: shell (processes, threads, files).
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cocoon.demo.errors import PeerNotStarted
from cocoon.demo.interrupts import Interrupts

READY_S = 60.0
"""From start to `ready`: 3 s is the goal, a cold disk and busy cores take several times that."""
DRAIN_S = 15.0
"""From SIGTERM to the end: a peer drains for 10 s at most; then SIGKILL."""
KILLED_S = 5.0
"""The kernel ends a killed process at once, unless its disk hangs."""
POLL_S = 0.02
"""Between two looks at ending peers."""
LINE_BYTES = 64 * 1024
LINES = 1_000
"""Lines kept of a peer's standard output; a peer prints two."""
LAST_WORDS_BYTES = 2_000

_LINK = re.compile(r"cocoon://join/\S+")
_READY = re.compile(r"ready\b")


@dataclass(slots=True)
class Peer:
    """One running peer. ``home`` is its COCOON_HOME."""

    name: str
    home: Path
    process: subprocess.Popen[bytes]
    errors: Path
    started_s: float
    lines: queue.Queue[str | None] = field(default_factory=lambda: queue.Queue(LINES))

    @property
    def pid(self) -> int:
        """The process id; its process group has the same number."""
        return self.process.pid


class Crew:
    """The peers of one demonstration, in the order of their start."""

    def __init__(self, directory: Path, interrupts: Interrupts, command: Sequence[str]) -> None:
        self._directory = directory
        self._interrupts = interrupts
        self._command = tuple(command)
        self.peers: list[Peer] = []

    def start(self, name: str, *arguments: str, **settings: str) -> Peer:
        """Start ``cocoon ARGUMENTS`` with the home called ``name``, of a killed peer or new; it is not ready yet.

        Args:
            settings: Environment variables for this peer alone.
        """
        home = self._directory / name
        home.mkdir(mode=0o700, exist_ok=True)
        errors = self._directory / f"{name}.err"
        with errors.open("ab") as error_file, self._interrupts.hold():
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=error_file,
                env={**environment(home), **settings},
                # A group of its own: Ctrl-C of the terminal reaches only us, and we end the peers in order.
                start_new_session=True,
            )
            peer = Peer(name, home, process, errors, time.monotonic())
            self.peers.append(peer)
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(process.stdout, peer.lines), daemon=True).start()
        return peer

    def kill(self, peer: Peer) -> None:
        """SIGKILL ``peer`` and everything it started, as a power cut would; its home stays."""
        with self._interrupts.hold():
            self.peers.remove(peer)
            _reap(peer)

    def wait_link(self, peer: Peer) -> str:
        """The join link that ``peer`` prints."""
        return self._wait(peer, _LINK, "join link")

    def wait_ready(self, peer: Peer) -> float:
        """Seconds from start until ``peer`` said that it is ready."""
        self._wait(peer, _READY, "`ready`")
        return time.monotonic() - peer.started_s

    def _wait(self, peer: Peer, wanted: re.Pattern[str], what: str) -> str:
        deadline_s = peer.started_s + READY_S
        while True:
            try:
                line = peer.lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise PeerNotStarted(
                    f"the {peer.name} printed no {what} within {READY_S:.0f} s{last_words(peer)}"
                ) from None
            if line is None:
                code = _reap(peer)
                raise PeerNotStarted(f"the {peer.name} ended with exit code {code}{last_words(peer)}")
            if found := wanted.search(line):
                return found.group()

    def close(self) -> dict[str, int | None]:
        """End every peer, the last started first; exit codes by name, None for one that outlived SIGKILL.

        SIGTERM to all, then SIGKILL to the group of each that does not end in
        time, or at once if the user insists. Calling it again is harmless.
        """
        with self._interrupts.hold():
            for peer in reversed(self.peers):
                if peer.process.returncode is None:
                    peer.process.send_signal(signal.SIGTERM)
            deadline_s = time.monotonic() + DRAIN_S
            while time.monotonic() < deadline_s and not self._interrupts.insisting:
                if all(_has_ended(peer) for peer in self.peers):
                    break
                time.sleep(POLL_S)
            return {peer.name: _reap(peer) for peer in self.peers}


@contextmanager
def crew(interrupts: Interrupts, command: Sequence[str] | None = None) -> Iterator[Crew]:
    """A place to start peers in; leaves no process and no file behind."""
    members: Crew | None = None
    try:
        with interrupts.hold():
            directory = Path(tempfile.mkdtemp(prefix="cocoon-demo-"))
            members = Crew(directory, interrupts, command or cocoon_command())
        try:
            yield members
        finally:
            members.close()
    finally:
        # Again: an interrupt may have come just before the first close; it is raised only once.
        if members is not None:
            members.close()
            shutil.rmtree(directory, ignore_errors=True)


def cocoon_command() -> list[str]:
    """The command line of this very installation, whatever PATH says."""
    return [sys.executable, "-m", "cocoon"]


def environment(home: Path) -> dict[str, str]:
    """This process's environment for a peer at ``home``; the user's own Cocoon settings stay out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COCOON_")}
    # Temporary files of a peer that has to be killed go when our own directory goes.
    return {**kept, "COCOON_HOME": str(home), "TMPDIR": str(home.parent)}


def last_words(peer: Peer) -> str:
    """The end of what a peer wrote on standard error, for a message; may be empty."""
    try:
        with peer.errors.open("rb") as file:
            file.seek(max(0, peer.errors.stat().st_size - LAST_WORDS_BYTES))
            text = file.read(LAST_WORDS_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"; its last words: {' | '.join(lines[-3:])}" if lines else ""


def _listen(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    """Pass lines on until the peer closes its output; drop them when nobody has read for long."""
    with stream:
        while raw := stream.readline(LINE_BYTES):
            try:
                lines.put_nowait(raw.decode("utf-8", "replace").rstrip())
            except queue.Full:
                pass  # the pipe must be emptied, or the peer would block on it
    # The end must get through: make room for it.
    while True:
        try:
            lines.put_nowait(None)
            return
        except queue.Full:
            try:
                lines.get_nowait()
            except queue.Empty:
                pass


def _has_ended(peer: Peer) -> bool:
    """Whether the peer's process is over; its id stays taken (not reaped) where the system can tell so."""
    if peer.process.returncode is None and hasattr(os, "waitid"):
        return os.waitid(os.P_PID, peer.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return peer.process.poll() is not None


def _reap(peer: Peer) -> int | None:
    """Kill what is left of the peer's group, then take its exit code.

    In this order: as long as the peer is not reaped, its number can belong to
    nobody else. A worker of a crashed peer is in the group too.
    """
    if peer.process.returncode is None:
        try:
            os.killpg(peer.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody but a zombie is in it (macOS says "not permitted" then)
    try:
        return peer.process.wait(KILLED_S)
    except subprocess.TimeoutExpired:
        return None
