"""What a provider measures of its free memory (RUN-24)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.runtime.memory import free_memory_bytes

MEMINFO = "MemTotal:       16000 kB\nMemAvailable:    8000 kB\nSwapTotal: 1 kB\n"


@pytest.mark.parametrize(
    ("meminfo", "limit", "used", "free"),
    [
        (MEMINFO, None, None, 8_000 * 1_024),
        (MEMINFO, "max\n", "5\n", 8_000 * 1_024),
        (MEMINFO, "5000\n", "2000\n", 3_000),
        (MEMINFO, "5000\n", "6000\n", 0),
        ("MemTotal: 16000 kB\n", None, None, 0),
        ("MemAvailable: lots\n", None, None, 0),
        (None, None, None, 0),
    ],
)
def test_free_memory_is_what_the_machine_has_and_the_group_allows(
    meminfo: str | None, limit: str | None, used: str | None, free: int, tmp_path: Path
) -> None:
    for name, text in (("meminfo", meminfo), ("memory.max", limit), ("memory.current", used)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) == free


def test_this_machine_has_some() -> None:
    assert free_memory_bytes() > 0
