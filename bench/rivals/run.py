"""The measure ``rivals`` of `make bench`: Cocoon and what users would take instead, on the same two cores.

Purity: shell.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cocoon
from bench.packaged import relu
from bench.peers import three_peers
from bench.rivals import contest
from bench.rivals.contest import LARGE, SMALL, SPAN_S, NoRival, Payload
from bench.rivals.load import Figures, figures
from bench.rows import Row
from cocoon.core.errors import CocoonError
from cocoon.core.limits import UNITS_PER_TASK

Way = Callable[[cocoon.Client, Path, Payload], Figures]
CORES = 2
#: Inputs of one ``map``: some seconds of them, behind a tenth as many that do not count, as with the others.
_MAPPED = {SMALL: 30_000, LARGE: 200}


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
            ways: list[tuple[str, Way, str]] = [("Cocoon, run", _one_by_one, "1 at a time")]
            for at_a_time in [count for size, count in contest.CELLS if size == payload]:
                ways.append(("Cocoon, session", partial(_in_session, at_a_time=at_a_time), f"{at_a_time} at a time"))
            for who, way, how in (*ways, ("Cocoon, map", _mapped, "a stream")):
                try:
                    client.run(model, {"x": payload.x(0)})  # the auction and the cold model are figures of their own
                    yield told(who, payload, how, way(client, model, payload))
                except CocoonError as error:
                    yield Row(f"{who}, {payload.name}, {how}", f"failed: {error.code}: {error.text}")


def _one_by_one(client: cocoon.Client, model: Path, payload: Payload) -> Figures:
    took_ns: list[int] = []
    inputs = _inputs(payload)
    end_ns = time.perf_counter_ns() + int(SPAN_S * 1e9)
    while (began_ns := time.perf_counter_ns()) < end_ns:
        client.run(model, inputs[len(took_ns) % len(inputs)])
        took_ns.append(time.perf_counter_ns() - began_ns)
    return figures(took_ns, sum(took_ns))


def _inputs(payload: Payload) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [{"x": payload.x(turn)} for turn in range(payload.variants)]


def _in_session(client: cocoon.Client, model: Path, payload: Payload, at_a_time: int) -> Figures:
    """Of threads that share a session, each with one run under way."""
    took_ns: list[int] = []
    inputs = _inputs(payload)

    def use(turn: int) -> None:
        while (asked_ns := time.perf_counter_ns()) < end_ns:
            session.run(inputs[turn % len(inputs)])
            took_ns.append(time.perf_counter_ns() - asked_ns)
            turn += at_a_time

    with client.session(model, runs=UNITS_PER_TASK) as session, ThreadPoolExecutor(at_a_time) as threads:
        session.run(inputs[0])
        began_ns = time.perf_counter_ns()
        end_ns = began_ns + int(SPAN_S * 1e9)
        for done in [threads.submit(use, turn) for turn in range(at_a_time)]:
            done.result()
        span_ns = time.perf_counter_ns() - began_ns
    return figures(took_ns, span_ns)


def _mapped(client: cocoon.Client, model: Path, payload: Payload) -> Figures:
    """Percentiles are of the time from one result to the next: what a reader of the stream waits for."""
    inputs, count = _inputs(payload), _MAPPED[payload]
    sent = [inputs[turn % len(inputs)] for turn in range(count)]
    for _ in client.map(model, sent[: count // 10], spread=1):
        pass
    began_ns = last_ns = time.perf_counter_ns()
    took_ns: list[int] = []
    for _ in client.map(model, sent, spread=1):
        now_ns = time.perf_counter_ns()
        took_ns.append(now_ns - last_ns)
        last_ns = now_ns
    return figures(took_ns, last_ns - began_ns)
