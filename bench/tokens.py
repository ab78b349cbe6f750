"""Tokens per second of CPU of the decode loop, beside bare loops over the same model in the same minute.

Purity: shell.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Self

from bench.rows import ROOT, Row

PACKAGE = ROOT / "build" / "smollm2"


def tokens() -> list[Row]:
    """SmolLM2-135M, 8-bit, one thread; prompts, and the choice of a token."""
    found = measured()
    speeds, rows = found["tokens_per_s"], []
    for count in (1, 8):
        ours, least, people = (speeds[f"{way} {count}"] for way in ("ours", "in place", "passing"))
        rows += [
            Row(f"tokens, {count} at a time", f"{ours:.0f}/s"),
            Row(f"of a bare loop in place, {count} at a time", f"{ours / least:.2f}", "0.95"),
            Row(f"of a bare loop that passes its cache on, {count} at a time", f"{ours / people:.2f}", "1"),
        ]
    pieces, choices = found["piece_ms"].items(), found["choosing_us"].items()
    rows += [Row(f"a piece of {count} tokens read", f"{took_ms:.0f} ms") for count, took_ms in pieces]
    return rows + [Row(f"a token chosen, {how}", f"{took_us:.0f} us") for how, took_us in choices]


class BareLoop:
    """The loop that people write, in a process of its own that rests while nobody asks it."""

    def __init__(self) -> None:
        """Start it, and load the model."""
        command = [sys.executable, "-m", "bench.decode_loop", str(PACKAGE), "on-demand"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def pace(self, rows: int, tokens: int) -> float:
        """Tokens per second by the clock on the wall."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rows} {tokens}\n")
        self._process.stdin.flush()
        return float(self._line())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Its input ends, and so does it."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def measured() -> Any:
    """What ``bench.decode_loop`` prints, measured now."""
    command = [sys.executable, "-m", "bench.decode_loop", str(PACKAGE)]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
