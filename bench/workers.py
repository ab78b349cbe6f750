"""Figures of confined workers: an honest one alone and beside a hostile one, and how soon a killed one is replaced.

The two ways take turns within one run, so that whatever else the machine does falls on both.

Purity: shell.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnx.parser
import trio

from bench.rows import Row
from cocoon.core.errors import CocoonError
from cocoon.core.limits import WORKER_START_NS
from cocoon.core.units import MICROSECOND_NS, MILLISECOND_NS, SECOND_NS
from cocoon.runtime.service import Runtime, Worker, WorkerLimits, open_runtime
from cocoon.wire.tensors import encode_tensors

TURNS = 12
RUNS_A_TURN = 400
REPLACEMENTS = 8
_LIMITS = WorkerLimits(run_ns=600 * SECOND_NS, gpu=False)
_HONEST = """<ir_version: 10, opset_import: ["" : 21]> g (float[256, 256] x) => (float[256, 256] y)
             { y = MatMul (x, x) }"""
_ENDLESS = """<ir_version: 10, opset_import: ["" : 21]> g (float x) => (float y)
              { yes = Constant <value = bool {1}> ()
                y = Loop <body = b (int64 i, bool c, float a) => (bool co, float ao)
                          { co = Identity (c) ao = Add (a, a) }> (, yes, x) }"""


@dataclass(slots=True)
class _Found:
    """Nanoseconds of runs, and of replacements."""

    alone: list[int] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    with_spare: list[int] = field(default_factory=list)
    without: list[int] = field(default_factory=list)


def workers() -> list[Row]:
    """An honest worker's run, 256 KiB each way, alone and beside an endless loop; and a replacement."""
    found = trio.run(_measure)
    p50_ns, p99_ns = median(found.alone), _p99(found.alone)
    goal = "1 s and the load"
    return [
        Row("run in a worker, alone, p50", _us(p50_ns)),
        Row("run in a worker, alone, p99", _us(p99_ns)),
        Row("run in a worker, beside an endless loop, p50", _us(median(found.beside)), _us(1.2 * p50_ns)),
        Row("run in a worker, beside an endless loop, p99", _us(_p99(found.beside)), _us(2 * p99_ns)),
        Row("killed worker replaced and loaded again, with a spare", _ms(median(found.with_spare)), goal),
        Row("killed worker replaced and loaded again, without one", _ms(median(found.without)), goal),
    ]


def _us(took_ns: float) -> str:
    return f"{took_ns / MICROSECOND_NS:.0f} us"


def _ms(took_ns: float) -> str:
    return f"{took_ns / MILLISECOND_NS:.0f} ms"


def _p99(values: list[int]) -> float:
    return quantiles(values, n=100)[-1]


async def _measure() -> _Found:
    found = _Found()
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder:
        honest, endless = Path(folder, "honest.onnx"), Path(folder, "endless.onnx")
        for path, text in ((honest, _HONEST), (endless, _ENDLESS)):
            path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
        async with open_runtime(_LIMITS, Path(folder)) as runtime:
            async with await runtime.take() as worker:
                await worker.load(honest)
                for _ in range(TURNS):
                    found.alone += await _runs(worker)
                    async with _hostile(runtime, endless):
                        found.beside += await _runs(worker)
            for _ in range(REPLACEMENTS):
                found.with_spare.append(await _replace(runtime, honest, wait=True))
                found.without.append(await _replace(runtime, honest, wait=False))
    return found


async def _runs(worker: Worker) -> list[int]:
    """Nanoseconds of each of many runs, one after the other."""
    payload = encode_tensors({"x": np.ones((256, 256), "f4")})
    took: list[int] = []
    for _ in range(RUNS_A_TURN):
        began_ns = time.perf_counter_ns()
        await worker.run(payload)
        took.append(time.perf_counter_ns() - began_ns)
    return took


@asynccontextmanager
async def _hostile(runtime: Runtime, endless: Path) -> AsyncIterator[None]:
    """A worker in an endless loop while the block runs; the spare that replaces it has started before."""
    async with await runtime.take() as worker, trio.open_nursery() as nursery:
        await worker.load(endless)
        nursery.start_soon(_run_for_ever, worker)
        await _spare(runtime)
        yield
        nursery.cancel_scope.cancel()


async def _run_for_ever(worker: Worker) -> None:
    await worker.run(encode_tensors({"x": np.array(1, "f4")}))


async def _spare(runtime: Runtime) -> None:
    """Until the next worker waits with its imports done: its start is no part of the figure."""
    with trio.fail_after(WORKER_START_NS / SECOND_NS):
        while runtime._offer.statistics().tasks_waiting_send == 0:
            await trio.sleep(0.01)


async def _replace(runtime: Runtime, model: Path, *, wait: bool) -> int:
    """Nanoseconds from the death of a loaded worker to the next one, loaded; ``wait`` for the spare before."""
    async with await runtime.take() as worker:
        await worker.load(model)
        if wait:
            await _spare(runtime)
        began_ns = time.perf_counter_ns()
        os.kill(worker.pid, signal.SIGKILL)
        with suppress(CocoonError):
            await worker.run(encode_tensors({"x": np.ones((256, 256), "f4")}))
        async with await runtime.take() as other:
            await other.load(model)
            return time.perf_counter_ns() - began_ns
