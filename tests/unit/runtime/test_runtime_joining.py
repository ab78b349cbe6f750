"""JOI-17 to JOI-20: runs of one order go together where that was seen to change nothing; engines here are functions."""

from __future__ import annotations

import numpy as np
import pytest

from cocoon.core.errors import RunFailed
from cocoon.core.limits import BATCH_RUNS, JOIN_ATTEMPTS
from cocoon.runtime.joining import Joiner
from cocoon.runtime.protocol import Failed, Made, NoRoom
from cocoon.runtime.room import Room
from cocoon.runtime.session import Plan
from cocoon.wire.layout import largest_raw
from cocoon.wire.tensors import decode_tensors, encode_tensors

PATIENCE_US = 10_000_000
ALONE = [(1, 0)]


class Engine:
    """``y = answer(x)``; takes ``took_us(rows)``, and remembers which sizes it was given."""

    def __init__(self, answer=lambda x: x * 2, took_us=lambda rows: 100):
        self.answer, self.took_us = answer, took_us
        self.sizes = []

    def plan(self, feeds):
        return Plan({}, None)

    def run(self, feeds, plan, lent):
        x = feeds["x"]
        self.sizes.append(len(x))
        return {"y": self.answer(x)}, self.took_us(len(x))


def row(number, length=4, rows=1):
    return np.full((rows, length), number, np.float32) / 3


def order(joiner, *inputs, patience_us=PATIENCE_US):
    """Outcomes of one order, and what it gave."""
    memory = bytearray(1 << 20)
    payloads = [memoryview(encode_tensors({"x": x})) for x in inputs]
    outcomes = joiner.execute(payloads, Room(memoryview(memory)), patience_us)
    given = [
        decode_tensors(bytes(memory[one.outputs[0] : sum(one.outputs)]))["y"] if isinstance(one, Made) else one
        for one in outcomes
    ]
    return outcomes, given


def seats(outcomes):
    return [(one.joined, one.place) for one in outcomes]


def learned(engine, **tolerance):
    """A joiner that has tried all it ever will, on full orders."""
    joiner = Joiner(engine, **tolerance)
    for number in range(6):
        order(joiner, *(row(number * BATCH_RUNS + one) for one in range(BATCH_RUNS)))
    engine.sizes.clear()
    return joiner


def test_runs_go_together_once_growing_company_was_seen_to_change_nothing():
    engine = Engine()
    outcomes, given = order(Joiner(engine), *map(row, range(13)))
    assert seats(outcomes) == ALONE * 13
    assert engine.sizes == [1, 1, 2, 1, 1, 1, 3, *[1] * 8, 8]
    joiner = learned(engine)
    outcomes, given = order(joiner, *map(row, range(BATCH_RUNS)))
    assert engine.sizes == [BATCH_RUNS]
    assert seats(outcomes) == [(BATCH_RUNS, place) for place in range(BATCH_RUNS)]
    assert all(np.array_equal(found, row(number) * 2) for number, found in enumerate(given))


def test_what_is_tried_gives_nobody_outputs_and_takes_a_quarter_of_the_time_at_most():
    engine = Engine()
    outcomes, _ = order(Joiner(engine), row(1), row(2), patience_us=4 * 199)
    assert engine.sizes == [1, 1] and len(outcomes) == 2
    order(Joiner(engine), row(1), row(2), patience_us=4 * 200)
    assert engine.sizes == [1, 1, 1, 1, 2]


def test_trials_go_on_over_small_orders():
    engine = Engine()
    joiner = Joiner(engine)
    for number in range(200):
        order(joiner, row(number), row(number + 1))
    assert {2, 3, 8} <= set(engine.sizes)
    assert seats(order(joiner, row(1), row(2))[0]) == [(2, 0), (2, 1)]


def tipped(x):
    """The last bit of a row changes in company."""
    return x if len(x) == 1 else np.nextafter(x, np.float32(9))


def peeping(x):
    """A row that depends on its company."""
    return x - x.mean(axis=0, keepdims=True)


def summed(x):
    """One row for all."""
    return x.sum(axis=0, keepdims=True)


def tipped_at_eight(x):
    return x if len(x) < 8 else np.nextafter(x, np.float32(9))


@pytest.mark.parametrize("answer", [tipped, peeping, summed, tipped_at_eight], ids=lambda one: one.__name__)
def test_a_model_whose_rows_differ_in_company_runs_each_alone(answer):
    engine = Engine(answer)
    joiner = learned(engine)
    outcomes, _ = order(joiner, *map(row, range(9)))
    assert seats(outcomes) == ALONE * 9 and engine.sizes == [1] * 9


def test_what_a_manifest_declares_is_a_tolerance_and_no_permission():
    slight = {"relative_ppm": 1, "absolute_nano": 1}
    assert seats(order(learned(Engine(tipped), **slight), row(1), row(2))[0]) == [(2, 0), (2, 1)]
    assert seats(order(learned(Engine(peeping), **slight), row(1), row(2))[0]) == ALONE * 2
    nothing = Engine(lambda x: x if len(x) == 1 else x * np.nan)
    assert seats(order(learned(nothing, absolute_nano=10**9), row(1), row(2))[0]) == ALONE * 2


