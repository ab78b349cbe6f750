"""A peer's journal: rows that survive a crash, and rows that were on their way to the disk.

One commit takes everything that waits. A crash lets a part of what waits through,
from the oldest on, never half a batch: a batch is one transaction.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-6; store.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cocoon.core.errors import Duplicate
from cocoon.core.rng import Stream
from cocoon.core.units import MILLISECOND_NS
from cocoon.core.values import Value
from sim.engine.flow import Moment
from sim.engine.heap import Heap

#: One commit of SQLite with ``synchronous=FULL`` on a common SSD; assumed, with room for a slow one.
COMMIT_NS = 2 * MILLISECOND_NS


class Row(Value):
    """What is recorded; at most one row has a given unique key."""

    kind: str
    body: bytes
    unique: bytes | None = None


@dataclass(slots=True)
class Journal:
    """Rows in the order of their commits."""

    heap: Heap
    rows: list[Row] = field(default_factory=list)
    _keys: dict[bytes, Row] = field(default_factory=dict)
    #: Batches on their way, and whom to tell.
    _waiting: list[tuple[Sequence[Row], Moment[None]]] = field(default_factory=list)
    _life: int = 0
    _committing: bool = False

    async def append(self, *rows: Row) -> None:
        """Record these rows together; goes on once they are durable, and never if the peer crashes before."""
        if not rows:
            return
        durable: Moment[None] = Moment(self.heap)
        self._waiting.append((rows, durable))
        if not self._committing:
            self._committing = True
            self.heap.after(COMMIT_NS, self._commit, self._life)
        await durable.wait()

    def crash(self, draws: Stream) -> None:
        """The peer died: of what waited, some batches had reached the disk."""
        for rows, _ in self._waiting[: draws.below(len(self._waiting) + 1)]:
            self._store(rows)
        self._waiting.clear()
        self._life += 1
        self._committing = False

    def find(self, unique: bytes) -> Row | None:
        """The row with this key."""
        return self._keys.get(unique)

    def under(self, prefix: bytes) -> list[Row]:
        """Rows whose key begins so, in the order of their keys."""
        return [self._keys[key] for key in sorted(key for key in self._keys if key.startswith(prefix))]

    def entries(self, kind: str) -> Iterator[Row]:
        """Rows of one kind, oldest first."""
        return (row for row in self.rows if row.kind == kind)

    def _commit(self, life: int) -> None:
        if life != self._life:
            return
        self._committing = False
        batches, self._waiting = self._waiting, []
        for rows, _ in batches:
            self._store(rows)
        for _, durable in batches:
            durable.set(None)

    def _store(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.unique is not None:
                if row.unique in self._keys:
                    raise Duplicate(f"a second row {row.kind} with the key {row.unique.hex()}")
                self._keys[row.unique] = row
            self.rows.append(row)
