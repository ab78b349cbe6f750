"""Recordings: everything that a run follows from, and the digest that it ended with.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-13.
"""

from __future__ import annotations

import json
from typing import Any

from cocoon.core.errors import BadScenario
from cocoon.core.values import Value
from sim.engine.faults import KINDS, Fault
from sim.report import Report
from sim.scenario import Scenario, read_scenario
from sim.world import World

_FORM = 1


class Recording(Value):
    """One run."""

    #: As it was written, and as it was read.
    text: str
    scenario: Scenario
    seed: int
    faults: tuple[Fault, ...]
    digest: str


def pack_recording(scenario: str, found: Report) -> str:
    """The run of this scenario as JSON; its accidents stand there one by one, so that some can be taken out."""
    return json.dumps({
        "form": _FORM, "scenario": scenario, "seed": found.seed, "digest": found.digest, "faults": found.faults,
    }, indent=1) + "\n"


def pack_again(recording: Recording, found: Report) -> str:
    """As ``pack_recording``, of a recording that was run again."""
    return pack_recording(recording.text, found)


def unpack_recording(text: str) -> Recording:
    """Read what ``pack_recording`` wrote.

    Raises:
        BadScenario: it is something else.
    """
    try:
        table = json.loads(text)
    except ValueError as error:
        raise BadScenario(f"no JSON: {error}") from None
    match table:
        case {"form": 1, "scenario": str(scenario), "seed": int(seed), "digest": str(digest), "faults": list(faults)}:
            read = read_scenario(scenario)
            return Recording(scenario, read, seed, tuple(_fault(item, read.peers) for item in faults), digest)
    raise BadScenario("this is no recording of a simulated world")


def replayed(recording: Recording) -> Report:
    """Run it again."""
    return World(recording.scenario, recording.seed, recording.faults).run()


def _fault(item: Any, peers: int) -> Fault:
    match item:
        case [int(at_ns), str(kind), int(lasts_ns), list(struck)] if kind in KINDS and at_ns >= 0 and lasts_ns >= 0:
            if all(isinstance(peer, int) and 0 <= peer < peers for peer in struck):
                return Fault(at_ns, kind, lasts_ns, tuple(struck))
    raise BadScenario(f"no accident: {str(item)[:128]}")
