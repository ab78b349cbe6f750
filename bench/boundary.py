"""What the way into a worker and back costs beside ONNX Runtime itself.

Purity: shell.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx.parser
import trio

from bench.rows import Row
from cocoon.core.units import MICROSECOND_NS
from cocoon.runtime.service import Worker, WorkerLimits
from cocoon.wire.layout import largest_raw
from cocoon.wire.tensors import encode_tensors

#: Floats of a tensor, how many runs, and the goal in microseconds.
SIZES = ((256, 3_000, 120), (1 << 20, 300, 600))
WARM_UP = 50
_RELU = """<ir_version: 10, opset_import: ["" : 21]> g (float[N, ITEMS] x) => (float[N, ITEMS] y) { y = Relu (x) }"""


def boundary() -> list[Row]:
    """Wall time of a run without its time in the engine, inputs in place: p50."""
    rows = []
    for items, runs, goal_us in SIZES:
        cost_us = trio.run(_measure, items, runs)
        what = f"worker boundary, {items * 4 // 1024} KiB each way in place, p50"
        rows.append(Row(what, f"{cost_us} us", f"{goal_us} us"))
    return rows


async def _measure(items: int, runs: int) -> int:
    payload = encode_tensors({"x": np.linspace(-1, 1, items, dtype="f4").reshape(1, items)})
    costs = []
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder:
        model = Path(folder, "relu.onnx")
        model.write_bytes(onnx.parser.parse_model(_RELU.replace("ITEMS", str(items))).SerializeToString())
        async with await Worker.start(WorkerLimits(gpu=False), Path(folder)) as worker:
            await worker.load(model)
            span, room = worker.room(len(payload), largest_raw(payload))
            room[:] = payload
            for turn in range(WARM_UP + runs):
                began_ns = time.perf_counter_ns()
                report = await worker.run_in(span)
                took_us = (time.perf_counter_ns() - began_ns) / MICROSECOND_NS
                if turn >= WARM_UP:
                    costs.append(took_us - report.ran_us)
    return round(median(costs))
