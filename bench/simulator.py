"""Figures of the simulator: seeds with every accident, and a thousand peers, on one core of this machine.

Purity: shell.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from bench.rows import ROOT, Row
from cocoon.cli.sim import collected_seldom
from cocoon.core.units import SECOND_NS
from sim.scenario import Scenario, read_scenario
from sim.world import World

SEEDS = 3
#: Of the thousand peers' time: until all have met and most have a lease, and then what is measured.
_SETTLED_S, _MEASURED_S = 16, 4


def simulator() -> list[Row]:
    """CPU seconds of seeds, and simulated seconds per CPU second of a large market, tasks bought, run and paid."""
    with collected_seldom():
        return [*_seeds(), *_thousand()]


def _seeds() -> list[Row]:
    scenario, began = _scenario("all_faults"), time.process_time()
    for seed in range(1, SEEDS + 1):
        World(scenario, seed).run()
    took_s = (time.process_time() - began) / SEEDS
    return [Row("simulator, 50 peers, all faults, 60 s: a seed", f"{took_s:.2f} s of CPU", "0.96 s")]


def _thousand() -> list[Row]:
    gc.collect()
    rss_bytes = _rss_bytes()
    world = World(_scenario("thousand"), 1)
    world.heap.run(_SETTLED_S * SECOND_NS)
    facts, began = world.ground.trace.facts, time.process_time()
    world.heap.run((_SETTLED_S + _MEASURED_S) * SECOND_NS)
    took_s = time.process_time() - began
    facts = world.ground.trace.facts - facts
    peer_kib = (_rss_bytes() - rss_bytes) / len(world.ground.peers) / 1024
    return [
        Row("simulator, 1,000 peers, 0.5 tasks/s each", f"{_MEASURED_S / took_s:.2f} simulated s per s", "15"),
        Row("  facts that machines took, per simulated second", f"{facts // _MEASURED_S:,}"),
        Row("  a fact", f"{took_s * 1_000_000 / facts:.0f} us of CPU"),
        Row("  memory, with all that was journalled so far", f"{peer_kib:.0f} KiB a peer", "10 KiB"),
    ]


def _scenario(name: str) -> Scenario:
    return read_scenario((ROOT / "sim" / "scenarios" / f"{name}.toml").read_text(encoding="utf-8"))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
