"""Hold a worker to as many cores as the threads it was granted.

A model's operators use only their threads, but a model that took over its process
could start any number and slow the machine down for everybody. A thread that is
bound to cores keeps to them, whatever it starts.

Which cores: those that the fewest siblings are held to, so that an endless model does
not sit beside an honest one while another core is idle. Equals are taken in turn
from a place that the pid gives, so that workers of several peers spread as well. Two
workers that load in the same moment may choose the same core; what is not held to
cores (the peer, all else on the machine) moves away from busy ones by itself.

Purity: shell; only a worker process may import it.
Spec: docs/spec/runtime.md, rule RUN-28.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence


def hold_to(threads: int, siblings: Iterable[int]) -> None:
    """Bind this process to ``threads`` cores, unless it may have all that it sees."""
    if not hasattr(os, "sched_setaffinity"):
        return
    mine = sorted(os.sched_getaffinity(0))
    if threads < len(mine):
        os.sched_setaffinity(0, choose(mine, threads, _held(siblings, mine), os.getpid()))


def choose(cores: Sequence[int], threads: int, held: Iterable[int], pid: int) -> list[int]:
    """The ``threads`` least used of ``cores``; ``held`` names a core once for each worker on it."""
    users = Counter(held)
    turn = [*cores[pid % len(cores) :], *cores[: pid % len(cores)]]
    return sorted(turn, key=lambda core: users[core])[:threads]


def _held(siblings: Iterable[int], mine: Sequence[int]) -> list[int]:
    held: list[int] = []
    for pid in siblings:
        try:
            cores = os.sched_getaffinity(pid)
        except OSError:
            continue  # it ended meanwhile
        if len(cores) < len(mine):  # a spare one has not chosen yet
            held += cores
    return held
