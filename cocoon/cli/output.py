"""What commands say: lines or JSON objects on stdout, progress and errors on stderr.

With ``--json`` every object is one line, the last one is ``{"summary": ...}``
or ``{"error": {"code", "text", "remedy"}}``. Text that came from another peer
is stripped of control characters before it reaches a terminal.

Purity: shell. Spec: docs/reference/cli.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from cocoon.core.errors import CocoonError

#: Characters of a digest in a table.
_SHORT = 16


def printable(text: str) -> str:
    """``text`` with every control character replaced: a remote peer must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def json_line(value: Any) -> str:
    """One JSON object in one line of ASCII."""
    return json.dumps(value, separators=(",", ":"), sort_keys=False, default=str)


def error_object(error: CocoonError) -> dict[str, str]:
    """The form in which an error stands in JSON."""
    return {"code": error.code, "text": error.text, "remedy": error.remedy}


class Printer:
    """Prints for one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._progress_shown = False

    def line(self, text: str = "") -> None:
        """A line for people; nothing with ``--json``."""
        if not self.as_json:
            self._clear_progress()
            _write(sys.stdout, printable(text))

    def part(self, text: str) -> None:
        """A part of a text for people, whose lines are its own; nothing with ``--json``."""
        if not self.as_json and text:
            self._clear_progress()
            sys.stdout.write("\n".join(printable(line) for line in text.split("\n")))
            sys.stdout.flush()

    def item(self, value: dict[str, Any]) -> None:
        """An object for programs; nothing without ``--json``."""
        if self.as_json:
            self._clear_progress()
            _write(sys.stdout, json_line(value))

    def summary(self, value: dict[str, Any]) -> None:
        """The last object of a command that succeeded."""
        self.item({"summary": value})

    def end(self, summary: dict[str, Any], failure: CocoonError | None) -> int:
        """The last object of a command that may have failed in part; returns the exit code."""
        if failure is None:
            self.summary(summary)
            return 0
        self.item({"error": error_object(failure), "summary": summary})
        report(failure, as_json=False)
        return failure.exit_code

    def note(self, text: str) -> None:
        """A remark for people that is no result; on stderr."""
        self._clear_progress()
        _write(sys.stderr, printable(text))

    def progress(self, text: str) -> None:
        """What goes on now, in one line that is overwritten; only on a terminal."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{printable(text)[:100]}")
            sys.stderr.flush()
            self._progress_shown = True

    def end_progress(self) -> None:
        """Remove the progress line."""
        self._clear_progress()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people: drawn on a terminal, separated by tabs elsewhere."""
        if self.as_json:
            return
        self._clear_progress()
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        if sys.stdout.isatty():
            _draw(columns, cells)
            return
        for row in [list(columns), *cells]:
            _write(sys.stdout, "\t".join(row))

    def fields(self, values: dict[str, Any]) -> None:
        """Name and value, one pair a line, for people."""
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self.line(f"{name:<{width}}  {shown(value)}")

    def _clear_progress(self) -> None:
        if self._progress_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._progress_shown = False


def shown(value: Any) -> str:
    """A value of a reply as text for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value) or "-"
    return str(value)


def brief(value: Any) -> str:
    """A value for a table cell; long digests are cut."""
    text = shown(value)
    is_digest = len(text) == 64 and not text.strip("0123456789abcdef")
    return text[:_SHORT] + "…" if is_digest else text


def report(error: CocoonError, as_json: bool) -> None:
    """Tell a failure: text and remedy on stderr, and the object on stdout with ``--json``."""
    if as_json:
        _write(sys.stdout, json_line({"error": error_object(error)}))
    _write(sys.stderr, f"error: {printable(error.text)} [{error.code}]")
    _write(sys.stderr, f"remedy: {printable(error.remedy)}")


def forget_reader() -> None:
    """Point standard streams whose reader has gone at nothing, so that no later write fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    # Flushed at once: readers of a pipe follow a long command line by line.
    stream.flush()


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not str: square brackets from another peer are no markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
