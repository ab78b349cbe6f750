"""When silence means death: the reader's side of the heartbeat on ``/cocoon/beat/1``.

Missed beats are counted by expired waits, not by a wall clock, so that a peer
that was itself stopped for a minute misses one beat and not thirty.

Purity: pure. Spec: docs/spec/p2p.md, rule P2P-5.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.core.errors import OutOfOrder
from cocoon.core.limits import HEARTBEATS_MISSED


@dataclass(slots=True)
class Pulse:
    """Beats of one connection, as heard from the other side."""

    last_seq: int = 0
    missed: int = 0

    def heard(self, seq: int) -> None:
        """A beat came.

        Raises:
            OutOfOrder: its number is not the next; a beat was replayed or lost.
        """
        if seq != self.last_seq + 1:
            raise OutOfOrder(f"beat {seq} after beat {self.last_seq}")
        self.last_seq, self.missed = seq, 0

    def silent(self) -> bool:
        """One heartbeat interval passed without a beat; True when the peer is lost."""
        self.missed += 1
        return self.missed > HEARTBEATS_MISSED
