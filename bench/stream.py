"""Figures of runs that cross the market: a stream of them, one alone, and what they cost the peers.

Sealed, paid and receipted; buyer, provider and bootstrap are processes of their own, the client is this one.

Purity: shell.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

import cocoon
from bench.packaged import relu
from bench.peers import three_peers
from bench.rows import Row
from cocoon.demo.processes import Peer

RUNS, ROUNDS = 8_000, 3
ALONE = 150
LARGE_RUNS = 60
THREADS = 64
#: More than go together in a worker: it joins runs of a model once it saw as many different ones come out the same.
VARIANTS = 128
Inputs = Mapping[str, Any]
_BOTH = ("provider", "requester")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class _OneByOne:
    """Inputs of which the next is asked for when there is room for it."""

    def __init__(self, inputs: Sequence[Inputs], count: int) -> None:
        self._inputs, self._count = inputs, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Inputs]:
        return islice(cycle(self._inputs), self._count)


def _rows(items: int, variants: int) -> list[Inputs]:
    """Rows that differ, as those of users do."""
    row = np.linspace(-1, 1, items, dtype="f4")
    return [{"x": np.roll(row, turn).reshape(1, items)} for turn in range(variants)]


def shared() -> list[Row]:
    """The same over libp2p, as where peers cannot reach each other directly."""
    temporary = tempfile.TemporaryDirectory(prefix="cocoon-bench-")
    with three_peers(paid=True, direct=False) as (_, started, _), temporary as folder:
        model = Path(folder, "relu.onnx")
        model.write_bytes(relu())
        client = cocoon.connect(started["requester"].home)
        small = _rows(256, VARIANTS)
        client.run(model, small[0])
        rate, peers_us, _ = _streamed(client, model, small, started)
        kept_ms = _kept_ms(client, model, small)
    return [
        Row("runs of 1 KiB each way in one map, over libp2p", f"{rate:,.0f}/s", "9,000/s"),
        Row("  CPU of both peers for one", f"{peers_us:.0f} us"),
        Row("one run of an open session over libp2p, p50, p95", _told(kept_ms), "1.5 ms"),
    ]


def stream() -> list[Row]:
    """One model (y = relu(x)), one lease; medians of several rounds."""
    with three_peers(paid=True) as (_, started, _), tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder:
        model = Path(folder, "relu.onnx")
        model.write_bytes(relu())
        client = cocoon.connect(started["requester"].home)
        small, large = _rows(256, VARIANTS), _rows(1 << 20, 2)
        client.run(model, small[0])                     # the auction and the cold model are figures of their own
        rounds = [_streamed(client, model, small, started) for _ in range(ROUNDS)]
        rate, peers_us, client_us = (median(one[index] for one in rounds) for index in range(3))
        alone_ms = median(_alone_ms(client, model, small[0]) for _ in range(ALONE))
        kept_ms = _kept_ms(client, model, small)
        shared_rate, shared_ms = _shared_session(client, model, small)
        began = time.perf_counter()
        for _ in client.map(model, _OneByOne(large, LARGE_RUNS), spread=1):
            pass
        large_rate = LARGE_RUNS / (time.perf_counter() - began)
    return [
        Row("runs of 1 KiB each way in one map", f"{rate:,.0f}/s", "9,000/s"),
        Row("  CPU of both peers for one", f"{peers_us:.0f} us", "60 us"),
        Row("  CPU of the client for one", f"{client_us:.0f} us"),
        Row("one task of one run, p50", f"{alone_ms:.1f} ms"),
        Row("one run of an open session, p50, p95", _told(kept_ms), "0.6 ms"),
        Row(f"runs of {THREADS} threads that share a session", f"{shared_rate:,.0f}/s"),
        Row("  one of them, p50, p95", _told(shared_ms)),
        Row("runs of 4 MiB each way in one map", f"{large_rate:.1f}/s"),
    ]


def _streamed(
    client: cocoon.Client, model: Path, inputs: Sequence[Inputs], started: Mapping[str, Peer]
) -> tuple[float, float, float]:
    """Runs a second; microseconds of CPU of both peers, and of this process, for one."""
    before_s, own_s, began = _cpu_s(started), time.process_time(), time.perf_counter()
    for _ in client.map(model, _OneByOne(inputs, RUNS), spread=1):
        pass
    took, own_s = time.perf_counter() - began, time.process_time() - own_s
    return RUNS / took, (_cpu_s(started) - before_s) * 1e6 / RUNS, own_s * 1e6 / RUNS


def _alone_ms(client: cocoon.Client, model: Path, inputs: Inputs) -> float:
    began = time.perf_counter()
    client.run(model, inputs)
    return (time.perf_counter() - began) * 1e3


def _kept_ms(client: cocoon.Client, model: Path, inputs: Sequence[Inputs]) -> tuple[float, float]:
    """Of runs that come one by one."""
    took_ms: list[float] = []
    with client.session(model, runs=4 * ALONE) as session:
        for one in _OneByOne(inputs, 4 * ALONE):
            began = time.perf_counter()
            session.run(one)
            took_ms.append((time.perf_counter() - began) * 1e3)
    return median(took_ms), quantiles(took_ms, n=20)[-1]


def _shared_session(
    client: cocoon.Client, model: Path, inputs: Sequence[Inputs]
) -> tuple[float, tuple[float, float]]:
    """Runs a second of callers that each wait for their own, and how long one of them takes."""
    took_ms: list[float] = []

    def use() -> None:
        for one in _OneByOne(inputs, ALONE):
            began = time.perf_counter()
            session.run(one)
            took_ms.append((time.perf_counter() - began) * 1e3)

    with client.session(model, runs=THREADS * ALONE) as session, ThreadPoolExecutor(THREADS) as threads:
        began = time.perf_counter()
        for done in [threads.submit(use) for _ in range(THREADS)]:
            done.result()
        took = time.perf_counter() - began
    return THREADS * ALONE / took, (median(took_ms), quantiles(took_ms, n=20)[-1])


def _told(figures_ms: tuple[float, float]) -> str:
    return ", ".join(f"{ms:.1f}" for ms in figures_ms) + " ms"


def _cpu_s(started: Mapping[str, Peer]) -> float:
    """Seconds of CPU of both peers so far; their workers are processes of their own."""
    return sum(_process_s(started[name].pid) for name in _BOTH)


def _process_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
