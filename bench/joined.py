"""What joining the runs of an order saves in a worker: a model that is all weights, and one that is all arithmetic.

Equal inputs prove nothing and are never joined (JOI-17), so the same worker is measured with and without.

Purity: shell.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import trio

from bench.packaged import dense
from bench.rows import ROOT, Row
from cocoon.core.errors import CocoonError
from cocoon.core.limits import BATCH_RUNS
from cocoon.core.units import GIB
from cocoon.runtime.service import Worker, WorkerLimits
from cocoon.wire.tensors import encode_tensors

ITEMS, LAYERS = 1_024, 8
MAGIKA = ROOT / "build" / "magika" / "model.onnx"
#: Orders for a figure; and as many as it takes until all that is tried was tried.
ORDERS, LEARNING = 5, 16


def joined() -> list[Row]:
    """Milliseconds of an order of 64 runs of one row, one thread: alone, and after joining was tried."""
    generator = np.random.default_rng(1)
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder:
        weights = Path(folder, "dense.onnx")
        weights.write_bytes(dense(ITEMS, LAYERS))
        floats = [{"x": generator.standard_normal((1, ITEMS)).astype("f4")} for _ in range(BATCH_RUNS)]
        files = [{"bytes": generator.integers(0, 256, (1, 2_048), np.int32)} for _ in range(BATCH_RUNS)]
        found = [
            ("32 MiB of weights", "5", trio.run(_measure, weights, [encode_tensors(one) for one in floats], folder)),
            ("Magika, arithmetic", "1", trio.run(_measure, MAGIKA, [encode_tensors(one) for one in files], folder)),
        ]
    rows = []
    for name, goal, (alone_ms, together_ms, company) in found:
        rows.append(Row(f"64 runs, {name}: each alone, together", f"{alone_ms:.1f}, {together_ms:.1f} ms"))
        rows.append(Row(f"  times as fast, in company of {company}", f"{alone_ms / together_ms:.1f}", goal))
    return rows


async def _measure(model: Path, payloads: Sequence[bytes], folder: str) -> tuple[float, float, int]:
    limits = WorkerLimits(gpu=False, threads=1, memory_bytes=GIB)
    async with await Worker.start(limits, Path(folder)) as worker:
        await worker.load(model)
        alone = [await _order_ms(worker, [payloads[0]] * BATCH_RUNS) for _ in range(ORDERS)]
        for _ in range(LEARNING):
            await _order_ms(worker, payloads)
        together = [await _order_ms(worker, payloads) for _ in range(ORDERS)]
    return median(ms for ms, _ in alone), median(ms for ms, _ in together), together[-1][1]


async def _order_ms(worker: Worker, payloads: Sequence[bytes]) -> tuple[float, int]:
    """How long one order takes, and in whose company its first run was."""
    began = time.perf_counter()
    first, *_ = await worker.run_all(payloads)
    if isinstance(first, CocoonError):
        raise first
    return (time.perf_counter() - began) * 1e3, first.joined
