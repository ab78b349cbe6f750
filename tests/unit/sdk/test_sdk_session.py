"""A session: one task for runs that come one by one, against a peer that behaves, and against others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.errors import InputsMismatch, LocalPeerLost, NoProvider, UsageError
from cocoon.sdk import Failure, connect
from tests.control_server import LEASE, PROVIDER, TASK, Talk, receipt_hash, result_of, serving


def open_task(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Answers each unit when it comes, every third with a failure, until the client ends; then the receipt."""
    talk.event("credit", count=4)
    units = 0
    while units < args["units"] and not (message := _heard(talk)).get("end"):
        for unit, inputs in enumerate(message["inputs"], message["first"]):
            units += 1
            talk.event("credit", count=1)
            if unit % 3 == 2:
                talk.event("failed", unit=unit, code="inputs_mismatch", text="the third")
            else:
                talk.send(result_of(unit, inputs, number=unit))
    talk.event("receipt", hash=receipt_hash(0), seq=1, lease=LEASE, runs=units, first_number=0, verified=True)
    talk.send({"done": {
        "task": TASK, "units": units, "failed": units // 3, "receipts": [receipt_hash(0)],
        "price_nanoton": 0, "provider": PROVIDER,
    }})


def _heard(talk: Talk) -> dict[str, Any]:
    if (message := talk.receive()) is None:
        raise ConnectionError("the client hung up")
    return message


def inputs_of(value: int) -> dict[str, Any]:
    return {"x": np.full((3,), value, dtype=np.int64)}


def test_runs_come_one_by_one_in_one_task_and_their_receipts_with_its_end(home: Path, model: Path) -> None:
    with serving(home, open_task) as server:
        with connect(home).session(model, runs=50, max_price_nanoton=9) as session:
            one, two = session.run(inputs_of(1)), session.run(inputs_of(2))
            assert (one.outputs["out_x"][0], two.outputs["out_x"][0]) == (1, 2) and one.receipt is None
            with pytest.raises(InputsMismatch, match="the third"):
                session.run(inputs_of(3))
            four = session.run(inputs_of(4))
        assert [result.receipt for result in (one, two, four)] == [receipt_hash(0).hex()] * 3
        session.close()
    assert [result.unit for result in (one, two, four)] == [0, 1, 3]
    (request,) = server.requests
    assert {"units": 50, "max_price_nanoton": 9, "spread": 1}.items() <= request[1].items()


def test_many_inputs_go_into_a_session_together(home: Path, model: Path) -> None:
    with serving(home, open_task), connect(home).session(model) as session:
        first = list(session.map(inputs_of(value) for value in range(10)))
        assert list(session.map([])) == []
        second = list(session.map([inputs_of(70)]))
    outcomes = [None if isinstance(one, Failure) else int(one.outputs["out_x"][0]) for one in first]
    assert outcomes == [0, 1, None, 3, 4, None, 6, 7, None, 9]
    assert [one.unit for one in second] == [10]


def test_a_session_without_a_run_ends_well(home: Path, model: Path) -> None:
    with serving(home, open_task), connect(home).session(model):
        pass


def test_no_more_runs_than_were_named(home: Path, model: Path) -> None:
    with serving(home, open_task), connect(home).session(model, runs=2) as session:
        assert len(list(session.map([inputs_of(1), inputs_of(2)]))) == 2
        with pytest.raises(UsageError, match="the 2 runs of this session are used up"):
            session.run(inputs_of(3))


def test_results_that_were_not_taken_keep_nobody_waiting_and_are_not_mixed_with_others(
    home: Path, model: Path
) -> None:
    with serving(home, open_task), connect(home).session(model) as session:
        session.run(inputs_of(0))
        results = session.map(inputs_of(value) for value in (1, 2, 3))
        assert next(results).unit == 1
        other = session.run(inputs_of(4))
        assert (other.unit, int(other.outputs["out_x"][0])) == (4, 4)
        assert [one.unit for one in results] == [2, 3]


def test_an_exception_in_the_block_gives_the_task_up(home: Path, model: Path) -> None:
    ends, over = list[bool](), threading.Event()

    def watch(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        ends.append(talk.receive() is None)
        over.set()

    with serving(home, watch):
        with pytest.raises(ZeroDivisionError), connect(home).session(model):
            raise ZeroDivisionError
        assert over.wait(10)
    assert ends == [True], "it hung up, and did not ask for receipts"


@pytest.mark.parametrize(("ending", "error"), [
    (lambda talk: talk.error("no_provider", "nobody"), NoProvider),
    (lambda talk: talk.socket.close(), LocalPeerLost),
])
def test_a_task_that_ends_by_itself_ends_the_session(
    home: Path, model: Path, ending: Callable[[Talk], None], error: type[cocoon.CocoonError]
) -> None:
    def end(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        talk.event("credit", count=1)
        talk.receive()
        ending(talk)

    with serving(home, end):
        session = connect(home).session(model)
        with pytest.raises(error):
            session.run(inputs_of(1))
        with pytest.raises(UsageError, match="closed"):
            session.run(inputs_of(2))
        with pytest.raises(UsageError, match="closed"):
            list(session.map([inputs_of(2)]))
        session.close()


@pytest.mark.parametrize("options", [{"runs": 0}, {"runs": True}, {"runs": 1 << 40}, {"deadline_s": 0}, {"spread": 9}])
def test_impossible_arguments_are_refused_before_anything_is_asked(
    home: Path, model: Path, options: dict[str, Any]
) -> None:
    with serving(home, open_task) as server:
        with pytest.raises(UsageError):
            connect(home).session(model, **options)
        assert server.requests == []
