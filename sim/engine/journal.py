"""A peer's journal: rows that survive the process, and of these the ones that survive a power cut.

A flush takes everything that was written when it began; what is to be durable and comes
meanwhile is written together after it. A killed process loses what is not written, a host
without power also the newest of what is not flushed, never half a batch: that is one transaction.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-6; store.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from cocoon.core.errors import Duplicate
from cocoon.core.limits import JOURNAL_LAG_NS
from cocoon.core.rng import Stream
from cocoon.core.units import MILLISECOND_NS
from cocoon.core.values import Value
from sim.engine.flow import Moment
from sim.engine.heap import Heap

#: One flush on a common SSD; assumed, with room for a slow one.
COMMIT_NS = 2 * MILLISECOND_NS


class Row(Value):
    """What is recorded; at most one row has a given unique key."""

    kind: str
    body: bytes
    unique: bytes | None = None


@dataclass(slots=True)
class Journal:
    """Rows in the order in which they were written."""

    heap: Heap
    rows: list[Row] = field(default_factory=list)
    _keys: dict[bytes, Row] = field(default_factory=dict)
    #: Batches that are to be written with the next transaction, and whom to tell when it is flushed.
    _line: list[tuple[Sequence[Row], Moment[None]]] = field(default_factory=list)
    #: Who waits until so many rows are flushed, ascending.
    _waiting: list[tuple[int, Moment[None]]] = field(default_factory=list)
    #: How many rows are flushed, and where the transactions behind them end.
    _flushed: int = 0
    _ends: list[int] = field(default_factory=list)
    _is_flushing: bool = False
    _life: int = 0
    #: Called, once, when something is written.
    on_write: Callable[[], None] | None = None

    async def append(self, *rows: Row) -> None:
        """Record these rows together; goes on once they are durable, and never if the peer crashes before."""
        if not rows:
            return
        durable: Moment[None] = Moment(self.heap)
        self._line.append((rows, durable))
        if not self._is_flushing:
            self._begin_flush()
        await durable.wait()

    def write(self, *rows: Row) -> None:
        """Record these rows together; they outlive the process at once, and a power cut a moment later."""
        if rows:
            self._write_line()
            self._store(rows)
            if not self._is_flushing and len(self._ends) == 1:
                self.heap.after(JOURNAL_LAG_NS, self._lagged, self._life)

    async def flush(self) -> None:
        """Go on once everything that was written is durable."""
        self._write_line()
        if self._ends:
            durable: Moment[None] = Moment(self.heap)
            self._waiting.append((len(self.rows), durable))
            if not self._is_flushing:
                self._begin_flush()
            await durable.wait()

    def crash(self, draws: Stream, *, power: bool) -> None:
        """The peer died. Of what was not flushed a power cut lets some of the oldest through."""
        if power:
            kept = [self._flushed, *self._ends][draws.below(len(self._ends) + 1)]
            for row in self.rows[kept:]:
                self._keys.pop(row.unique or b"", None)
            del self.rows[kept:]
        self._flushed = len(self.rows)
        for part in (self._line, self._waiting, self._ends):
            part.clear()
        self._life += 1
        self._is_flushing = False

    def find(self, unique: bytes) -> Row | None:
        """The row with this key."""
        return self._keys.get(unique)

    def under(self, prefix: bytes) -> list[Row]:
        """Rows whose key begins so, in the order of their keys."""
        return [self._keys[key] for key in sorted(key for key in self._keys if key.startswith(prefix))]

    def entries(self, kind: str) -> Iterator[Row]:
        """Rows of one kind, oldest first."""
        return (row for row in self.rows if row.kind == kind)

    def _lagged(self, life: int) -> None:
        if life == self._life and self._ends and not self._is_flushing:
            self._begin_flush()

    def _begin_flush(self) -> None:
        self._write_line()
        self._is_flushing = True
        self.heap.after(COMMIT_NS, self._is_done, self._life, len(self.rows))

    def _is_done(self, life: int, flushed: int) -> None:
        if life != self._life:
            return
        self._is_flushing, self._flushed = False, flushed
        self._ends = [end for end in self._ends if end > flushed]
        woken = [durable for rows, durable in self._waiting if rows <= flushed]
        self._waiting = self._waiting[len(woken) :]
        if self._line or self._ends:
            self._begin_flush()
        for durable in woken:
            durable.set(None)

    def _write_line(self) -> None:
        """In one transaction."""
        line, self._line = self._line, []
        for rows, durable in line:
            self._store(rows, ends=False)
            self._waiting.append((len(self.rows), durable))
        if line:
            self._ends.append(len(self.rows))

    def _store(self, rows: Sequence[Row], *, ends: bool = True) -> None:
        for row in rows:
            if row.unique is not None:
                if row.unique in self._keys:
                    raise Duplicate(f"a second row {row.kind} with the key {row.unique.hex()}")
                self._keys[row.unique] = row
            self.rows.append(row)
        if ends:
            self._ends.append(len(self.rows))
        if self.on_write is not None:
            told, self.on_write = self.on_write, None
            told()
