"""Clocks that fit the chain's, and clocks that do not (LAN-33)."""

from __future__ import annotations

import pytest

from cocoon.core.errors import ClockSkewed
from cocoon.core.limits import CLOCK_SKEW_S
from cocoon.ledger.skew import check_skew

NOW_S = 1_800_000_000


@pytest.mark.parametrize("ahead_s", [-CLOCK_SKEW_S, 0, CLOCK_SKEW_S])
def test_a_clock_within_the_bound_fits(ahead_s: int) -> None:
    check_skew(NOW_S, NOW_S + ahead_s)


@pytest.mark.parametrize(("ahead_s", "side"), [(-CLOCK_SKEW_S - 1, "behind"), (CLOCK_SKEW_S + 1, "ahead of")])
def test_one_beyond_it_is_named_with_its_side(ahead_s: int, side: str) -> None:
    with pytest.raises(ClockSkewed, match=f"{abs(ahead_s)} s {side} the chain"):
        check_skew(NOW_S, NOW_S + ahead_s)
