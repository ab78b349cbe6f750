"""One at a time, without a pass of the event loop for who finds nobody before him.

``trio.Lock`` is a checkpoint even while it is free, and knows who holds it. On a path that
every message takes through several of them, these passes were a third of the time.

Purity: shell.
"""

from __future__ import annotations

from types import TracebackType

import trio


class Turn:
    """``async with``; in the order in which they came. What is done in it must yield now and then by itself."""

    def __init__(self) -> None:
        """Nobody's turn."""
        self._taken = False
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def taken(self) -> bool:
        """Whether it is somebody's."""
        return self._taken

    async def __aenter__(self) -> None:
        """Wait if it is another's turn."""
        if self._taken:
            await self._lot.park()                      # handed over: it was never free
        self._taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The next one's turn."""
        if self._lot:
            self._lot.unpark()
        else:
            self._taken = False
