"""Commands without their second of imports: forked from a process that has done nothing but import.

``fork`` gives a process like any other, with an environment, a working directory,
descriptors and signals of its own; it runs the ``main`` of a module and ends as the
interpreter does. It does not show a start of Python: tests/unit/cli, tests/oracle
and the demonstrations begin with one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_ORDER_BYTES = 1 << 20
#: Far above what a start of Python and its imports take.
_PATIENCE_S = 60.0
_PR_SET_PDEATHSIG = 1
#: What each fork server imports: not numpy, which no peer loads; TON's virtual machine for devnets alone.
_PRELOADED = {
    "peer": ("cocoon.cli.main", "cocoon.node.main", "cocoon.node.peer", "cocoon.ledger.liteserver", "cocoon.sdk"),
    "devnet": ("cocoon.cli.main", "cocoon.devnet.command"),
}
_REPOSITORY = Path(__file__).resolve().parents[1]


class Forked:
    """A child of a fork server, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(
        self, arguments: Sequence[str], pid: int, end: int, stdin: IO[bytes] | None, stdout: IO[bytes],
        stderr: IO[bytes] | None,
    ) -> None:
        self.arguments = arguments
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._end: IO[bytes] = open(end, "rb", buffering=0)
        self._said = {stream: b"" for stream in (stdout, stderr) if stream is not None}

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None as long as it runs."""
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            word = self._end.read()
            self._end.close()
            assert word, f"the fork server of process {self.pid} is gone"
            self.returncode = int(word)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            select.select([self._end], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """All of its standard output and error, once it has ended."""
        late = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if late is None else max(0.0, late - time.monotonic())

        while reading := [stream for stream in self._said if not stream.closed]:
            ready, _, _ = select.select(reading, [], [], left())
            if not ready:
                raise subprocess.TimeoutExpired(self.arguments, timeout or 0.0)
            for stream in ready:
                data = os.read(stream.fileno(), 65_536)
                self._said[stream] += data
                if not data:
                    stream.close()
        self.wait(left())
        out, err = (b"" if stream is None else self._said[stream] for stream in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """To the process, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def fork(
    root: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, *,
    asks: bool = False, errors: int | None = None, preloaded: str = "peer",
) -> Forked:
    """Run ``main(arguments)`` of the module ``root`` in a new process.

    Args:
        asks: Its standard input is a pipe; else it is empty.
        errors: A descriptor for its standard error; None makes a pipe of it, as standard output always is.
        preloaded: What it need not import: ``_PRELOADED``.
    """
    order = json.dumps([root, list(arguments), dict(environment), str(directory)]).encode()
    read, ask = os.pipe() if asks else (os.open(os.devnull, os.O_RDONLY), None)
    out, out_write = os.pipe()
    err, err_write = os.pipe() if errors is None else (None, os.dup(errors))
    end, end_write = os.pipe()
    theirs = [read, out_write, err_write, end_write]
    try:
        pid = _server(preloaded).spawn(order, theirs)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Forked(
        arguments, pid, end, None if ask is None else open(ask, "wb", buffering=0), open(out, "rb"),
        None if err is None else open(err, "rb"),
    )


class ForkServer:
    """The process that has imported, and the line to it; it ends with us."""

    def __init__(self, preloaded: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line = ours
        self._line.settimeout(_PATIENCE_S)
        self._turn = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno()), preloaded], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd=_REPOSITORY,
            )
        atexit.register(self.close)

    def spawn(self, order: bytes, descriptors: Sequence[int]) -> int:
        """The process id of a new child; its descriptors are copies."""
        with self._turn:
            socket.send_fds(self._line, [order], descriptors)
            pid = self._line.recv(32)
        assert pid, "the fork server is gone; what it said is on standard error"
        return int(pid)

    def close(self) -> None:
        """Let it end, and reap it."""
        self._line.close()
        self._process.wait(_PATIENCE_S)


@functools.cache
def _server(preloaded: str) -> ForkServer:
    """One of each kind for a process of tests, started when it is first needed."""
    return ForkServer(preloaded)


def serve(line: socket.socket) -> tuple[str, list[str]] | None:
    """Fork children until the line closes (None); in a child, what it is to run."""
    wake, wake_write = os.pipe()
    for descriptor in (wake, wake_write):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([line, wake], [], [])
        if wake in ready:
            os.read(wake, 4_096)
            reap(ends)
        if line not in ready:
            continue
        order, received, _, _ = socket.recv_fds(line, _ORDER_BYTES, 4)
        if not order:
            return None
        *standard, end = received
        if (pid := os.fork()) == 0:
            for descriptor in (line.detach(), wake, wake_write, end, *ends.values()):
                os.close(descriptor)
            return become(order, standard)
        ends[pid] = end
        for descriptor in standard:
            os.close(descriptor)
        line.send(str(pid).encode())


def reap(ends: dict[int, int]) -> None:
    """Reap who has ended, and tell how."""
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = ends.pop(pid)
        with contextlib.suppress(BrokenPipeError):      # nobody waits for it any more
            os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(end)


def become(order: bytes, standard: Sequence[int]) -> tuple[str, list[str]]:
    """Make this process the one that was ordered."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)     # tests that are killed leave nobody behind
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    root, arguments, environment, directory = json.loads(order)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = [root, *arguments]
    return root, arguments


def main(descriptor: int, preloaded: str) -> int:
    """The server's own life, and in a child the child's."""
    from cocoon.core.imports import uncollected

    with uncollected():
        for module in _PRELOADED[preloaded]:
            importlib.import_module(module)
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
    order = serve(socket.socket(fileno=descriptor))
    if order is None:
        return 0
    root, arguments = order
    code: int = importlib.import_module(root).main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
