"""What goes wrong, and when: a list drawn from the seed, kept with a failure, and made shorter by who looks into it.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-5, SIM-6 and SIM-13.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.rng import stream
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.core.values import Value

KINDS = ("kill", "power", "cut", "one_way", "chain")
#: A dead peer is back, a cut healed, a chain there again after this, at least and at most.
_SHORTEST_NS, _LONGEST_NS = 200 * MILLISECOND_NS, 15 * SECOND_NS


class Fault(Value):
    """One accident. ``peers`` die, or are on one side of a cut; nobody is when the chain is away."""

    at_ns: int
    kind: str
    lasts_ns: int
    peers: tuple[int, ...] = ()


class Accidents(Value):
    """How many of each kind, all before ``until_s``."""

    kills: int = 0
    powers: int = 0
    cuts: int = 0
    one_ways: int = 0
    chain_outages: int = 0
    until_s: int = 0

    def draw(self, seed: int, peers: int) -> tuple[Fault, ...]:
        """The list of one seed, in the order of time."""
        draws, faults = stream(seed, b"", "faults"), []
        counts = (self.kills, self.powers, self.cuts, self.one_ways, self.chain_outages)
        for kind, count in zip(KINDS, counts, strict=True):
            for _ in range(count):
                lasts_ns = _SHORTEST_NS + draws.below(_LONGEST_NS - _SHORTEST_NS)
                latest_ns = max(1, self.until_s * SECOND_NS - lasts_ns)
                at_ns = draws.below(latest_ns)
                size = {"chain": 0, "kill": 1, "power": 1}.get(kind, 1 + draws.below(max(1, peers // 2)))
                chosen: list[int] = []
                while len(chosen) < min(size, peers):
                    peer = draws.below(peers)
                    if peer not in chosen:
                        chosen.append(peer)
                faults.append(Fault(at_ns, kind, lasts_ns, tuple(sorted(chosen))))
        return tuple(sorted(faults, key=lambda fault: (fault.at_ns, fault.kind, fault.peers)))


def pack_faults(faults: Sequence[Fault]) -> list[list[object]]:
    """As JSON has them."""
    return [[fault.at_ns, fault.kind, fault.lasts_ns, list(fault.peers)] for fault in faults]
