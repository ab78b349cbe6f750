"""Private files: whole or not at all, mode 0600 in directories of mode 0700.

Purity: shell. Spec: docs/spec/store.md, rule STO-12.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cocoon.core.errors import LaxPermissions, StorageFull, Unavailable

#: What the operating system says when a disk or a quota is used up.
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def private_dir(path: Path) -> Path:
    """Make ``path`` with mode 0700, or check one that is there.

    Raises:
        LaxPermissions: rights for group or others, or a foreign owner.
        StorageFull, Unavailable: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.mkdir()
            path.chmod(0o700)  # whatever the umask took
            sync_dir(path.parent)
        status = path.stat()
    except OSError as error:
        raise typed(f"cannot make {path}", error) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise LaxPermissions(f"{path} has mode {status.st_mode & 0o7777:04o} and owner {status.st_uid}")
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace the content of ``path``, durably; a crash leaves the old or the new one.

    Raises:
        StorageFull, Unavailable: the disk refuses; the old content stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, _NEW_FILE, 0o600), "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)  # whatever the umask took
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
        sync_dir(path.parent)
    except OSError as error:
        raise typed(f"cannot write {path}", error) from error
    finally:
        draft.unlink(missing_ok=True)


def touch_private(path: Path) -> int:
    """Open ``path`` for reading and writing, made with mode 0600 if missing; the descriptor is the caller's.

    Raises:
        StorageFull, Unavailable: it cannot be made or opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise typed(f"cannot open {path}", error) from error


def sync_dir(path: Path) -> None:
    """Make a creation, rename or removal inside ``path`` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def typed(what: str, error: OSError) -> Unavailable:
    """The typed form of an operating-system refusal."""
    text = f"{what}: {error.strerror or error.errno}"
    return StorageFull(text) if error.errno in FULL_ERRNOS else Unavailable(text)
