"""One figure of the bench, beside its goal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One figure; ``goal`` is text, as the design states it."""

    what: str
    value: str
    goal: str = ""
