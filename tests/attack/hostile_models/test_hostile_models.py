"""RUN-7 to RUN-16: whatever a stranger's model is, its worker ends or answers in time, and the next one is served."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import trio

from cocoon.core.errors import CocoonError
from cocoon.core.units import MIB, SECOND_NS
from cocoon.core.values import replace
from cocoon.runtime.service import Worker, WorkerLimits
from cocoon.wire.tensors import decode_tensors, encode_tensors
from tests import models
from tests.attack.hostile_models import appetite, forms
from tests.attack.hostile_models.row import Row

#: One of three in every test run, all of them in the long one.
ROWS = [
    pytest.param(row, id=row.name.replace(" ", "-"), marks=[pytest.mark.long] * (number % 3 > 0))
    for number, row in enumerate([*appetite.ROWS, *forms.ROWS])
]
#: Long enough for a loaded machine.
LIMITS = WorkerLimits(memory_bytes=512 * MIB, load_ns=60 * SECOND_NS, run_ns=60 * SECOND_NS)
#: For what may never end: the only deadline that is waited for.
SHORT_NS = SECOND_NS // 2
PATIENCE_S = 120
#: A peer holds a payload of a run at most, whatever the model does.
PEER_BYTES = 64 * MIB


def _memory_bytes(name: str) -> int:
    """A figure of this process, the peer: what is resident now, or was at the most since it was last forgotten."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1_024


def _lure(worker: Worker) -> None:
    """Put what models name where the worker stands, and above it: a path that is followed leads to a file."""
    place = Path(os.readlink(f"/proc/{worker.pid}/cwd"))
    (place.parent / "weights.bin").write_bytes(bytes(16))
    (place / "symbolic.bin").symlink_to(place.parent / "weights.bin")
    os.link(place.parent / "weights.bin", place / "hard.bin")


async def _end_of(worker: Worker, model: Path, payload: bytes) -> str:
    """The code of the error that the model or its run ends with."""
    try:
        await worker.load(model)
        await worker.run(payload)
    except CocoonError as error:
        assert error.text, "an error without a word"
        return error.code
    return "answered"


async def _serve_honestly(workdir: Path) -> list[float]:
    """A model of somebody else, in a worker of its own."""
    (workdir / "honest.onnx").write_bytes(models.adder_model())
    async with await Worker.start(LIMITS, workdir) as worker:
        await worker.load(workdir / "honest.onnx")
        answer = await worker.run(encode_tensors({"x": np.arange(3, dtype="f4")}))
    found: list[float] = decode_tensors(answer.outputs)["y"].tolist()
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads and resets memory figures of Linux")
@pytest.mark.parametrize("row", ROWS)
async def test_a_hostile_model_ends_typed_costs_the_peer_no_memory_and_leaves_the_next_alone(
    tmp_path: Path, row: Row
) -> None:
    model, payload = tmp_path / "hostile.onnx", row.payload()
    model.write_bytes(row.model())
    limits = replace(LIMITS, run_ns=SHORT_NS) if "run_timeout" in row.codes else LIMITS
    with trio.fail_after(PATIENCE_S):
        async with await Worker.start(limits, tmp_path) as worker:
            _lure(worker)
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            before_bytes = _memory_bytes("VmRSS")
            assert await _end_of(worker, model, payload) in row.codes
            assert _memory_bytes("VmHWM") - before_bytes <= PEER_BYTES
        assert await _serve_honestly(tmp_path) == [1, 2, 3]


def test_the_rows_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({param.id for param in ROWS}) == len(ROWS) >= 100
