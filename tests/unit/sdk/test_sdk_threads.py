"""A session that several threads share, against peers that answer late, in any order, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cocoon.core.errors import CocoonError, InputsMismatch, LocalPeerLost, UsageError
from cocoon.sdk import Result, Session, connect, control
from cocoon.sdk.conversation import Call, Conversation
from tests.control_server import LEASE, PROVIDER, TASK, Talk, result_of, serving

#: For what takes milliseconds.
SOON_S = 10.0


class Threads:
    """Threads of one user, none of which may raise, or wait for ever."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._raised: list[BaseException] = []

    def start(self, step: Callable[[], object]) -> None:
        def run() -> None:
            try:
                step()
            except BaseException as error:
                self._raised.append(error)

        self._threads.append(thread := threading.Thread(target=run, daemon=True))
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SOON_S)
        assert self._raised == []
        assert not any(thread.is_alive() for thread in self._threads), "a thread waits for ever"


class Desk:
    """The peer's side of a session: units lie here until somebody answers them."""

    def __init__(self, talk: Talk, credit: int) -> None:
        self._talk = talk
        self._units: list[dict[str, Any]] = []
        self._count = self._failed = 0
        talk.event("credit", count=credit)

    def take(self) -> dict[str, Any] | None:
        """The next unit; None when the client ended or hung up."""
        while not self._units:
            message = self._talk.receive()
            if message is None or message.get("end"):
                return None
            self._units += [
                {"unit": unit, "inputs": inputs} for unit, inputs in enumerate(message["inputs"], message["first"])
            ]
        return self._units.pop(0)

    def here(self) -> list[dict[str, Any]]:
        """Those that came with it."""
        units, self._units = self._units, []
        return units

    def answer(self, unit: dict[str, Any], credit: int = 1) -> None:
        """Every seventh with a failure."""
        self._count += 1
        if credit:
            self._talk.event("credit", count=credit)
        if unit["unit"] % 7 == 6:
            self._failed += 1
            self._talk.event("failed", unit=unit["unit"], code="inputs_mismatch", text="the seventh")
        else:
            self._talk.send(result_of(unit["unit"], unit["inputs"], number=unit["unit"]))

    def done(self) -> None:
        """Say the last word."""
        self._talk.send({"done": {
            "task": TASK, "units": self._count, "failed": self._failed, "receipts": [], "price_nanoton": 0,
            "provider": PROVIDER, "lease": LEASE,
        }})


def inputs_of(value: int, items: int = 3) -> dict[str, Any]:
    return {"x": np.full(items, value, np.int64)}


def value_of(result: object) -> int:
    assert isinstance(result, Result)
    return int(result.outputs["out_x"][0])


def backwards(talk: Talk, verb: str, args: dict[str, Any]) -> None:
    """Of those that are here it answers the youngest first."""
    desk = Desk(talk, credit=5)
    while (unit := desk.take()) is not None:
        for one in [*reversed(desk.here()), unit]:
            desk.answer(one)
    desk.done()


def test_each_thread_gets_the_answers_to_its_own_runs(home: Path, model: Path) -> None:
    threads, failed = Threads(), list[int]()

    def use(session: Session, first: int) -> None:
        for value in range(first, first + 30):
            try:
                assert value_of(session.run(inputs_of(value))) == value
            except InputsMismatch:
                failed.append(value)

    def stream(session: Session) -> None:
        outcomes = list(session.map(inputs_of(value) for value in range(9_000, 9_060)))
        for value, one in enumerate(outcomes, 9_000):
            assert not isinstance(one, Result) or value_of(one) == value
        failed.extend(9_000 for one in outcomes if not isinstance(one, Result))

    with serving(home, backwards) as server:
        with connect(home).session(model) as session:
            for thread in range(8):
                threads.start(lambda first=1_000 * thread: use(session, first))     # type: ignore[misc]
            threads.start(lambda: stream(session))
            threads.join()
        assert len(server.requests) == 1, "they share a task"
    assert len(failed) == (8 * 30 + 60) // 7


