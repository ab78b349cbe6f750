"""Hours of the day in which an owner sells."""

from __future__ import annotations

import pytest

from cocoon.config.hours import DAY_MINUTES, read_hours
from cocoon.config.settings import resolve
from cocoon.core.errors import BadConfig

NINE, TEN, MIDNIGHT = 9 * 60, 10 * 60, 0


@pytest.mark.parametrize(("text", "inside", "outside"), [
    ("09:00-10:00", {NINE, NINE + 59}, {NINE - 1, TEN, MIDNIGHT}),
    ("22:00-09:00", {22 * 60, DAY_MINUTES - 1, MIDNIGHT, NINE - 1}, {22 * 60 - 1, NINE, TEN}),
    ("00:00-00:01", {MIDNIGHT}, {1, DAY_MINUTES - 1}),
])
def test_hours_hold_their_minutes_also_over_midnight(text: str, inside: set[int], outside: set[int]) -> None:
    hours = read_hours(text)
    assert {minute for minute in inside | outside if hours.holds(minute)} == inside


def test_from_a_minute_to_itself_is_the_whole_day() -> None:
    assert all(read_hours("07:30-07:30").holds(minute) for minute in range(DAY_MINUTES))


@pytest.mark.parametrize("text", ["9:00-10:00", "24:00-01:00", "09:60-10:00", "09:00", "09:00 - 10:00", "x", " "])
def test_what_names_no_hours_is_refused_with_the_name_of_the_setting(text: str) -> None:
    with pytest.raises(BadConfig, match="sell_hours must be hours such as 22:00-07:30"):
        resolve(flags={"sell_hours": text})


def test_without_hours_it_is_always() -> None:
    assert resolve(flags={"sell_hours": ""}).settings.sell_hours == ""
