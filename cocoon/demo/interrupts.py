"""Ctrl-C and friends, held back while a process is being started or ended.

A KeyboardInterrupt between fork and the line that remembers the child would
leave an orphan; one in the middle of the cleanup would leave several. Inside
``hold`` a signal is only counted, and raised when the section ends. It is
raised once in all: after the first, everything is on its way out, and more of
them only say that the user insists.

Purity: shell (installs signal handlers).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts the signals that ask this process to end, and raises KeyboardInterrupt for the first.

    ``number`` is that first signal, once ``count`` is above 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self.number: int = signal.SIGINT
        self._held = 0
        self._raised = False

    @property
    def insisting(self) -> bool:
        """Whether a signal came on top of the one that was raised: the user cannot wait for the cleanup."""
        return self.count > self._raised

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the three signals over; what was ignored stays ignored (``nohup``, ``&`` in scripts)."""
        if threading.current_thread() is not threading.main_thread():
            yield  # handlers belong to the main thread; its owner decides what a signal does
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in taken:
            signal.signal(number, self._arrived)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, before[number] or signal.SIG_DFL)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Raise nothing inside; raise afterwards what arrived meanwhile."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_new()

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self.count:
            self.number = number
        self.count += 1
        self._raise_new()

    def _raise_new(self) -> None:
        if self.count and not self._held and not self._raised:
            self._raised = True
            raise KeyboardInterrupt
