"""``cocoon doctor`` and ``cocoon config``: what stands between this machine and a working peer.

Each check tells what it saw and, if that is a problem, what to do. A check
that cannot be made says so; none guesses. The exit code is that of the first
failed check.

Purity: shell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, shown
from cocoon.core import limits
from cocoon.core.errors import (
    CocoonError,
    Corrupt,
    LaxPermissions,
    NoLocalPeer,
    StorageFull,
    Unavailable,
    UsageError,
)
from cocoon.core.units import format_bytes
from cocoon.core.values import Value

_OLDEST, _NEWEST = (3, 11), (3, 13)
#: A wall clock before this is not set: the first release is younger (seconds since 1970).
_FIRST_RELEASE_S = 1_764_547_200
_CLOCK_SLACK_S = 60
_CONNECT_S = 2.0
_SECRETS = ("keys/peer.key", "keys/hpke.key", "keys/wallet.words", "control.json")


class Finding(Value):
    """What one check saw: ``ok``, ``warn`` (works, but) or ``fail`` with the error it would become."""

    check: str
    state: str
    text: str
    remedy: str = ""
    error: CocoonError | None = None


def _ok(check: str, text: str) -> Finding:
    return Finding(check, "ok", text)


def _warn(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, "warn", text, remedy)


def _fail(check: str, error: CocoonError, remedy: str = "") -> Finding:
    return Finding(check, "fail", error.text, remedy or error.remedy, error)


@click.command()
@common
def doctor(home: str | None, printer: Printer) -> int:
    """Check this machine and its peer, and say what to do."""
    from cocoon.sdk.home import checked_home

    folder = checked_home(home)
    findings: list[Finding] = []
    for finding in examine(folder):
        findings.append(finding)
        printer.item({
            "check": finding.check, "state": finding.state, "text": finding.text, "remedy": finding.remedy,
        })
        printer.line(f"{finding.state:<5} {finding.check:<12} {finding.text}")
        if finding.remedy:
            printer.line(f"{'':<18} {finding.remedy}")
    counts = {state: sum(f.state == state for f in findings) for state in ("ok", "warn", "fail")}
    failed = next((finding.error for finding in findings if finding.error is not None), None)
    return printer.end(counts, failed)


def examine(home: Path) -> Iterator[Finding]:
    """All checks in order; those of the running peer only if there is one."""
    plain: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _python, _platform, _permissions, _disk, _clock, _descriptors, _settings,
    )
    for check in plain:
        yield from check(home)
    yield from _peer(home)


def _python(home: Path) -> Iterator[Finding]:
    found = sys.version_info[:2]
    text = f"Python {sys.version.split()[0]}"
    if _OLDEST <= found <= _NEWEST:
        yield _ok("python", text)
    else:
        yield _fail("python", UsageError(f"{text} is outside 3.11 to 3.13"), "use python3.11 to 3.13")


def _platform(home: Path) -> Iterator[Finding]:
    import platform

    text = f"{platform.system()} {platform.machine()}"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        yield _ok("platform", text)
    else:
        yield _warn("platform", text, "supported as requester and as provider on the CPU")


def _permissions(home: Path) -> Iterator[Finding]:
    if not home.exists():
        yield _warn("home", f"{home} does not exist yet", "`cocoon up` makes it")
        return
    if not home.is_dir():
        yield _fail("home", UsageError(f"{home} is no directory"), "set COCOON_HOME to a directory")
        return
    for path, wanted in [(home, 0o700), *((home / name, 0o600) for name in _SECRETS)]:
        if not path.exists():
            continue
        status = path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            mode = f"{status.st_mode & 0o7777:04o}"
            expected = f"{os.geteuid()} and {wanted:04o}"
            text = f"{path} has owner {status.st_uid} and mode {mode}, expected {expected}"
            yield _fail("home", LaxPermissions(text))
            return
    yield _ok("home", f"{home} belongs to this user alone")


def _disk(home: Path) -> Iterator[Finding]:
    import shutil

    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    text = f"{format_bytes(free_bytes)} free"
    if free_bytes < limits.JOURNAL_RESERVE_BYTES * 2:
        yield _fail("disk", StorageFull(f"only {text} on the disk of {home}"))
    elif free_bytes < limits.DISK_LOW_BYTES:
        yield _warn("disk", text, f"keep {format_bytes(limits.DISK_LOW_BYTES)} for journal and models")
    else:
        yield _ok("disk", text)


def _clock(home: Path) -> Iterator[Finding]:
    import time

    now_s = time.time()
    newest_s = max((path.stat().st_mtime for path in _entries(home)), default=0.0)
    if now_s < _FIRST_RELEASE_S:
        yield _fail("clock", Unavailable("the clock of this machine is not set"), "set the date")
    elif newest_s > now_s + _CLOCK_SLACK_S:
        ahead_s = int(newest_s - now_s)
        yield _warn("clock", f"a file in {home} is {ahead_s} s ahead of now", "the clock went back; check it")
    else:
        yield _ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s)))


def _entries(home: Path) -> list[Path]:
    try:
        return [path for path in home.iterdir() if path.is_file()]
    except OSError:
        return []


def _descriptors(home: Path) -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limits.DESCRIPTORS_LOW:
        remedy = f"ulimit -n {limits.DESCRIPTORS_LOW} (hard limit {hard})"
        yield _warn("descriptors", f"at most {soft} open files", remedy)
    else:
        yield _ok("descriptors", f"at most {soft} open files")


def _settings(home: Path) -> Iterator[Finding]:
    from cocoon.node.settings import load

    try:
        resolved = load(flags={"home": str(home)})
    except CocoonError as error:
        yield _fail("config", error)
        return
    given = sum(origin.kind != "default" for origin in resolved.origins.values())
    yield _ok("config", f"{given} settings given, the rest are defaults")


def _peer(home: Path) -> Iterator[Finding]:
    from cocoon.sdk import connect

    try:
        status = connect(home).status()
    except NoLocalPeer as error:
        yield _warn("peer", error.text, error.remedy)
        yield from _ports_free(home)
        return
    except CocoonError as error:
        yield _fail("peer", error)
        return
    yield _ok("peer", f"{shown(status.get('peer', 'running'))}")
    yield from _ports_open(status)
    yield from _joined(status)
    yield from _device(status)


def _ports_free(home: Path) -> Iterator[Finding]:
    """Without a peer: can each configured port be taken?"""
    import socket

    from cocoon.node.settings import load

    try:
        listen = load(flags={"home": str(home)}).settings.listen
    except CocoonError:
        return  # told by the check of the settings
    for address in listen:
        if (place := tcp_address(address)) is None:
            continue
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                text = f"{address} cannot be listened on: {error.strerror}"
                yield _fail("port", UsageError(text), "choose another address with --listen")
                return
    yield _ok("port", f"free: {', '.join(listen)}")


def _ports_open(status: dict[str, Any]) -> Iterator[Finding]:
    """With a peer: does something answer where it says it listens?"""
    import socket

    addresses = [text for text in _texts(status.get("addresses")) if tcp_address(text)]
    for address in addresses:
        place = tcp_address(address)
        try:
            if place is not None:
                socket.create_connection(place, timeout=_CONNECT_S).close()
        except OSError as error:
            text = f"{address} does not answer: {error.strerror or error}"
            yield _fail("port", Unavailable(text), "check firewall and --listen")
            return
    if addresses:
        yield _ok("port", f"answers: {', '.join(addresses)}")
    else:
        yield _warn("port", "the peer names no TCP address", "others cannot dial it; see --listen")


def _joined(status: dict[str, Any]) -> Iterator[Finding]:
    connections = status.get("connections", 0)
    count = connections if isinstance(connections, int) else len(connections)
    if count:
        yield _ok("peers", f"connected to {count}")
    else:
        yield _warn("peers", "connected to nobody", "cocoon up --join LINK, or give your link to others")


def _device(status: dict[str, Any]) -> Iterator[Finding]:
    device = status.get("device")
    if not status.get("sells") or not device:
        yield _ok("device", "not asked: this peer sells nothing")
    elif isinstance(device, dict) and not device.get("provider"):
        yield _fail("device", Corrupt(f"the worker reported no execution provider: {shown(device)}"))
    else:
        yield _ok("device", shown(device))


def tcp_address(multiaddress: str) -> tuple[str, int] | None:
    """(host, port) of ``/ip4|ip6/HOST/tcp/PORT...``; None for anything else."""
    match multiaddress.split("/"):
        case ["", "ip4" | "ip6", host, "tcp", port, *_] if port.isdecimal() and int(port) < 1 << 16:
            return host, int(port)
    return None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@common
def show(origin: bool, home: str | None, printer: Printer) -> None:
    """Print every setting: defaults, config.toml, environment, flags."""
    from cocoon.config.settings import SETTINGS
    from cocoon.node.settings import load

    resolved = load(flags={"home": home} if home else None)
    rows = []
    for name, setting in SETTINGS.items():
        value = getattr(resolved.settings, name)
        where = str(resolved.origins[name])
        item = {"name": name, "value": value} | ({"origin": where} if origin else {})
        printer.item(item | {"env": setting.env, "doc": setting.rule.doc})
        rows.append([name, shown(value), where] if origin else [name, shown(value)])
    printer.table(["name", "value", "origin"] if origin else ["name", "value"], rows)
    printer.summary({"settings": len(rows)})
