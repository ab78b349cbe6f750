"""Optional parts of libraries that cost every start and that nobody here uses.

Purity: shell (changes the import system while a block lasts).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(package: str) -> Iterator[None]:
    """Let what is imported inside find no ``package``, as if it were not installed; one that is loaded stays so."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]     # how an import is refused
    try:
        yield
    finally:
        del sys.modules[package]
