"""What leases pay for sharing a worker: as many runs under way in one lease, in eight, and in 64.

One worker of one thread, no link and no money: the figures are those of batcher, worker and their shell.

Purity: shell.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trio

from bench.packaged import dense, relu
from bench.rows import ROOT, Row
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.units import GIB
from cocoon.runtime.company import Joining
from cocoon.runtime.instances import Instance
from cocoon.runtime.service import Seat, Wanted, WorkerLimits, open_runtime
from cocoon.wire.tensors import encode_tensors

UNDER_WAY, SPAN_S = 64, 3.0
_LIMITS = WorkerLimits(gpu=False, threads=1, memory_bytes=GIB)
_TOLERANCE = 100, 1_000


def leases() -> list[Row]:
    """Runs a second of y = relu(x) and of 32 MiB of weights, by the number of leases; rows may meet in a batch."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-", dir=ROOT / "build") as folder:
        for name, model, items in (("relu", relu(), 256), ("32 MiB of weights", dense(1_024, 8), 1_024)):
            file = Path(folder, f"{items}.onnx")
            file.write_bytes(model)
            for count in (1, 8, 64):
                rate, peer_us = trio.run(_measure, file, items, count, Path(folder))
                figures, goal = f"{rate:,.0f}/s, {peer_us:.0f} us of the peer", "10,000/s" if count == 64 else ""
                rows.append(Row(f"{name}, 64 runs under way, leases on the worker: {count}", figures, goal))
    return rows


async def _measure(file: Path, items: int, count: int, folder: Path) -> tuple[float, float]:
    """Runs a second, and microseconds of this process for one."""
    generator, done = np.random.default_rng(1), 0
    payloads = [
        encode_tensors({"x": generator.standard_normal((1, items)).astype("f4")}) for _ in range(UNDER_WAY)
    ]
    wanted = Wanted(bytes(32), _LIMITS, file, tolerance=_TOLERANCE, joining=Joining.LEASES)
    async with open_runtime(_LIMITS, folder) as runtime:
        first = await runtime.seat(wanted, LeaseId(bytes(32)), PeerKey(bytes(32)))
        seats = [first, *[await _beside(first.instance, number) for number in range(1, count)]]

        async def run(seat: Seat, mine: Sequence[bytes], until_s: float) -> None:
            nonlocal done
            number = 1
            while time.monotonic() < until_s:
                outcomes = await seat.run_all(range(number, number + len(mine)), mine)
                number += len(mine)
                done += len(outcomes)

        began_s, own_s = time.monotonic(), time.process_time()
        async with trio.open_nursery() as nursery:
            for place, seat in enumerate(seats):
                nursery.start_soon(run, seat, payloads[place::count], began_s + SPAN_S)
        return done / (time.monotonic() - began_s), (time.process_time() - own_s) * 1e6 / done


async def _beside(instance: Instance, number: int) -> Seat:
    """Another lease on the same worker, however many cores are free."""
    lease, requester = LeaseId(bytes([number]) * 32), PeerKey(bytes([number]) * 32)
    instance.join(lease)

    async def nothing(one: Instance, of: LeaseId) -> None:
        """The runtime ends them all."""

    return Seat(instance, lease, requester, await instance.ready(), nothing)
