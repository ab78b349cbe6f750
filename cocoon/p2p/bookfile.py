"""The address book on disk: one file, replaced atomically, 0600; a broken one is set aside.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-6.
"""

from __future__ import annotations

import os
from pathlib import Path

from cocoon.core.errors import Corrupt, StorageFull
from cocoon.core.limits import ADDRESS_BOOK_FILE_BYTES
from cocoon.p2p.book import AddressBook, pack_book, unpack_book


def load_book(path: Path) -> AddressBook:
    """The book at ``path``; an empty one if there is none or it is broken.

    A broken file is kept beside as ``<name>.broken``: addresses can be learnt
    again, so a peer does not refuse to start for them.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ADDRESS_BOOK_FILE_BYTES + 1)
    except FileNotFoundError:
        return AddressBook()
    try:
        return unpack_book(data)
    except Corrupt:
        path.replace(path.with_name(path.name + ".broken"))
        return AddressBook()


def save_book(book: AddressBook, path: Path) -> None:
    """Write the book so that a crash leaves the old or the new one, never half.

    Raises:
        StorageFull: the disk does not take it; the old file stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pack_book(book))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StorageFull(f"the address book cannot be written: {error.strerror}") from None
    book.changed = False
