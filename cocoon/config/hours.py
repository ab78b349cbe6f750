"""Hours of the day, as an owner writes them: ``22:00-07:30``, which may go over midnight.

Purity: pure. Spec: docs/reference/config.md.
"""

from __future__ import annotations

import re

from cocoon.core.values import Value

_TIME = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_HOURS = re.compile(f"{_TIME}-{_TIME}")
DAY_MINUTES = 24 * 60


class Hours(Value):
    """From one minute of the day up to another; from a minute to itself is the whole day."""

    begins: int
    ends: int

    def holds(self, minute: int) -> bool:
        """Whether this minute of the day is among them."""
        return (minute - self.begins) % DAY_MINUTES < ((self.ends - self.begins) % DAY_MINUTES or DAY_MINUTES)


def read_hours(text: str) -> Hours:
    """The hours in ``text``; ValueError if it names none."""
    if (match := _HOURS.fullmatch(text)) is None:
        raise ValueError(f"must be hours such as 22:00-07:30, not {ascii(text)[:64]}")
    begins_h, begins_min, ends_h, ends_min = map(int, match.groups())
    return Hours(60 * begins_h + begins_min, 60 * ends_h + ends_min)
