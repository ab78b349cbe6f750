"""Figures of real peers on this machine: starting, one warm file, one cold file, idle memory.

Purity: shell.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import numpy as np

import cocoon
from bench.rows import ROOT, Row
from cocoon.demo.interrupts import Interrupts
from cocoon.demo.processes import Crew, Peer, crew

MODEL = ROOT / "build" / "magika" / "model.onnx"
WARM_RUNS = 200
#: Pages are counted once per process; what two processes share is counted twice.
_PAGE_BYTES = 4_096

#: Plain ONNX Runtime in a process of its own, same model, same options: what the user would take instead.
_PLAIN = """
import sys, time, numpy as np, onnxruntime as ort
from statistics import median
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
took = []
for index in range(int(sys.argv[2])):
    feeds = {"bytes": np.full((1, 2048), index % 256, np.int32)}
    began = time.perf_counter()
    session.run(None, feeds)
    took.append(time.perf_counter() - began)
print(median(took) * 1e3)
"""


#: Of a provider that is paid, per 1,000 runs; and what both wallets begin with. A run is a thousandth of a tranche.
_PAID = {"COCOON_PRICE_RUN_NANOTON": "1000000"}
_FUNDS_NANOTON = 10_000_000_000


@contextmanager
def started_here() -> Iterator[Crew]:
    """A crew that ends with this process, also if that is asked to end in the middle."""
    interrupts = Interrupts()
    with interrupts.installed(), crew(interrupts) as members:
        yield members


@contextmanager
def three_peers(
    *, paid: bool = False, direct: bool = True
) -> Iterator[tuple[Crew, dict[str, Peer], dict[str, float]]]:
    """Bootstrap, provider and requester, ready, with the seconds that each took; runs cost nothing unless ``paid``.

    Args:
        direct: Whether leases may have connections of their own.
    """
    links = {} if direct else {"COCOON_DIRECT_LINKS": "false"}
    with started_here() as members:
        peers = {"bootstrap": members.start("bootstrap", "up", "--role", "bootstrap")}
        link = members.wait_link(peers["bootstrap"])
        took = {"bootstrap": members.wait_ready(peers["bootstrap"])}
        for name, *flags in (("provider", "--provide"), ("requester",)):
            priced = _PAID if paid and flags else {}
            peers[name] = members.start(name, "up", *flags, "--join", link, **links, **priced)
            took[name] = members.wait_ready(peers[name])
            if paid:
                cocoon.connect(peers[name].home).fund(_FUNDS_NANOTON)
        yield members, peers, took


def _inputs(value: int) -> dict[str, np.ndarray]:
    """What Magika takes of one file: int32 (1, 2048)."""
    return {"bytes": np.full((1, 2048), value % 256, np.int32)}


def peers() -> list[Row]:
    """Start to ready, idle memory, and one file through a warm and a cold lease."""
    with three_peers() as (_, started, took):
        requester = cocoon.connect(started["requester"].home)
        idle_mib = {name: _resident_mib(peer.pid) for name, peer in started.items()}
        cold_ms = _milliseconds(requester)
        warm = sorted(_milliseconds(requester, value) for value in range(WARM_RUNS))
    plain_ms = float(subprocess.run(
        [sys.executable, "-c", _PLAIN, str(MODEL), str(WARM_RUNS)], check=True, capture_output=True, text=True
    ).stdout)
    p50, p95 = median(warm), quantiles(warm, n=20)[-1]
    return [
        Row("cocoon up (buyer) to ready", f"{took['requester']:.2f} s", "3 s"),
        Row("cocoon up --provide to ready", f"{took['provider']:.2f} s", "3 s"),
        Row("idle buyer, resident", f"{idle_mib['requester']:.0f} MiB", "150 MiB"),
        Row("idle provider without its worker, resident", f"{idle_mib['provider']:.0f} MiB", "150 MiB"),
        Row("Magika, one file, warm lease, p50", f"{p50:.1f} ms", "30 ms"),
        Row("Magika, one file, warm lease, p95", f"{p95:.1f} ms"),
        Row("  the same in plain ONNX Runtime, p50", f"{plain_ms:.1f} ms"),
        Row("  ratio", f"{p50 / plain_ms:.1f}"),
        Row("Magika, one file, discovery and cold model", f"{cold_ms:.0f} ms"),
    ]


def _milliseconds(client: cocoon.Client, value: int = 0) -> float:
    began = time.perf_counter()
    client.run(MODEL, _inputs(value))
    return (time.perf_counter() - began) * 1e3


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