def test_a_model_that_is_kept_apart_is_not_even_tried():
    engine = Engine()
    joiner = learned(engine, joins=False)
    assert seats(order(joiner, *map(row, range(9)))[0]) == ALONE * 9 and set(engine.sizes) == {1}


def scaled(x):
    """One scale for the whole batch, as of a model that quantises its activations as they come."""
    scale = np.abs(x).max()
    return np.round(x / scale * 100) * scale


def test_equal_inputs_prove_nothing():
    engine = Engine(scaled)
    joiner = Joiner(engine)
    for _ in range(9):
        order(joiner, *[row(1)] * BATCH_RUNS)
    assert set(engine.sizes) == {1}
    assert seats(order(joiner, *map(row, range(1, 10)))[0]) == ALONE * 9 and max(engine.sizes) > 1
    assert seats(order(joiner, *map(row, range(1, 10)))[0]) == ALONE * 9


def test_company_that_saves_no_time_is_given_up():
    engine = Engine(took_us=lambda rows: 100 * rows)
    joiner = Joiner(engine)
    for _ in range(9):
        order(joiner, *map(row, range(BATCH_RUNS)))
    assert engine.sizes.count(8) == JOIN_ATTEMPTS, "one hiccup of the machine decides nothing"
    assert seats(order(joiner, row(1), row(2))[0]) == ALONE * 2
    some = Engine(took_us=lambda rows: 100 if rows <= 8 else 100 * rows)
    joiner = learned(some)
    order(joiner, *map(row, range(20)))
    assert some.sizes == [8, 8, 4]


def test_only_neighbours_of_one_form_with_one_row_are_joined():
    engine = Engine()
    joiner = learned(engine)
    outcomes, given = order(joiner, row(1), row(2), row(3, length=5), row(4), row(5, rows=2), row(6), row(7))
    assert engine.sizes == [2, 1, 1, 2, 2]
    assert seats(outcomes) == [(2, 0), (2, 1), (1, 0), (1, 0), (1, 0), (2, 0), (2, 1)]
    assert [len(found) for found in given] == [1, 1, 1, 1, 2, 1, 1]


def test_inputs_that_cannot_be_read_fail_alone():
    engine = Engine()
    joiner = learned(engine)
    payloads = [memoryview(one) for one in (encode_tensors({"x": row(1)}), b"\x91", encode_tensors({"x": row(2)}))]
    outcomes = joiner.execute(payloads, Room(memoryview(bytearray(1 << 12))), PATIENCE_US)
    assert [type(one) for one in outcomes] == [Made, Failed, Made] and outcomes[1].code == "malformed"


def test_a_joined_execution_that_fails_is_tried_one_by_one_and_only_the_culprit_fails():
    def poisoned(x):
        if (x == row(13)[0, 0]).any():
            raise RunFailed("index out of bounds")
        return x

    engine = Engine(poisoned)
    joiner = learned(engine)
    outcomes, _ = order(joiner, row(1), row(13), row(2))
    assert engine.sizes == [3, 1, 1, 1]
    assert [type(one) for one in outcomes] == [Made, Failed, Made]
    assert seats(order(joiner, row(1), row(2))[0]) == [(2, 0), (2, 1)]


def test_runs_whose_outputs_find_no_room_together_are_executed_one_by_one():
    joiner = learned(Engine(lambda x: np.repeat(x, 200, axis=1)))
    payloads = [memoryview(encode_tensors({"x": row(number)})) for number in range(1, 5)]
    outcomes = joiner.execute(payloads, Room(memoryview(bytearray(7_000))), PATIENCE_US)
    assert [type(one) for one in outcomes] == [Made, Made, NoRoom, NoRoom], "two of them fill it"
    assert seats(outcomes[:2]) == ALONE * 2, "no statement names company that has no answer"


def test_inputs_of_a_trial_are_copies():
    seen = []

    def watch(x):
        seen.append(x.copy())
        return x

    joiner = Joiner(Engine(watch))
    first, second = (encode_tensors({"x": row(number)}) for number in (1, 2))
    begin = -largest_raw(first) % 8                     # aligned, so that the arrays are views of it
    memory = bytearray(begin + len(first))
    payload, room = memoryview(memory)[begin:], Room(memoryview(bytearray(1 << 12)))
    for data in (first, second):
        payload[:] = data
        joiner.execute([payload, memoryview(b"")], room, PATIENCE_US)
    assert np.array_equal(seen[-1], np.concatenate([row(1), row(2)])), "the peer had written over them"


def test_a_run_that_comes_alone_pays_for_nobodys_trial():
    engine = Engine()
    joiner = Joiner(engine)
    for number in range(20):
        order(joiner, row(number))
    assert engine.sizes == [1] * 20
