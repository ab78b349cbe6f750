"""Integers with units: money in nanoton, time in nanoseconds, sizes in bytes, ratios in ppm.

Purity: pure. Spec: docs/spec/money.md, rules MON-1 to MON-3 and MON-5.
"""

from __future__ import annotations

from enum import IntEnum

#: The network's coin, as people read it (it was renamed once; name it only here).
COIN = "TON"
NANOTON_PER_TON = 1_000_000_000

MICROSECOND_NS = 1_000
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
DAY_NS = 24 * HOUR_NS

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

#: Ratios are whole parts of a million.
PPM = 1_000_000

#: Prices are quoted per this many units, so that one token can cost less than a nanoton.
PRICE_UNITS = 1_000


class UnitKind(IntEnum):
    """What is priced; the buyer counts every one of these himself (MON-5)."""

    RUN = 1
    ITEM = 2
    PROMPT_TOKEN = 3
    CACHED_PROMPT_TOKEN = 4
    OUTPUT_TOKEN = 5


#: What the runs of each kind of task are counted in; of any other kind each run is one.
UNIT_OF = {"embed": UnitKind.PROMPT_TOKEN, "generate": UnitKind.OUTPUT_TOKEN, "infer": UnitKind.RUN}
#: What is sold, in the order of offers.
KINDS = tuple(UNIT_OF)


def unit_of(kind: str) -> UnitKind:
    """What the runs of a kind of task are billed by."""
    return UNIT_OF.get(kind, UnitKind.RUN)


def ceil_div(numerator: int, denominator: int) -> int:
    """Quotient rounded towards plus infinity; ``denominator`` > 0."""
    return -(-numerator // denominator)


def bill_nanoton(cumulative_units: int, price_nanoton: int) -> int:
    """What all units of a lease so far cost, for one kind of unit.

    Args:
        cumulative_units: Units of this kind since the lease began, >= 0.
        price_nanoton: Price per ``PRICE_UNITS`` units.

    The price of one run is the difference of two bills, so that lines add up
    to the total however the units were split (MON-2).
    """
    # ``ceil_div`` written out: several times a run on each side of a lease.
    return -(-cumulative_units * price_nanoton // PRICE_UNITS)


def format_nanoton(amount_nanoton: int) -> str:
    """Exact decimal text in whole coins, trailing zeros dropped: ``0.0001 TON``."""
    whole, part = divmod(abs(amount_nanoton), NANOTON_PER_TON)
    sign = "-" if amount_nanoton < 0 else ""
    digits = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}{'.' + digits if digits else ''} {COIN}"


def format_bytes(size_bytes: int) -> str:
    """Binary-unit text with one decimal: ``3.0 MiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
