"""Eight regions and how far they are from each other.

One-way delays in milliseconds, half of the round trips between data centres that
public clouds publish for such pairs, rounded; they are assumed typical, not
measured by us. Within a region 2 ms.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-3.
"""

from __future__ import annotations

from cocoon.core.units import MILLISECOND_NS

REGIONS = ("us-east", "us-west", "europe", "brazil", "india", "japan", "singapore", "sydney")

_ABOVE_MS = (
    # us-west, europe, brazil, india, japan, singapore, sydney
    (32, 40, 58, 95, 75, 110, 100),     # us-east
    (70, 88, 110, 52, 85, 70),          # us-west
    (95, 62, 115, 80, 135),             # europe
    (150, 130, 160, 155),               # brazil
    (62, 30, 75),                       # india
    (35, 52),                           # japan
    (46,),                              # singapore
)
_WITHIN_MS = 2


def one_way_ns(here: int, there: int) -> int:
    """The shortest way from one region to another, by their places in ``REGIONS``."""
    if here == there:
        return _WITHIN_MS * MILLISECOND_NS
    low, high = min(here, there), max(here, there)
    return _ABOVE_MS[low][high - low - 1] * MILLISECOND_NS
