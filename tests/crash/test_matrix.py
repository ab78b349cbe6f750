"""A peer is killed before or after every row and effect that money rests on; what it did not say is not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.crash.matrix import MATRIX, REPRESENTATIVE
from tests.crash.pair import Case, Pair
from tests.loopback.town import Town

#: Cases on one pair. A provider bears three lost results of a requester (MON-18), and each pair loses some.
_CASES_OF_A_PAIR = 10

Trial = Callable[[Case], None]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """One case on the pair that the last one left whole, or on a new one."""
    kept: list[Pair] = []
    done = 0

    def tried(case: Case) -> None:
        nonlocal done
        if done % _CASES_OF_A_PAIR == 0:
            _close(kept)
        pair = kept.pop() if kept else Pair.found(Town(tmp_path_factory.mktemp("crash"), ledger="ton"))
        try:
            pair.die(case)
            pair.recover(case)
        except BaseException:
            pair.town.close()
            raise
        kept.append(pair)
        done += 1

    yield tried
    _close(kept)


def _close(pairs: list[Pair]) -> None:
    while pairs:
        pairs.pop().town.close()


@pytest.mark.parametrize("case", REPRESENTATIVE, ids=str)
def test_a_crash_of_each_kind_pays_and_is_paid_once(trial: Trial, case: Case) -> None:
    trial(case)


@pytest.mark.long
@pytest.mark.parametrize("case", MATRIX, ids=str)
def test_whoever_dies_there_pays_and_is_paid_once(trial: Trial, case: Case) -> None:
    trial(case)
