"""Real worker processes, small limits, a directory of its own for each test."""

import pytest
import trio

from cocoon.core.units import MIB, SECOND_NS
from cocoon.runtime.service import WorkerLimits, open_runtime
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests.workers import starting, writing

#: Long enough for a loaded machine; a test that needs it has hung.
PATIENCE_S = 120
LIMITS = WorkerLimits(memory_bytes=512 * MIB, load_ns=60 * SECOND_NS, run_ns=60 * SECOND_NS, threads=1)
#: For models that never end: the only deadline a test waits for.
SHORT_NS = SECOND_NS // 2


@pytest.fixture
async def runtime(tmp_path):
    """An open runtime; leaving it kills whatever the test left running."""
    workdir = tmp_path / "workers"
    workdir.mkdir()
    with trio.fail_after(PATIENCE_S):
        async with open_runtime(LIMITS, workdir) as opened:
            yield opened


@pytest.fixture
async def start(tmp_path):
    """A function that starts one worker, without a spare beside it; killed after the test."""
    async with starting(tmp_path, LIMITS, PATIENCE_S) as start:
        yield start


@pytest.fixture
def model_file(tmp_path):
    """A function that writes a model and returns its path."""
    return writing(tmp_path)


async def run_tensors(worker, inputs):
    """Run ``inputs`` (arrays) and return the output arrays."""
    return decode_tensors((await worker.run(encode_tensors(inputs))).outputs)
