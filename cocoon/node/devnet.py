"""The founder's devnet: a chain in a child process, started before the peer and ended after it.

The child is ``cocoon devnet`` on a folder of the home; it ends with its parent
even if that is killed. One that dies is started again on the same folder: to
its clients that is a liteserver that was away for a moment.

Purity: shell. Spec: docs/spec/devnet.md, docs/spec/network.md, rule NET-6.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from cocoon.config.network import ChainFacts, parse_liteserver
from cocoon.core.errors import BadLink, DevnetLost
from cocoon.core.limits import DEVNET_CLAIM_MARGIN_S, DEVNET_CLOSE_DELAY_S, DEVNET_RESTART_NS, DEVNET_START_NS
from cocoon.core.units import KIB, SECOND_NS
from cocoon.core.values import Value
from cocoon.telemetry.log import Log

DEVNET_DIR = "devnet"
_LOOPBACK = "127.0.0.1"
#: Names no address that a link could carry.
_ANYWHERE = "0.0.0.0"
_FIRST_LINE_BYTES = 4 * KIB
_LAST_WORDS_BYTES = 2 * KIB
_END_S = 10.0
"""From SIGTERM to the end; it has nothing to finish but one commit."""


class Devnet(Value):
    """A devnet that answers: its chain, and where."""

    chain: ChainFacts
    liteserver: str


class DevnetProcess:
    """One devnet child at a time; see ``running_devnet``."""

    def __init__(self, folder: Path, block_ms: int, host: str, remembered: str | None) -> None:
        self._folder = folder
        self._block_ms = block_ms
        self._listen = f"{host}:{_port_of(host, remembered)}"
        self._child: subprocess.Popen[bytes] | None = None
        self.facts = self._start()

    async def keep(self, log: Log) -> None:
        """Start the child again whenever it ends; until cancelled."""
        while True:
            if (child := self._child) is not None:
                status = await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True)  # type: ignore[call-arg]
                log.warning("devnet_ended", exit_status=status)
            await trio.sleep(DEVNET_RESTART_NS / SECOND_NS)
            try:
                await trio.to_thread.run_sync(self._start)
            except DevnetLost as error:
                log.warning("devnet_not_started", code=error.code, text=error.text)

    def close(self) -> None:
        """End the child, if there is one."""
        if (child := self._child) is None:
            return
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
        self._child = None

    def _start(self) -> Devnet:
        self.close()                                    # what is left of the one before
        try:
            self._child = child = self._spawn()
            facts = _facts(self._first_line(child))
        except OSError as error:
            self.close()
            raise DevnetLost(f"the devnet cannot be started: {error.strerror or type(error).__name__}") from None
        except DevnetLost:
            self.close()
            raise
        self._listen = facts.liteserver.rpartition(":")[0]
        return facts

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        errors = self._folder / "stderr"
        with errors.open("wb") as error_file:
            return subprocess.Popen(
                [sys.executable, "-m", "cocoon", "devnet", "--state", str(self._folder), "--listen", self._listen,
                 "--block-ms", str(self._block_ms), "--with-parent", str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=error_file,
                # Ctrl-C of a terminal is for the peer, which ends the devnet last.
                start_new_session=True,
            )

    def _first_line(self, child: subprocess.Popen[bytes]) -> bytes:
        """What the child says once it answers."""
        assert child.stdout is not None
        handle, line = child.stdout.fileno(), b""
        deadline_ns = time.monotonic_ns() + DEVNET_START_NS
        while b"\nready\n" not in line and len(line) < _FIRST_LINE_BYTES:
            left_s = (deadline_ns - time.monotonic_ns()) / SECOND_NS
            if left_s <= 0 or not select.select([handle], [], [], left_s)[0]:
                raise DevnetLost(f"the devnet was not ready within {DEVNET_START_NS // SECOND_NS} s")
            data = os.read(handle, _FIRST_LINE_BYTES)
            if not data:
                raise DevnetLost(f"the devnet ended with status {child.wait()}{self._last_words()}")
            line += data
        return line.partition(b"\n")[0]

    def _last_words(self) -> str:
        lines = (self._folder / "stderr").read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1]}" if said else ""


@contextmanager
def running_devnet(
    home: Path, block_ms: int, listen: Sequence[str] = (), remembered: str | None = None
) -> Iterator[DevnetProcess]:
    """A devnet on ``home`` until the block ends.

    Args:
        block_ms: Time between blocks, milliseconds.
        listen: Multiaddresses of the peer; the devnet listens at the first that names an IPv4 address.
        remembered: The liteserver of last time; its port is taken again if it is free.

    Raises:
        DevnetLost: it did not come up; the text has its last words.
    """
    process = DevnetProcess(home / DEVNET_DIR, block_ms, _host_of(listen), remembered)
    try:
        yield process
    finally:
        process.close()


def has_devnet(home: Path) -> bool:
    """Whether this home founded a network with a devnet."""
    return (home / DEVNET_DIR).is_dir()


def _facts(line: bytes) -> Devnet:
    try:
        said = json.loads(line)
        server, genesis, faucet = said["liteserver"], bytes.fromhex(said["genesis"]), bytes.fromhex(said["faucet"])
        parse_liteserver(server)
        chain = ChainFacts(genesis, DEVNET_CLOSE_DELAY_S, DEVNET_CLAIM_MARGIN_S, faucet=faucet)
    except (ValueError, KeyError, TypeError, AttributeError, BadLink):
        raise DevnetLost(f"the devnet said {ascii(line[:80])} and not where it is") from None
    return Devnet(chain, server)


def _host_of(listen: Sequence[str]) -> str:
    """Where others reach this machine, as far as the peer's own addresses say; else this machine alone."""
    for address in listen:
        _, kind, host, *_ = address.split("/")
        if kind == "ip4" and host != _ANYWHERE:
            return host
    return _LOOPBACK


def _port_of(host: str, remembered: str | None) -> int:
    """The port of last time, if it can be bound now; else 0, for any."""
    if remembered is None:
        return 0
    port = parse_liteserver(remembered).port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
    return port
