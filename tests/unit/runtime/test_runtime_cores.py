"""RUN-28: which cores a worker is held to."""

from __future__ import annotations

import pytest

from cocoon.runtime.cores import choose


@pytest.mark.parametrize("pid", range(8))
def test_a_core_without_a_sibling_comes_before_one_with(pid: int) -> None:
    assert choose([0, 1], 1, [0], pid) == [1]
    assert choose([0, 1, 2, 3], 2, [0, 0, 1, 3], pid) in ([1, 2], [2, 1], [2, 3], [3, 2])


def test_equal_cores_are_taken_in_turn_by_pid() -> None:
    assert [choose([2, 3, 5], 1, [], pid) for pid in range(4)] == [[2], [3], [5], [2]]


def test_cores_that_are_not_ours_are_never_chosen() -> None:
    assert sorted(choose([4, 6], 2, [0, 1, 2], 9)) == [4, 6]
