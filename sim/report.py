"""What a run of a world says in the end.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-13.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cocoon.core.units import MILLISECOND_NS
from cocoon.core.values import Value
from sim.checks import Submitted
from sim.engine.faults import pack_faults

if TYPE_CHECKING:
    from sim.world import World


class Report(Value):
    """The end of one run."""

    scenario: str
    seed: int
    digest: str
    breaches: tuple[str, ...]
    metrics: dict[str, Any]
    faults: list[list[object]]

    def summary(self) -> dict[str, Any]:
        """As one object."""
        return {
            "scenario": self.scenario, "seed": self.seed, "digest": self.digest, "breaches": list(self.breaches),
            "metrics": self.metrics,
        }


def report(world: World) -> Report:
    """Sum up a world that has run."""
    checks = world.checks
    tasks = list(checks.tasks.values())
    ends = Counter("done" if task.code is None else task.code for task in tasks if task.ended_ns is not None)
    chain = world.ground.chain
    metrics: dict[str, Any] = {
        "peers": len(world.ground.peers),
        "signatures": "real" if world.are_real else "fake envelopes, real cells",
        "tasks": len(tasks),
        "ended": dict(sorted(ends.items())),
        "open": sum(task.ended_ns is None for task in tasks),
        "units": sum(task.accepted for task in tasks),
        "auctions": checks.auctions,
        "match_ms": _match_ms([task for task in tasks if not task.is_cold]),
        "cold_match_ms": _match_ms([task for task in tasks if task.is_cold]),
        "leases_by_group": _by_group(world, checks.sold),
        "lost_because": dict(sorted(checks.lost.items())),
        "offer_spread_ms": {"p50": _at(checks.spread_ms, 50), "p99": _at(checks.spread_ms, 99)},
        "gossip_bytes_per_peer_s": checks.gossip_bytes // (len(world.ground.peers) * world.scenario.seconds),
        "outcomes": dict(sorted(checks.outcomes.items())),
        "faults": len(world.faults),
        "facts": world.ground.trace.facts,
        "frames": world.ground.network.frames,
    }
    if chain is not None:
        metrics["promised_nanoton"] = sum(checks.totals.values())
        metrics["paid_nanoton"] = sum(chain.paid.values())
        metrics["fees_nanoton"] = chain.fees_nanoton
    return Report(
        world.scenario.name, world.seed, world.ground.trace.digest(), tuple(checks.breaches), metrics,
        pack_faults(world.faults),
    )


def _by_group(world: World, counts: Counter[int]) -> dict[str, int]:
    groups: Counter[str] = Counter({group.name: 0 for group in world.scenario.providers})
    for number, count in counts.items():
        groups[world.groups[number]] += count
    return dict(groups)


def _match_ms(tasks: Sequence[Submitted]) -> dict[str, int | None]:
    waits_ns = sorted(task.matched_ns - task.at_ns for task in tasks if task.matched_ns is not None)
    return {"tasks": len(waits_ns), "p50": _share(waits_ns, 50), "p99": _share(waits_ns, 99)}


def _at(counts: Counter[int], percent: int) -> int | None:
    """The smallest number that at least so many of all that were counted are not above."""
    left = (counts.total() * percent + 99) // 100
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            return number
    return None


def _share(ascending_ns: Sequence[int], percent: int) -> int | None:
    """The smallest of these that at least so many are not above, in milliseconds."""
    if not ascending_ns:
        return None
    return ascending_ns[(len(ascending_ns) * percent + 99) // 100 - 1] // MILLISECOND_NS
