"""The measure ``rivals`` of `make bench`: Cocoon and what users would take instead, on the same two cores.

Purity: shell.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cocoon
from bench.packaged import relu
from bench.peers import three_peers
from bench.rivals import contest
from bench.rivals.contest import LARGE, SMALL, SPAN_S, NoRival, Payload
from bench.rivals.load import Figures, figures
from bench.rows import Row
from cocoon.core.errors import CocoonError

CORES = 2
#: Inputs of one ``map``: some seconds of them.
_MAPPED = {SMALL: 2_000, LARGE: 40}


def rivals() -> list[Row]:
    """Requests per second, p50 and p99; every process is held to the same cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        return [*_plain(), *_cocoon(), *(row for rival in contest.rivals() for row in _rival(rival))]
    finally:
        os.sched_setaffinity(0, before)


def told(who: str, payload: Payload, how: str, found: Figures) -> Row:
    """One line of the table."""
    rate = f"{found.requests_per_s:,.0f}/s"
    return Row(f"{who}, {payload.name}, {how}", f"{rate:>9} {found.p50_ms:9.3f} {found.p99_ms:9.3f} ms")


def _plain() -> Iterator[Row]:
    for payload in (SMALL, LARGE):
        try:
            yield told("plain ONNX Runtime, in process", payload, "1 at a time", contest.plain(payload))
        except NoRival as error:
            yield Row(f"plain ONNX Runtime, {payload.name}", f"not here: {error}")


def _rival(rival: contest.Rival) -> Iterator[Row]:
    try:
        for payload, at_a_time, found in contest.measure(rival):
            yield told(rival.name, payload, f"{at_a_time} at a time", found)
    except NoRival as error:
        yield Row(rival.name, f"not here: {error}")


def _cocoon() -> Iterator[Row]:
    """Buyer, provider and bootstrap, sealed, paid and receipted; the client is this process."""
    with three_peers(paid=True) as (_, started, _), tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder:
        model = Path(folder, "relu.onnx")
        model.write_bytes(relu())
        client = cocoon.connect(started["requester"].home)
        for payload in (SMALL, LARGE):
            for who, way, how in (("Cocoon, run", _one_by_one, "1 at a time"), ("Cocoon, map", _mapped, "a stream")):
                try:
                    client.run(model, {"x": payload.x})  # the auction and the cold model are figures of their own
                    yield told(who, payload, how, way(client, model, payload))
                except CocoonError as error:
                    yield Row(f"{who}, {payload.name}, {how}", f"failed: {error.code}: {error.text}")


def _one_by_one(client: cocoon.Client, model: Path, payload: Payload) -> Figures:
    took_ns: list[int] = []
    inputs = {"x": payload.x}
    end_ns = time.perf_counter_ns() + int(SPAN_S * 1e9)
    while (began_ns := time.perf_counter_ns()) < end_ns:
        client.run(model, inputs)
        took_ns.append(time.perf_counter_ns() - began_ns)
    return figures(took_ns, sum(took_ns))


def _mapped(client: cocoon.Client, model: Path, payload: Payload) -> Figures:
    """Percentiles are of the time from one result to the next: what a reader of the stream waits for."""
    began_ns = last_ns = time.perf_counter_ns()
    took_ns: list[int] = []
    for _ in client.map(model, [{"x": payload.x}] * _MAPPED[payload], spread=1):
        now_ns = time.perf_counter_ns()
        took_ns.append(now_ns - last_ns)
        last_ns = now_ns
    return figures(took_ns, last_ns - began_ns)
