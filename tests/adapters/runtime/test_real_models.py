"""RUN-12, RUN-32 and RUN-33: real models, int8 and stateful ones among them, answer as plain ONNX Runtime does."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bench.packaged import packaged
from bench.plain import carry, plain
from cocoon.core.errors import InputsMismatch
from cocoon.core.values import replace
from cocoon.runtime.rows import join, split
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests.adapters.runtime.conftest import LIMITS, run_tensors

RUNS = 16
THREADS = (1, 2, 4)
JOINED = 8
PAGE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "runtime.md"
LEVELS = ("DISABLE_ALL", "BASIC", "EXTENDED")
MODELS = {model.name: model for model in packaged()}


@pytest.fixture(params=MODELS)
def model(request):
    """One of the models; it is missing where `make` has not fetched it."""
    found = MODELS[request.param]
    try:
        found.read()
    except FileNotFoundError:
        pytest.skip(f"LOUD SKIP: no {found.name} below build; `make test` puts it there")
    return found


@pytest.fixture(scope="module")
def tolerances():
    """Model to (between levels, between threads, joined), as the page says; None where nothing is joined."""
    rows = re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [float(text) if text[0].isdigit() else None for text in cells] for name, *cells in rows[1:]}


def runs_of(model):
    """``RUNS`` of one row; then some with more rows, where no state ties a run to the one before."""
    # Fewer rows than threads are shared out otherwise than one row, or many.
    several = () if model.carried else (2, 3, 8)
    return [*model.inputs(RUNS), *(arrays for rows in several for arrays in model.inputs(2, rows))]


@cache
def plain_on(name, threads):
    """What plain ONNX Runtime says to all of them."""
    return plain(MODELS[name].read(), runs_of(MODELS[name]), MODELS[name].carried, threads=threads)


async def answers(worker, model, feeds):
    """Encoded outputs of each run, one after the other, with what is carried between them."""
    found, outputs = [], None
    for arrays in feeds:
        report = await worker.run(encode_tensors(carry(arrays, outputs, model.carried)))
        found.append(bytes(report.outputs))
        outputs = decode_tensors(found[-1])
    return found


def farthest(some, others):
    """The largest absolute difference of any number of any output."""
    return max(
        float(np.abs(one[name].astype("f8") - other[name]).max())
        for one, other in zip(some, others, strict=True)
        for name in one
    )


async def test_real_models_give_the_bits_of_a_plain_run_on_as_many_threads(start, model, model_file):
    path, feeds = model_file(model.read()), runs_of(model)
    for threads in THREADS:
        wanted = [encode_tensors(outputs) for outputs in plain_on(model.name, threads)]
        assert len(set(wanted)) == len(feeds)
        async with await start(replace(LIMITS, threads=threads)) as worker:
            assert (await worker.load(path)).provider == "CPUExecutionProvider"
            assert await answers(worker, model, feeds) == wanted, f"{threads} threads"


async def test_runs_of_one_row_give_the_same_bits_in_two_sessions_and_on_any_number_of_threads(
    start, model, model_file
):
    path, sessions = model_file(model.read()), []
    for _ in range(2):
        async with await start(replace(LIMITS, threads=2)) as worker:
            await worker.load(path)
            sessions.append(await answers(worker, model, runs_of(model)[:RUNS]))
    for threads in THREADS:
        sessions.append([encode_tensors(outputs) for outputs in plain_on(model.name, threads)[:RUNS]])
    assert sessions == [sessions[0]] * len(sessions)


def test_numbers_of_threads_differ_by_no_more_than_the_page_says(model, tolerances):
    for threads in THREADS:
        difference = farthest(plain_on(model.name, 1), plain_on(model.name, threads))
        assert difference <= tolerances[model.name][1], f"{threads} threads"


@pytest.mark.long
def test_optimisation_levels_differ_by_no_more_than_the_page_says(model, tolerances):
    for level in LEVELS:
        found = plain(model.read(), runs_of(model)[:RUNS], model.carried, level=level)
        assert farthest(plain_on(model.name, 1)[:RUNS], found) <= tolerances[model.name][0], level


@pytest.mark.long
async def test_joined_runs_differ_from_single_ones_by_no_more_than_the_page_says(
    start, model, model_file, tolerances
):
    # Drawn together, because only runs of one form are joined; the first rows of each are one run.
    feeds = split(model.inputs(1, rows=JOINED)[0], [1] * JOINED) if not model.axes else model.inputs(JOINED)
    tolerance = tolerances[model.name][2]
    async with await start() as worker:
        await worker.load(model_file(model.read()))
        if tolerance is None:
            with pytest.raises(InputsMismatch):
                join(feeds)
            return
        alone = [await run_tensors(worker, arrays) for arrays in feeds]
        together = split(await run_tensors(worker, join(feeds)), [1] * JOINED)
    assert farthest(alone, together) <= tolerance


def test_the_page_has_a_row_for_each_model_and_no_tolerance_that_allows_anything(tolerances):
    assert set(tolerances) == set(MODELS)
    assert all(0 <= number < 0.1 for cells in tolerances.values() for number in cells if number is not None)
