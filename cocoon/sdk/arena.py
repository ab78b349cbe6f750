"""Where the inputs and the outputs of a task's open units lie, in memory that client and peer share.

The lowest place that is free is taken, because its pages are there already.

Purity: pure. Spec: docs/spec/control.md, rule CTL-24.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from cocoon.core.limits import ALIGNMENT_BYTES
from cocoon.core.pieces import Piece
from cocoon.core.values import Value


class Slot(Value):
    """Of one unit: its inputs at ``at``, and behind them room for its outputs."""

    at: int
    inputs_bytes: int
    room_at: int
    room_bytes: int

    @property
    def end(self) -> int:
        """Offset behind it."""
        return self.room_at + self.room_bytes


class Arena:
    """Slots of one piece of memory."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        #: (begin, end) of what is taken, ascending.
        self._taken: list[tuple[int, int]] = []
        self._last_bytes = 0

    @property
    def ready(self) -> bool:
        """Whether one more slot like the last would fit; an empty arena has no better time than now."""
        return not self._taken or self._place(self._last_bytes) is not None

    def take(self, inputs_bytes: int, room_bytes: int) -> Slot | None:
        """Room for the inputs and the outputs of a unit; None if there is none now."""
        inputs_room_bytes = -(-inputs_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self._last_bytes = inputs_room_bytes + room_bytes
        if (at := self._place(self._last_bytes)) is None:
            return None
        slot = Slot(at, inputs_bytes, at + inputs_room_bytes, room_bytes)
        insort(self._taken, (at, slot.end))
        return slot

    def free(self, slot: Slot) -> None:
        """Nobody reads or writes there any more."""
        self._taken.remove((slot.at, slot.end))

    def put(self, slot: Slot, pieces: Iterable[Piece]) -> memoryview:
        """Write the inputs of a unit; where they lie."""
        at = slot.at
        for piece in pieces:
            self._memory[at : at + len(piece)] = piece
            at += len(piece)
        return self._memory[slot.at : at]

    def outputs(self, slot: Slot, size_bytes: int) -> memoryview:
        """What the peer wrote, no more than there is room for; until the slot is freed."""
        return self._memory[slot.room_at : slot.room_at + size_bytes]

    def _place(self, size_bytes: int) -> int | None:
        """The lowest multiple of ``ALIGNMENT_BYTES`` with so many free bytes behind it."""
        at = 0
        for begin, end in self._taken:
            if begin - at >= size_bytes:
                return at
            at = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return at if len(self._memory) - at >= size_bytes else None
