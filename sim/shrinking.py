"""Fewer accidents, the same breach: delta debugging of a recording.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cocoon.core.values import replace
from sim.engine.faults import Fault
from sim.recording import Recording
from sim.world import World

Fails = Callable[[Sequence[Fault]], bool]


def shrunk(recording: Recording) -> Recording:
    """The recording with as few of its accidents as still break a rule; the same one if none is broken."""

    def fails(faults: Sequence[Fault]) -> bool:
        return bool(World(recording.scenario, recording.seed, faults).run().breaches)

    if not fails(recording.faults):
        return recording
    return replace(recording, faults=tuple(fewer(recording.faults, fails)))


def fewer(faults: Sequence[Fault], fails: Fails) -> Sequence[Fault]:
    """Leave out ever smaller parts, until each accident that is left is needed (ddmin)."""
    left = list(faults)
    size = max(1, len(left) // 2)
    while True:
        start, shorter = 0, False
        while start < len(left):
            rest = left[:start] + left[start + size:]
            if len(rest) < len(left) and fails(rest):
                left, shorter = rest, True
            else:
                start += size
        if size == 1 and not shorter:
            return left
        size = size if shorter and size == 1 else max(1, size // 2)
