"""Opens the log of a process: a stream, or a file that is rotated by size.

Purity: shell.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cocoon.core.errors import UsageError
from cocoon.core.units import MIB
from cocoon.telemetry.log import LEVELS, Sink, counters, pop_sink, push_sink

LOG_DIR = "log"
LOG_FILE = "peer.jsonl"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_log(
    *,
    level: str = "info",
    stream: TextIO | None = None,
    home: Path | None = None,
    name: str = LOG_FILE,
    max_bytes: int = 8 * MIB,
    files: int = 4,
    strict: bool = False,
) -> Iterator[Sink]:
    """Send every line to ``stream``, or to ``home/log/<name>``.

    Args:
        level: Least severe level written: debug, info, warning or error.
        name: Of the file, ``peer.jsonl`` if it is a peer's.
        max_bytes: Size at which a file is rotated.
        files: Rotated files kept besides the present one.
        strict: Dropped fields raise; for tests.

    A line that the disk refuses is counted (``log_lines_lost``), never raised.

    Raises:
        UsageError: unknown level, or not exactly one of stream and home.
        OSError: the file cannot be made.
    """
    if level not in LEVELS or (stream is None) == (home is None):
        raise UsageError("open_log takes a known level and exactly one of stream and home")
    handler: logging.Handler
    if home is not None:
        folder = home / LOG_DIR
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _PrivateFile(folder / name, maxBytes=max_bytes, backupCount=files, encoding="ascii")
    else:
        handler = _Stream(stream)

    def write(line: str) -> None:
        handler.handle(logging.LogRecord("cocoon", logging.INFO, "", 0, line, None, None))

    sink = Sink(write, LEVELS[level], strict)
    push_sink(sink)
    try:
        yield sink
    finally:
        pop_sink(sink)
        handler.close()


class _Quiet:
    """A log that cannot be written must not print, raise, or recurse."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (stdlib's name)
        counters.add("log_lines_lost")


class _Stream(_Quiet, logging.StreamHandler[TextIO]):
    pass


class _PrivateFile(_Quiet, logging.handlers.RotatingFileHandler):
    def _open(self) -> TextIO:  # type: ignore[override]
        return os.fdopen(os.open(self.baseFilename, _APPEND, 0o600), "a", encoding="ascii")
