"""What other programs take of this machine's processors, by the counts of the kernel.

Purity: shell (reads /proc). Spec: docs/spec/runtime.md, rule RUN-37.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from cocoon.core.units import PPM
from cocoon.core.values import Value

#: Fields of /proc/stat, line ``cpu``: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
_IDLE = (3, 4)
_COUNTED = 8
#: Of /proc/PID/stat behind the name: the parent, then the times of the process and of its children that have ended.
_PARENT, _TIMES = 1, slice(11, 15)


class Count(Value):
    """Ticks since the machine started; all grow.

    Attributes:
        all: Of all processors.
        busy: Of these, not idle.
        own: Of these, in a process and whatever it started.
    """

    all: int
    busy: int
    own: int


def tree(pid: int, root: Path = Path("/proc")) -> frozenset[int]:
    """A process and whatever it started; only itself on a system that does not tell."""
    return frozenset(_tree(pid, root)) | {pid}


def count(pid: int, root: Path = Path("/proc")) -> Count | None:
    """The counts of now; None on a system that does not tell."""
    try:
        words = (root / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1 : 1 + _COUNTED]
    except OSError:
        return None
    ticks = [int(word) for word in words]
    return Count(sum(ticks), sum(ticks) - sum(ticks[at] for at in _IDLE), sum(_tree(pid, root).values()))


def others_ppm(before: Count, now: Count) -> int:
    """The share of all processors that other programs had between the two."""
    passed = now.all - before.all
    # A process that ended and was not waited for yet takes its time with it: never less than nothing.
    others = now.busy - before.busy - max(0, now.own - before.own)
    return max(0, min(PPM, others * PPM // passed)) if passed > 0 else 0


def _tree(pid: int, root: Path) -> dict[int, int]:
    """The ticks of a process and of each that it started."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in root.glob("[0-9]*"):                    # not "*/stat": that looks at each, and one may end meanwhile
        try:
            words = (path / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue                                    # it ended meanwhile
        if len(words) >= _TIMES.stop:
            number = int(path.name)
            children[int(words[_PARENT])].append(number)
            ticks[number] = sum(map(int, words[_TIMES]))
    found, left = {}, [pid]
    while left:
        one = left.pop()
        found[one] = ticks.get(one, 0)
        left += children[one]
    return found
