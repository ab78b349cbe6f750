"""The heap of events: simulated time moves from one to the next, ties in the order in which they were made.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

Call = Callable[..., None]
_HASHED_AT_ONCE = 1_024


@dataclass(slots=True)
class Heap:
    """What happens when, in nanoseconds since the world began."""

    now_ns: int = 0
    _queue: list[tuple[int, int, Call, tuple[Any, ...]]] = field(default_factory=list)
    _count: int = 0
    #: What waits for something that has not happened.
    _waiting: dict[Coroutine[Any, Any, None], None] = field(default_factory=dict)

    def at(self, at_ns: int, call: Call, *args: Any) -> None:
        """Let this happen then, or now if that is over."""
        self._count += 1
        heappush(self._queue, (at_ns if at_ns > self.now_ns else self.now_ns, self._count, call, args))

    def after(self, delay_ns: int, call: Call, *args: Any) -> None:
        """Let this happen so much later."""
        self._count += 1
        heappush(self._queue, (self.now_ns + (delay_ns if delay_ns > 0 else 0), self._count, call, args))

    def run(self, until_ns: int) -> None:
        """Let time pass."""
        queue, pop = self._queue, heappop
        while queue and queue[0][0] <= until_ns:
            self.now_ns, _, call, args = pop(queue)
            call(*args)
        self.now_ns = max(self.now_ns, until_ns)

    def hold(self, work: Coroutine[Any, Any, None]) -> None:
        """This waits."""
        self._waiting[work] = None

    def release(self, work: Coroutine[Any, Any, None]) -> None:
        """This is over."""
        self._waiting.pop(work, None)

    def end(self) -> None:
        """Nothing happens any more; what waits is closed, in order, and not by the collector in any."""
        while self._waiting:
            self._waiting.popitem()[0].close()
        self._queue.clear()


@dataclass(slots=True)
class Trace:
    """A digest over every fact that a machine took and what it ordered: two runs that differ anywhere differ here."""

    #: Keeps the lines themselves, for people who look for a difference.
    keeps: bool = False
    #: Else it only counts: writing the lines is a twentieth of a run, for who wants to know nothing but what broke.
    writes: bool = True
    facts: int = 0
    lines: list[str] = field(default_factory=list)
    #: Not hashed yet: many at once cost a third of each by itself.
    _fresh: list[str] = field(default_factory=list)
    _hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def note(self, line: str) -> None:
        """A machine of a peer took a fact: when, who, what, and what it ordered; counted by the caller."""
        if self.keeps:
            self.lines.append(line)
        self._fresh.append(line)
        if len(self._fresh) == _HASHED_AT_ONCE:
            self._take()

    def digest(self) -> str:
        """So far, in hex; empty if it only counts."""
        if not self.writes:
            return ""
        self._take()
        return str(self._hash.hexdigest())

    def _take(self) -> None:
        self._hash.update("".join(self._fresh).encode())
        self._fresh.clear()
