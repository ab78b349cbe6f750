"""Small worlds for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cocoon.cli.sim import collected_seldom
from sim.report import Report
from sim.scenario import Scenario, read_scenario
from sim.world import World

SCENARIOS = Path(__file__).resolve().parents[3] / "sim" / "scenarios"


def scenario(name: str) -> Scenario:
    """One that comes with Cocoon."""
    return read_scenario((SCENARIOS / f"{name}.toml").read_text(encoding="utf-8"))


def text(**changes: Any) -> str:
    """A tiny free market; a change is TOML of a top-level key."""
    keys = {"name": '"tiny"', "seconds": "30"} | changes
    head = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return head + '\n[[providers]]\nname = "p"\ncount = 2\n[[requesters]]\nname = "r"\ntasks = 5\n'


def run(scenario: Scenario, seed: int, *, writes_trace: bool = True) -> tuple[World, Report]:
    """Its whole time."""
    with collected_seldom():
        world = World(scenario, seed, writes_trace=writes_trace)
        return world, world.run()
