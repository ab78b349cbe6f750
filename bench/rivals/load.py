"""The load generator: raw HTTP/1.1 over kept connections, each with one request under way, for every server alike.

One callback a piece of an answer, no HTTP library: it costs 30 to 60 us a request, so that figures are the
servers'. It runs in a process of its own, on uvloop where that is installed.

usage: python -m bench.rivals.load ORDER.json      (prints nanoseconds of each request, as JSON)

Purity: shell (``figures`` and ``request_bytes`` are pure).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

#: A server that is slower than this for one request does not answer at all.
PATIENCE_S = 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


class WrongAnswer(Exception):
    """A server answered with another status, or with other bytes, than it should."""


@dataclass(frozen=True)
class Figures:
    """What a client saw: finished requests a second, and how long they took."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Load:
    """What is asked, how often at a time, and for how long.

    Attributes:
        requests: Each whole, head and body; they are asked in turn.
        answers: What the body of each of their answers ends with.
        warm_s, span_s: Before what counts, and what counts.
    """

    port: int
    requests: Sequence[bytes]
    answers: Sequence[bytes]
    at_a_time: int
    warm_s: float
    span_s: float


def figures(took_ns: Sequence[int], span_ns: int) -> Figures:
    """Rate, median and 99th percentile, by nearest rank."""
    if not took_ns:
        raise WrongAnswer(f"no request was answered within {span_ns / 1e9:.1f} s")
    ranked = sorted(took_ns)

    def percentile_ms(percent: int) -> float:
        return ranked[-(-len(ranked) * percent // 100) - 1] / 1e6

    return Figures(len(ranked) * 1e9 / span_ns, percentile_ms(50), percentile_ms(99))


def request_bytes(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A POST request, whole."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


class _Connection(asyncio.Protocol):
    """Asks again as soon as it is answered, until the time is over."""

    def __init__(self, load: Load, turn: int, count_from_ns: int, end_ns: int, took_ns: list[int]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load, self._count_from_ns, self._end_ns, self._took_ns = load, count_from_ns, end_ns, took_ns
        self._answer, self._wanted_bytes, self._asked_ns, self._turn = bytearray(), 0, 0, turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        self._answer += data
        if not self._wanted_bytes and (head_bytes := self._answer.find(_HEAD_END)) >= 0:
            self._wanted_bytes = self._answer_bytes(head_bytes)
        if self._wanted_bytes and len(self._answer) >= self._wanted_bytes:
            self._answered()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(WrongAnswer(f"the server closed the connection: {bytes(self._answer[:200])!r}"))

    def _ask(self) -> None:
        self._answer.clear()
        self._wanted_bytes, self._asked_ns = 0, time.perf_counter_ns()
        self._transport.write(self._load.requests[self._turn])

    def _answer_bytes(self, head_bytes: int) -> int:
        """The length of the whole answer; a refusal is never measured."""
        found = _LENGTH.search(self._answer, 0, head_bytes)
        if b" 200 " not in self._answer[:16] or found is None:
            self._fail(f"{bytes(self._answer[:300])!r}")
            return 0
        return head_bytes + len(_HEAD_END) + int(found[1])

    def _answered(self) -> None:
        now_ns = time.perf_counter_ns()
        turn, self._turn = self._turn, (self._turn + 1) % len(self._load.requests)
        if not self._answer.endswith(self._load.answers[turn]):
            self._fail("other bytes than the model's")
        elif now_ns >= self._end_ns:
            self.done.set_result(None)
            self._transport.close()
        else:
            if now_ns >= self._count_from_ns:
                self._took_ns.append(now_ns - self._asked_ns)
            self._ask()

    def _fail(self, what: str) -> None:
        self.done.set_exception(WrongAnswer(what))
        self._transport.close()


async def drive(load: Load) -> list[int]:
    """Nanoseconds of each request that was answered in the time that counts.

    Raises:
        WrongAnswer: a server refused, or gave other bytes; nothing of it counts then.
    """
    took_ns: list[int] = []
    count_from_ns = time.perf_counter_ns() + int(load.warm_s * 1e9)
    end_ns = count_from_ns + int(load.span_s * 1e9)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(
            partial(_Connection, load, turn % len(load.requests), count_from_ns, end_ns, took_ns),
            "127.0.0.1", load.port,
        ))[1]
        for turn in range(load.at_a_time)
    ]
    try:
        async with asyncio.timeout(load.warm_s + load.span_s + PATIENCE_S):
            await asyncio.gather(*(connection.done for connection in connections))
    except TimeoutError:
        raise WrongAnswer(f"a request was not answered within {PATIENCE_S} s") from None
    return took_ns


def main() -> None:
    """Drive the load that a file describes."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for name in ("requests", "answers"):
        order[name] = [Path(path).read_bytes() for path in order[name]]
    load = Load(**order)
    try:
        import uvloop
    except ImportError:
        took_ns = asyncio.run(drive(load))
    else:
        took_ns = uvloop.run(drive(load))
    print(json.dumps({"took_ns": took_ns, "span_ns": int(load.span_s * 1e9)}))


if __name__ == "__main__":
    main()
