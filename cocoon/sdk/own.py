"""A peer of an application's own: a process beside it, which begins and ends with a block.

It ends when the block does, and also when the application is killed: its standard
input is a pipe that only the application holds.

Purity: shell. Spec: docs/spec/control.md, rule CTL-25.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cocoon.core.errors import NoLocalPeer, from_code
from cocoon.core.limits import DRAIN_NS, OWN_PEER_END_NS, PEER_START_NS
from cocoon.core.units import KIB, MILLISECOND_NS, SECOND_NS
from cocoon.sdk.client import Client
from cocoon.sdk.home import checked_home

#: Of a peer that has not started, for the error.
_LAST_WORDS_CHARS = 400
_READ_BYTES = 64 * KIB


@contextmanager
def own_peer(
    home: str | os.PathLike[str] | None = None, *, join: str | None = None, provide: bool = False,
    **settings: str | int,
) -> Iterator[Client]:
    """Start a peer, and yield a client of it; it drains and ends with the block, or with this process.

    Args:
        home: Its state directory, with its keys and its coins; None is COCOON_HOME.
        join: A ``cocoon://join/...`` link; None stays in the home's network, or founds one.
        provide: Sell runs too.
        settings: By name, as in docs/reference/config.md.

    Raises:
        HomeInUse: a peer runs there already; ``connect`` speaks to it.
        NoLocalPeer: it did not start, or not in time.
        CocoonError: why it did not start.
    """
    where = checked_home(home)
    more = [*(["--join", join] if join is not None else []), *(["--provide"] if provide else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "cocoon", "up", "--json", "--attached", *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment(where, settings),
        start_new_session=True,                         # Ctrl-C of a terminal is the application's; it ends the block
    )
    try:
        _await_ready(process, time.monotonic_ns() + PEER_START_NS)
        yield Client(where)
    finally:
        _end(process)


def _environment(home: Path, settings: Mapping[str, str | int]) -> dict[str, str]:
    given = {
        f"COCOON_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
    return {**os.environ, **given, "COCOON_HOME": str(home)}


def _await_ready(process: subprocess.Popen[bytes], until_ns: int) -> None:
    """Return when the peer says that it is ready; nobody reads what it says later."""
    assert process.stdout is not None
    with process.stdout as said:
        words = b""
        while time.monotonic_ns() < until_ns and (data := _read(said.fileno(), until_ns)):
            words += data
            for line in words.splitlines():
                _heed(line)
                if _object(line).get("event") == "ready":
                    return
        why = "was not ready in time" if process.poll() is None else f"ended with exit code {process.returncode}"
        raise NoLocalPeer(f"the application's own peer {why}: {words[-_LAST_WORDS_CHARS:].decode(errors='replace')}")


def _heed(line: bytes) -> None:
    """Raise the error that ended the peer, if this line tells it."""
    match _object(line).get("error"):
        case {"code": str(code), "text": str(text)}:
            raise from_code(code, text)


def _object(line: bytes) -> dict[str, Any]:
    """What a line of the peer says; a warning of some library says nothing."""
    with suppress(ValueError):
        if isinstance(value := json.loads(line), dict):
            return value
    return {}


def _read(descriptor: int, until_ns: int) -> bytes:
    """What comes next; nothing at the end, or if nothing comes until then."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    left_ns = max(until_ns - time.monotonic_ns(), 0)
    return os.read(descriptor, _READ_BYTES) if poll.poll(left_ns // MILLISECOND_NS) else b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it drain; kill it, and what it started, if that takes too long."""
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait((DRAIN_NS + OWN_PEER_END_NS) / SECOND_NS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)          # the leader of its group, and not reaped yet
        process.wait()
