"""What makes a start cheaper: optional parts of libraries left out, and no garbage collected among modules.

Purity: shell (changes the import system, or the collector, while a block lasts).
"""

from __future__ import annotations

import gc
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


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away from what is imported inside, now and later.

    A thousand modules are no garbage, but the collector would walk them again and again: a tenth of a peer's start, and
    25 ms of each full collection afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
