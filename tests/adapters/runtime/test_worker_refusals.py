"""RUN-7, RUN-8, RUN-14: hostile and broken models end with their own error, in time."""

import os

import pytest

from cocoon.core.errors import DtypeUnsupported, LimitExceeded, MemoryExceeded, ModelRefused, RunTimeout
from cocoon.core.units import GIB, MIB
from cocoon.core.values import replace
from tests import models
from tests.adapters.runtime.conftest import LIMITS, SHORT_NS, run_tensors

REFUSED = [
    (models.not_onnx, ModelRefused),
    (models.truncated_model, ModelRefused),
    (models.custom_domain_model, ModelRefused),
    (models.context_node_model, ModelRefused),
    (models.recursive_function_model, ModelRefused),
    (models.exploding_function_model, LimitExceeded),
    (models.sequence_output_model, ModelRefused),
    (models.sequence_input_model, ModelRefused),
    (models.optional_input_model, ModelRefused),
    (models.map_output_model, ModelRefused),
    (lambda: models.narrow_float_model("bfloat16"), DtypeUnsupported),
    (lambda: models.narrow_float_model("float8e4m3fn"), DtypeUnsupported),
    (models.memory_bomb_at_load, MemoryExceeded),
]


@pytest.mark.parametrize(("make", "error"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
async def test_a_refused_model_says_why_and_its_worker_is_gone(start, model_file, make, error):
    worker = await start()
    with pytest.raises(error) as caught:
        await worker.load(model_file(make()))
    assert caught.value.text and not worker.alive


async def test_a_hard_link_to_a_foreign_file_is_not_read(start, model_file, tmp_path):
    (tmp_path / "foreign.bin").write_bytes(bytes(16))
    os.link(tmp_path / "foreign.bin", tmp_path / "w.bin")
    worker = await start()
    with pytest.raises(ModelRefused, match="lies in another file"):
        await worker.load(model_file(models.external_data_model("w.bin", "sparse_attribute")))


async def test_an_unreadable_model_file_is_refused_without_a_worker_opening_it(start, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent.onnx", tmp_path, tmp_path / "pipe"):
        worker = await start()
        with pytest.raises(ModelRefused, match=r"cannot be read|no regular file"):
            await worker.load(path)
        await worker.close()


async def test_a_model_larger_than_a_third_of_its_memory_is_refused_before_it_is_parsed(start, model_file):
    worker = await start(replace(LIMITS, memory_bytes=MIB))
    with pytest.raises(MemoryExceeded, match=f"above {MIB}"):
        await worker.load(model_file(bytes(MIB)))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (models.memory_bomb, models.endless_inputs()),
        (models.memory_bomb_by_folding, models.endless_inputs()),
        (models.memory_bomb_by_input, models.bomb_inputs()),
        (models.kernel_bomb, models.kernel_bomb_inputs()),
    ],
    ids=["expand", "folding", "by input", "kernel"],
)
async def test_a_run_that_wants_too_much_memory_is_told_so_and_the_worker_lives_on(
    start, model_file, make, inputs
):
    async with await start() as worker:
        await worker.load(model_file(make()))
        with pytest.raises(MemoryExceeded):
            await run_tensors(worker, inputs)
        assert worker.alive
        if make is models.memory_bomb_by_input:
            assert (await run_tensors(worker, models.bomb_inputs(items=1000)))["y"] == 1000


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (models.endless_model, models.endless_inputs()),
        (models.endless_at_load_model, models.endless_inputs()),
        (models.kernel_bomb, models.kernel_bomb_inputs()),
    ],
    ids=["loop", "constant loop", "kernel"],
)
async def test_a_run_that_does_not_end_is_killed_at_its_deadline(start, model_file, make, inputs):
    worker = await start(replace(LIMITS, run_ns=SHORT_NS, memory_bytes=4 * GIB))
    await worker.load(model_file(make()))
    with pytest.raises(RunTimeout, match=r"no answer after 0\.5 s of running"):
        await run_tensors(worker, inputs)
    assert not worker.alive


async def test_a_load_that_does_not_end_is_killed_at_its_deadline(start, model_file):
    worker = await start(replace(LIMITS, load_ns=1))
    with pytest.raises(RunTimeout, match="of loading the model"):
        await worker.load(model_file(models.adder_model()))
    assert not worker.alive


async def test_the_next_model_runs_after_a_bomb(runtime, model_file):
    bomb = await runtime.take()
    with pytest.raises(MemoryExceeded):
        await bomb.load(model_file(models.memory_bomb_at_load()))
    user = models.five_models()[2]
    async with await runtime.take() as worker:
        await worker.load(model_file(user.model))
        assert (await run_tensors(worker, user.inputs))["best"].shape == (4,)
