"""Tokens that one process sells to another, in turns with the bare loop: SmolLM2, sealed and receipted.

Purity: shell.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import cocoon
from bench.peers import three_peers
from bench.rows import Row
from bench.tokens import PACKAGE, BareLoop
from cocoon.node.packing import write_package
from cocoon.sdk import Ask

#: As the bare loop has it, so that rows are as long on both sides.
_PROMPT = tuple(range(1_000, 1_024))
_TOKENS = 64
_ROUNDS = 5


def spoken() -> list[Row]:
    """Pace and its evenness for one and for eight prompts, as a client hears them."""
    with (
        tempfile.TemporaryDirectory(prefix="cocoon-bench-") as folder, three_peers() as (_, started, _),
        BareLoop() as bare,
    ):
        package = Path(folder) / "smollm2"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns(".done"))
        write_package(package, None, {"kind": "generate"})
        client = cocoon.connect(started["requester"].home)
        _heard(client, package, 1)                      # the model is loaded now
        # In turns: the machine may be a third slower in the next minute.
        both = {
            count: [(bare.pace(count, _TOKENS), _heard(client, package, count)) for _ in range(_ROUNDS)]
            for count in (1, 8)
        }
    rows: list[Row] = []
    for count, turns in both.items():
        rounds = [times for _, times in turns]
        pace = median(_pace(times) for times in rounds)
        gaps = sorted(gap for times in rounds for gap in _gaps_ms(times))
        p50, p99 = median(gaps), quantiles(gaps, n=100)[-1]
        goal = "0.95" if count == 1 else "0.80"
        share = median(_pace(times) / alone for alone, times in turns)
        rows += [
            Row(f"tokens of another process, {count} at a time", f"{pace:.0f}/s"),
            Row(f"  of a bare loop that passes its cache on, {count} at a time", f"{share:.2f}", goal),
            Row(f"  between two tokens, p50 and p99, {count} at a time", f"{p50:.1f} ms, {p99:.1f} ms", "p99 2 x p50"),
        ]
    return rows


def _heard(client: cocoon.Client, package: Path, count: int) -> list[list[float]]:
    """When each token of each of so many asks came."""
    times: list[list[float]] = [[] for _ in range(count)]
    client.generate(
        package, [Ask(_PROMPT, _TOKENS)] * count,
        on_token=lambda ask, place, token: times[ask].append(time.perf_counter()),
    )
    return times


def _pace(times: Sequence[Sequence[float]]) -> float:
    """Tokens per second while all are made: behind the last prompt that was read, before the first answer is over."""
    begin, end = max(one[0] for one in times), min(one[-1] for one in times)
    return sum(begin < at <= end for one in times for at in one) / (end - begin)


def _gaps_ms(times: Sequence[Sequence[float]]) -> list[float]:
    begin = max(one[0] for one in times)
    return [
        (later - sooner) * 1e3 for one in times for sooner, later in zip(one, one[1:], strict=False) if sooner >= begin
    ]
