"""Whether a machine's clock fits the chain's: what is signed expires by the one, and is capped by the other.

Purity: pure. Spec: docs/spec/lanes.md, rule LAN-33.
"""

from __future__ import annotations

from cocoon.core.errors import ClockSkewed
from cocoon.core.limits import CLOCK_SKEW_S


def check_skew(chain_s: int, wall_s: int) -> None:
    """Compare the time of the newest agreed block with this machine's clock, both in seconds since 1970.

    Raises:
        ClockSkewed: they are more than ``CLOCK_SKEW_S`` apart.
    """
    ahead_s = wall_s - chain_s
    if abs(ahead_s) > CLOCK_SKEW_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        raise ClockSkewed(f"the clock of this machine is {abs(ahead_s)} s {side} the chain, {CLOCK_SKEW_S} are allowed")
