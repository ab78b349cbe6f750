"""Which files a directory holds, and their first and last block.

The user points at any directory, so nothing in it is trusted: symbolic links
are not followed, pipes and devices are never opened, and a file that vanishes,
changes or refuses is reported and left out.

Purity: shell (reads the file system).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from cocoon.core.errors import NotFound, NothingToDo
from cocoon.demo.features import Edges

FILES = 10_000
"""Regular files of one demo; their tokens then take 41 MB."""
ENTRIES = 1_000_000
"""Directory entries looked at, so that a walk over a whole disk ends."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or directory that was left out, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Listing:
    """Regular files in order, and what was left out.

    ``skipped`` counts symbolic links, pipes, sockets and devices; ``cut`` says
    that there was more than a limit allows.
    """

    files: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    skipped: int = 0
    cut: bool = False


class FileRefused(Exception):
    """One file cannot be used; the text is the reason, for people."""


def list_files(root: str, *, most_files: int = FILES, most_entries: int = ENTRIES) -> Listing:
    """All regular files below ``root``, by name within each directory, directories in place.

    A ``root`` that is itself a regular file is a listing of one; a link named
    as ``root`` is followed, because the user named it.

    Raises:
        NotFound: there is no ``root``.
        NothingToDo: it holds no regular file.
    """
    try:
        mode = os.stat(root).st_mode
    except (OSError, ValueError) as error:
        raise NotFound(f"no directory {root!r}: {_reason(error)}") from error
    if stat.S_ISREG(mode):
        return Listing(files=[root])
    if not stat.S_ISDIR(mode):
        raise NothingToDo(f"{root!r} is neither a directory nor a regular file")
    listing = Listing()
    _walk(root, listing, most_files, most_entries)
    if not listing.files:
        left_out = len(listing.unreadable) + listing.skipped
        raise NothingToDo(f"{root!r} holds no readable regular file ({left_out} entries left out)")
    return listing


def _walk(root: str, listing: Listing, most_files: int, most_entries: int) -> None:
    """Fill ``listing`` in depth-first order, without recursion (paths may be deep)."""
    waiting: list[Iterator[os.DirEntry[str]]] = [iter(_entries(root, listing, most_entries))]
    seen = 0
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        seen += 1
        if seen > most_entries or len(listing.files) > most_files:
            break
        if _is(entry, listing, directory=True):
            waiting.append(iter(_entries(entry.path, listing, most_entries)))
        elif _is(entry, listing, directory=False):
            listing.files.append(entry.path)
        else:
            listing.skipped += 1
    listing.cut = listing.cut or bool(waiting) or len(listing.files) > most_files
    del listing.files[most_files:]


def _entries(path: str, listing: Listing, most: int) -> list[os.DirEntry[str]]:
    """The entries of one directory by name; an unreadable one is reported and empty."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(path) as scan:
            for entry in scan:
                if len(entries) == most:
                    listing.cut = True
                    break
                entries.append(entry)
    except OSError as error:
        listing.unreadable.append(Unreadable(path, _reason(error)))
    return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _is(entry: os.DirEntry[str], listing: Listing, *, directory: bool) -> bool:
    try:
        if directory:
            return entry.is_dir(follow_symlinks=False)
        return entry.is_file(follow_symlinks=False)
    except OSError as error:
        # Rare: a file system that tells no type and refuses to stat. It counts as skipped too.
        if not directory:
            listing.unreadable.append(Unreadable(entry.path, _reason(error)))
        return False


def read_edges(path: str, block_bytes: int) -> Edges:
    """Read the first and the last block of a regular file, and nothing else of it.

    Raises:
        FileRefused: it vanished, is no regular file any more, may not be read,
            or changed while it was read.
    """
    # Between listing and opening the name may have become anything: O_NOFOLLOW refuses a link,
    # O_NONBLOCK keeps the open of a pipe from waiting, and fstat then looks at what was opened.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise FileRefused(_reason(error)) from error
    try:
        return _read_open(descriptor, block_bytes)
    except OSError as error:
        raise FileRefused(_reason(error)) from error
    finally:
        os.close(descriptor)


def _read_open(descriptor: int, block_bytes: int) -> Edges:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise FileRefused("no regular file any more")
    size = before.st_size
    length = min(size, block_bytes)
    head = _read_at(descriptor, length, 0)
    tail = head if size <= block_bytes else _read_at(descriptor, length, size - length)
    after = os.fstat(descriptor)
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    if changed or len(head) != length or len(tail) != length:
        raise FileRefused("changed while it was read")
    return Edges(size, head, tail)


def _read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Up to ``length`` bytes at ``offset``; fewer only at the end of the file."""
    parts: list[bytes] = []
    missing = length
    while missing:
        part = os.pread(descriptor, missing, offset + length - missing)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    """Why the system refused, without the path (which the reader sees beside it)."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
