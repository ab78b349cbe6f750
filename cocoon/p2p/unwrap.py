"""One typed error instead of the exception groups that nurseries make of it.

Purity: pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cocoon.core.errors import CocoonError


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, however deep; the exception itself if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The leaf that matters: ours before others; None if all of it is cancellation (no ``Exception``)."""
    found = [e for e in leaves(group) if isinstance(e, Exception)]
    ours = [e for e in found if isinstance(e, CocoonError)]
    return (ours or found or [None])[0]


@contextmanager
def single_error() -> Iterator[None]:
    """Raise the one cause of a group that leaves the block; cancellations pass untouched."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = cause(group)
        if found is None:
            raise
        raise found from found.__cause__
