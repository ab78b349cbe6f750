"""The pages under test, and their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    """Every Markdown page that the project publishes; examples/ holds samples, not pages."""
    return [*(root / name for name in ROOT_PAGES), *sorted((root / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        yield match.group(1), match.group(2)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def sources(root: Path, *folders: str) -> list[Path]:
    """Python files below the folders."""
    return [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
