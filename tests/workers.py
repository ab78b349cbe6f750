"""What tests of real workers share: starting them, so that none outlives its test, and writing models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from cocoon.runtime.service import Worker, WorkerLimits

Start = Callable[..., Awaitable[Worker]]


@asynccontextmanager
async def starting(folder: Path, usual: WorkerLimits, patience_s: float) -> AsyncIterator[Start]:
    """A function that starts one worker below ``folder``, with ``usual`` limits or others; all end with the block."""
    started: list[Worker] = []

    async def one(limits: WorkerLimits = usual) -> Worker:
        started.append(await Worker.start(limits, folder))
        return started[-1]

    try:
        with trio.fail_after(patience_s):
            yield one
    finally:
        for worker in started:
            await worker.close()


def writing(folder: Path) -> Callable[..., Path]:
    """A function that writes a model to ``folder`` and returns its path."""

    def write(data: bytes, name: str = "model.onnx") -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return write
