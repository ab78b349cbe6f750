"""The helpers of the market tests: none of them swallows what went wrong."""

from __future__ import annotations

import pytest

from cocoon.core.errors import ChainUnreachable
from tests.loopback import paid
from tests.loopback.paid import beside, until


def test_what_one_of_several_jobs_raises_is_raised_where_they_were_started() -> None:
    def broken() -> None:
        raise ChainUnreachable("no chain")

    assert beside(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(ChainUnreachable):
        beside(lambda: 1, broken)


def test_a_wait_goes_on_over_typed_errors_and_ends_with_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0, ChainUnreachable("not yet"), "there"])

    def ask() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until(ask, "an answer") == "there"
    monkeypatch.setattr(paid, "PATIENCE_S", 0.0)
    with pytest.raises(AssertionError, match="an answer did not come"):
        until(lambda: 0, "an answer")
