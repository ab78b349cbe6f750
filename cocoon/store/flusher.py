"""The journal's own thread: it flushes to the disk what was written, and says how far that is done.

One flush covers everything that was written when it began, so a busy journal pays one
for many records. Rows that nobody waits for are flushed ``JOURNAL_LAG_NS`` later. It also
folds the write-ahead log into the file, and makes the reserve again after a full disk.

Purity: shell (thread, SQLite). Spec: docs/spec/store.md, rules STO-1, STO-2, STO-9 and STO-10.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cocoon.core.limits import JOURNAL_LAG_NS, JOURNAL_REFILL_NS
from cocoon.core.units import SECOND_NS
from cocoon.identity.files import sync_dir
from cocoon.store.writer import LOG_BYTES, fold

#: Its traceback is on stderr, where threading puts it.
_DEFECT = "the journal's thread ended by a defect"
#: Where a system has no ``fdatasync`` (macOS), the whole state of the file goes to the disk.
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Flusher:
    """Counts transactions: ``wrote`` and ``ask`` are for the loop, everything else runs in the thread."""

    def __init__(
        self,
        path: Path,
        flushed: Callable[[int], None],
        failed: Callable[[str], None],
        folded: Callable[[], None],
        refill: Callable[[sqlite3.Connection], bool],
        ended: Callable[[], None],
        on_flush: Callable[[], None] | None,
    ) -> None:
        """
        Args:
            flushed: Told up to which transaction all is on the disk.
            failed: Told why nothing will be any more.
            folded: Told that most of the log is in the file.
            refill: Tries to make the reserve again; whether the journal is still low.
            ended: Called at the very end.
            on_flush: Called before every flush.
        """
        self._path = path
        self._flushed = flushed
        self._failed = failed
        self._folded = folded
        self._refill = refill
        self._ended = ended
        self._on_flush = on_flush
        self._signal = threading.Condition()
        self._written = self._asked = self._done = 0
        self._log_bytes = self._folded_bytes = 0
        self._low = self._try_refill = self._stopping = False
        self._thread = threading.Thread(target=self._run, name="cocoon-journal", daemon=True)

    def start(self) -> None:
        """Begin; the file and its write-ahead log are there."""
        self._thread.start()

    def wrote(self, commits: int, log_bytes: int, *, low: bool) -> None:
        """So many transactions are written, and made the log longer by so much in all."""
        with self._signal:
            is_first = self._written == self._done or low and not self._low
            self._written, self._log_bytes, self._low = commits, log_bytes, low
            if is_first:
                self._signal.notify()

    def ask(self) -> None:
        """Somebody waits for all that is written."""
        with self._signal:
            if self._asked < self._written:
                self._asked = self._written
                self._signal.notify()

    def try_refill(self) -> None:
        """Try to make the reserve again now, not at the next turn."""
        with self._signal:
            self._try_refill = True
            self._signal.notify()

    def stop(self) -> None:
        """Flush what is written, then end."""
        with self._signal:
            self._stopping = True
            self._signal.notify()

    def join(self) -> None:
        """Wait until the thread has ended; call it after ``ended``."""
        self._thread.join()

    # --- the thread --------------------------------------------------------

    def _run(self) -> None:
        lawful = False
        try:
            log = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_dir(self._path.parent)             # the log is new, and SQLite flushes no file that we flush
                with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                    self._loop(log, connection)
            finally:
                os.close(log)
            lawful = True
        except OSError as error:
            self._failed(f"the journal cannot be flushed: {error}")
            lawful = True
        finally:
            if not lawful:
                self._failed(_DEFECT)
            self._ended()

    def _loop(self, log: int, connection: sqlite3.Connection) -> None:
        while (due := self._next()) is not None:
            if due > self._done:
                if self._on_flush is not None:
                    self._on_flush()
                _sync(log)
                with self._signal:
                    self._done = due
                self._flushed(due)
                self._fold(connection)
            elif self._low or self._try_refill:
                self._try_refill = False
                self._low = self._refill(connection)

    def _next(self) -> int | None:
        """Up to which transaction to flush; as far as it is, when it is time for the reserve; None at the end."""
        with self._signal:
            while True:
                is_behind = self._written > self._done
                if self._stopping and not is_behind:
                    return None
                if self._asked > self._done or self._stopping or self._try_refill:
                    return self._written
                wait_ns = JOURNAL_LAG_NS if is_behind else JOURNAL_REFILL_NS if self._low else None
                if not self._signal.wait(None if wait_ns is None else wait_ns / SECOND_NS):
                    return self._written

    def _fold(self, connection: sqlite3.Connection) -> None:
        """Bring into the file what the log has by now, whenever it grew by ``LOG_BYTES``.

        The loop writes on meanwhile, so a rest is left, and only a log of which nothing is left begins anew:
        the loop takes that last step (``Writer.fold``).
        """
        if self._log_bytes - self._folded_bytes >= LOG_BYTES:
            self._folded_bytes = self._log_bytes
            fold(connection)
            self._folded()
