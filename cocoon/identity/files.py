"""Private directories and files: 0700 and 0600, whatever the umask says; whole or not there at all.

Everybody who keeps a file in COCOON_HOME keeps it through here.

Purity: shell. Spec: docs/spec/identity.md, rules IDY-1 and IDY-2; docs/spec/store.md, rule STO-12.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cocoon.core.errors import Corrupt, LaxPermissions, StorageFull, Unavailable

_DIR_MODE = 0o700
_FILE_MODE = 0o600
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the operating system says when a disk or a quota is used up.
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


def private_dir(path: Path) -> Path:
    """Make ``path`` with mode 0700, or check one that is there.

    Raises:
        LaxPermissions: group or others have any right on it, or another user owns it.
        Unavailable: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _make_dir(path):
            sync_dir(path.parent)
    except OSError as error:
        raise unavailable(f"cannot make {path}", error) from error
    if not path.is_dir():
        raise Unavailable(f"{path} is no directory")
    check_private(path, os.stat(path))
    return path


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuse a file or directory that somebody else may use.

    Raises:
        LaxPermissions: foreign owner, or rights for group or others.
    """
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise LaxPermissions(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if mode & 0o077:
        wanted = _DIR_MODE if stat.S_ISDIR(status.st_mode) else _FILE_MODE
        raise LaxPermissions(f"{path} has mode {mode:04o}, wanted {wanted:04o}")


def create_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600 that is complete or not there at all.

    Raises:
        FileExistsError: ``path`` exists; it is left as it is.
        StorageFull, Unavailable: the disk cannot take it.
    """
    draft = write_draft(path, data)
    try:
        # link, not rename: a key that is already there must never be overwritten.
        os.link(draft, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        raise unavailable(f"cannot write {path}", error) from error
    finally:
        draft.unlink(missing_ok=True)
    sync_dir(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Replace the content of ``path``, durably; a crash leaves the old or the new one.

    Raises:
        StorageFull, Unavailable: the disk refuses; the old content stays.
    """
    draft = write_draft(path, data)
    try:
        os.replace(draft, path)
        sync_dir(path.parent)
    except OSError as error:
        raise unavailable(f"cannot write {path}", error) from error
    finally:
        draft.unlink(missing_ok=True)


def touch_private(path: Path) -> int:
    """Open ``path`` for reading and writing, made with mode 0600 if missing; the descriptor is the caller's.

    Raises:
        StorageFull, Unavailable: it cannot be made or opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    except OSError as error:
        raise unavailable(f"cannot open {path}", error) from error


def write_draft(path: Path, data: bytes) -> Path:
    """Write ``data`` durably beside ``path`` under a name of its own, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.unlink(missing_ok=True)
        handle = os.open(draft, _NEW_FILE, _FILE_MODE)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), _FILE_MODE)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unavailable(f"cannot write {path}", error) from error
    return draft


def read_secret(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file that only we may read.

    Args:
        max_bytes: A larger file is refused before it is read.

    Raises:
        FileNotFoundError: there is none.
        LaxPermissions: rights for group or others, foreign owner.
        Corrupt: no regular file, a symbolic link, or too large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Corrupt(f"{path} is a symbolic link") from error
        raise unavailable(f"cannot read {path}", error) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise Corrupt(f"{path} is no regular file of at most {max_bytes} bytes")
        check_private(path, status)
        return os.read(handle, max_bytes)
    finally:
        os.close(handle)


def sync_dir(path: Path) -> None:
    """Make a creation, rename or removal inside ``path`` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unavailable(what: str, error: OSError) -> Unavailable:
    """The typed form of an operating-system refusal; never holds file content."""
    text = f"{what}: {error.strerror or error.errno}"
    return StorageFull(text) if error.errno in FULL_ERRNOS else Unavailable(text)


def _make_dir(path: Path) -> bool:
    try:
        os.mkdir(path, _DIR_MODE)
    except FileExistsError:
        return False
    os.chmod(path, _DIR_MODE)  # the umask may have taken rights that we need
    return True