def test_a_run_that_takes_long_keeps_no_other_waiting_and_whoever_reads_passes_it_on(home: Path, model: Path) -> None:
    threads, answers = Threads(), dict[int, int]()
    came = {value: threading.Event() for value in range(4)}

    def one_after_the_other(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        """The one that came second, once all are here; the others each after the one before has heard."""
        desk = Desk(talk, credit=4)
        units = [unit for _ in range(4) if (unit := desk.take()) is not None]
        for unit in (units[1], units[0], units[2], units[3]):
            desk.answer(unit)
            assert came[unit["unit"]].wait(SOON_S), "an answer that is here is not handed on"
        assert desk.take() is None
        desk.done()

    def use(session: Session, value: int) -> None:
        result = session.run(inputs_of(value))
        answers[value] = value_of(result)
        came[result.unit].set()

    with serving(home, one_after_the_other), connect(home).session(model) as session:
        for value in range(4):
            threads.start(lambda value=value: use(session, value))                  # type: ignore[misc]
        threads.join()
    assert answers == {value: value for value in range(4)}


def test_what_the_system_does_not_take_at_once_leaves_while_another_thread_reads(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, is_read, is_stuck = Threads(), threading.Event(), threading.Event()
    monkeypatch.setattr(control, "_BUFFER_BYTES", 1)    # the least that the system has: a few kilobytes

    def deaf_for_a_time(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        desk = Desk(talk, credit=40)
        first = desk.take()
        assert first is not None
        is_read.set()
        assert is_stuck.wait(SOON_S)
        rest = [unit for _ in range(28) if (unit := desk.take()) is not None]
        for unit in [*rest, first]:
            desk.answer(unit)
        assert desk.take() is None
        desk.done()

    def large() -> Iterator[dict[str, Any]]:
        """Seven of them are a frame, which no buffer holds."""
        for value in range(28):
            if value == 7:
                is_stuck.set()
            yield inputs_of(value, 900)

    def pour() -> None:
        outcomes = list(session.map(large()))
        found = [value_of(one) for one in outcomes if isinstance(one, Result)]
        assert found == [value for value in range(28) if (value + 1) % 7 != 6]

    with serving(home, deaf_for_a_time), connect(home).session(model) as session:
        threads.start(lambda: session.run(inputs_of(7)))
        assert is_read.wait(SOON_S)
        threads.start(pour)
        threads.join()


def test_the_end_of_a_session_waits_for_the_runs_of_all_threads(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, closes, all_are_here = Threads(), threading.Event(), threading.Barrier(4)
    hand_in = Conversation.hand_in

    def watched(self: Conversation, calls: Sequence[Call]) -> None:
        hand_in(self, calls)
        all_are_here.wait(SOON_S)

    def late(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        desk = Desk(talk, credit=1)                     # the others wait in line when the session is closed
        unit = desk.take()
        assert unit is not None and closes.wait(SOON_S)
        desk.answer(unit, credit=3)
        while (unit := desk.take()) is not None:
            desk.answer(unit)
        desk.done()

    def close() -> None:
        closes.set()
        session.close()

    monkeypatch.setattr(Conversation, "hand_in", watched)
    with serving(home, late):
        session = connect(home).session(model)
        answers: list[int] = []
        for value in (1, 2, 3):
            threads.start(lambda value=value: answers.append(                       # type: ignore[misc]
                value_of(session.run(inputs_of(value)))
            ))
        all_are_here.wait(SOON_S)
        threads.start(close)
        threads.join()
        assert sorted(answers) == [1, 2, 3]
        with pytest.raises(UsageError, match="closed"):
            session.run(inputs_of(4))


@pytest.mark.parametrize(("ending", "error"), [
    ("hang up", UsageError), ("the peer dies", LocalPeerLost), ("nobody sells", CocoonError),
])
def test_what_ends_a_session_ends_the_runs_of_all_threads(
    home: Path, model: Path, ending: str, error: type[CocoonError]
) -> None:
    threads, all_are_here, caught = Threads(), threading.Event(), list[CocoonError]()

    def silent(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        desk = Desk(talk, credit=9)
        for _ in range(5):
            desk.take()
        all_are_here.set()
        if ending == "hang up":
            assert talk.receive() is None
        elif ending == "nobody sells":
            talk.error("no_provider", "nobody")

    def use(session: Session, value: int) -> None:
        with pytest.raises(error) as found:
            session.run(inputs_of(value))
        caught.append(found.value)

    with serving(home, silent):
        session = connect(home).session(model)
        for value in range(5):
            threads.start(lambda value=value: use(session, value))                  # type: ignore[misc]
        assert all_are_here.wait(SOON_S)
        if ending == "hang up":
            with pytest.raises(ZeroDivisionError), session:
                raise ZeroDivisionError
        threads.join()
    assert len({id(one) for one in caught}) == len(caught) == 5, "each has an error of its own"


def test_a_map_ends_with_the_session_that_another_thread_ended(home: Path, model: Path) -> None:
    threads, errors = Threads(), list[str]()

    def go_on() -> None:
        with pytest.raises(UsageError) as found:
            list(outcomes)
        errors.append(found.value.text)

    def start_anew() -> None:
        with pytest.raises(UsageError) as found:
            list(session.map([inputs_of(1)]))
        errors.append(found.value.text)

    with serving(home, backwards):
        session = connect(home).session(model)
        outcomes = session.map(inputs_of(value) for value in range(40))
        assert [value_of(next(outcomes)) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError), session:
            raise ZeroDivisionError
        threads.start(go_on)
        threads.start(start_anew)
        threads.join()
    assert errors == 2 * ["the session is closed"]


def test_a_callback_that_takes_long_keeps_no_run_of_another_thread_from_leaving(home: Path, model: Path) -> None:
    threads, is_told, has_come = Threads(), threading.Event(), threading.Event()

    def slow(event: dict[str, Any]) -> None:
        if event["event"] == "lease":
            is_told.set()
            assert has_come.wait(SOON_S), "the other run waits for the callback"

    def talkative(talk: Talk, verb: str, args: dict[str, Any]) -> None:
        desk = Desk(talk, credit=2)
        first = desk.take()
        talk.event("lease", provider=PROVIDER, lease=LEASE)
        second = desk.take()
        assert first is not None and second is not None
        has_come.set()
        desk.answer(second)
        desk.answer(first)
        assert desk.take() is None
        desk.done()

    with serving(home, talkative), connect(home).session(model, on_event=slow) as session:
        threads.start(lambda: session.run(inputs_of(1)))
        assert is_told.wait(SOON_S)
        threads.start(lambda: session.run(inputs_of(2)))
        threads.join()


def test_who_is_told_of_an_event_cannot_wait_for_the_session(home: Path, model: Path) -> None:
    refused: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "credit" and not refused:
            with pytest.raises(UsageError) as found:
                session.run(inputs_of(1))
            refused.append(found.value.text)

    def use() -> None:
        outcomes = [value_of(one) for one in session.map(inputs_of(value) for value in range(2))]
        session.close()
        assert outcomes == [0, 1] and "on_event cannot wait" in refused[0]

    threads = Threads()
    with serving(home, backwards):
        session = connect(home).session(model, on_event=tell)
        threads.start(use)
        threads.join()
