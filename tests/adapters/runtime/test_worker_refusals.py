"""RUN-5, RUN-14, RUN-15: files that are no models, too little memory, too little time.

Hostile models and inputs have a corpus of their own: tests/attack/hostile_models.
"""

import os
import signal

import pytest

from cocoon.core.errors import MemoryExceeded, ModelRefused, RunTimeout
from cocoon.core.units import MIB, MILLISECOND_NS
from cocoon.core.values import replace
from tests import models
from tests.adapters.runtime.conftest import LIMITS, run_tensors


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


async def test_a_run_that_wants_too_much_memory_is_told_so_and_the_worker_lives_on(start, model_file):
    async with await start() as worker:
        await worker.load(model_file(models.memory_bomb_by_input()))
        with pytest.raises(MemoryExceeded):
            await run_tensors(worker, models.bomb_inputs())
        assert worker.alive
        assert (await run_tensors(worker, models.bomb_inputs(items=1000)))["y"] == 1000


async def test_a_load_that_does_not_end_is_killed_at_its_deadline(start, model_file):
    worker = await start(replace(LIMITS, load_ns=MILLISECOND_NS))
    os.kill(worker.pid, signal.SIGSTOP)        # it cannot answer before we look at the clock
    with pytest.raises(RunTimeout, match="of loading the model"):
        await worker.load(model_file(models.adder_model()))
    assert not worker.alive
