"""Calls that can be ended from elsewhere, for streams whose own close leaves a local reader asleep.

Purity: shell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from cocoon.core.errors import StreamClosed

T = TypeVar("T")
_GIVEN_UP = "the stream is given up"


class Waits:
    """What waits on one stream."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._scopes: set[trio.CancelScope] = set()
        self._ended = False

    def end(self) -> None:
        """End what waits, and what would wait from now on."""
        self._ended = True
        for scope in list(self._scopes):
            scope.cancel()

    async def until(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` returns.

        Raises:
            StreamClosed: it was ended first.
        """
        if self._ended:
            raise StreamClosed(_GIVEN_UP)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await call()
            finally:
                self._scopes.discard(scope)
        raise StreamClosed(_GIVEN_UP)
