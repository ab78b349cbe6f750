"""Find the peer that runs on this machine: COCOON_HOME and its control.json.

The file names a Unix socket, a token and a process. It is trusted only if it is
a regular file of this user that nobody else may read or write, and only while
the named process lives.

Purity: shell. Spec: docs/spec/control.md, rules CTL-1 and CTL-2.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from cocoon.core import limits
from cocoon.core.errors import LaxPermissions, NoLocalPeer, UsageError

CONTROL_FILE = "control.json"
_TOKEN_CHARS = 512
_PATH_CHARS = 1_024


@dataclass(frozen=True, slots=True)
class Contact:
    """How to reach the local peer; the token is a secret and never shown."""

    path: str
    token: str = field(repr=False)
    pid: int


def default_home() -> Path:
    """COCOON_HOME, else ``cocoon`` in the user's data directory; the same rule as ``config.service``."""
    if given := os.environ.get("COCOON_HOME"):
        return Path(given).expanduser().absolute()
    return platformdirs.user_data_path("cocoon", appauthor=False)


def find_peer(home: Path) -> Contact:
    """Read and check ``home``/control.json (CTL-1).

    Raises:
        NoLocalPeer: no such file, or its process is gone.
        LaxPermissions: somebody else could read or write it, or owns it.
    """
    path = home / CONTROL_FILE
    contact = _parse(_read_private(path), path)
    try:
        os.kill(contact.pid, 0)
    except (ProcessLookupError, PermissionError, OverflowError):
        raise NoLocalPeer(f"{path} is stale: process {contact.pid} is not a peer of this user") from None
    return contact


def _read_private(path: Path) -> bytes:
    try:
        # NONBLOCK: a fifo of that name must not hold the caller for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NoLocalPeer(f"no peer runs on {path.parent}: there is no {path.name}") from None
    except OSError as error:
        raise NoLocalPeer(f"{path} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NoLocalPeer(f"{path} is no regular file")
        if status.st_uid != os.geteuid():
            raise LaxPermissions(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o077:
            raise LaxPermissions(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, expected 0600")
        return os.read(handle, limits.CONTROL_FILE_BYTES + 1)
    finally:
        os.close(handle)


def _parse(data: bytes, path: Path) -> Contact:
    try:
        value: Any = json.loads(data) if len(data) <= limits.CONTROL_FILE_BYTES else None
    except (ValueError, RecursionError):
        value = None
    match value:
        case {"path": str(where), "token": str(token), "pid": int(pid)} if (
            0 < len(where) <= _PATH_CHARS and "\0" not in where and 0 < len(token) <= _TOKEN_CHARS and pid > 0
        ):
            return Contact(path=str(path.parent / where), token=token, pid=pid)
    raise NoLocalPeer(f"{path} is no control file; the peer that wrote it is not running properly")


def checked_home(home: str | os.PathLike[str] | None) -> Path:
    """The directory of a caller's argument, or the default one."""
    if home is None:
        return default_home()
    text = os.fspath(home)
    if not text:
        raise UsageError("the home directory is an empty text")
    return Path(text).expanduser().absolute()
