"""Memory of this machine that nobody uses now: what a provider can say of its capacity without a promise.

Purity: shell (reads /proc and /sys). Spec: docs/spec/runtime.md, rule RUN-24.
"""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_KIB = 1_024


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo"), group: Path = _GROUP) -> int:
    """What a new process may take: free on the machine, and below the limit of the control group; 0 if not told."""
    found = _available_bytes(meminfo)
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is None or used is None:
        return found
    return min(found, max(0, limit - used))


def _available_bytes(meminfo: Path) -> int:
    for line in _text(meminfo).splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if name == "MemAvailable" and words and words[0].isdigit():
            return int(words[0]) * _KIB
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None        # "max" is no limit


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
