"""What a requester remembers of providers: ``cocoon.node.regard`` around the reputation machine.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-21 to SCH-23; simulation.md, SIM-1.
"""

from __future__ import annotations

from cocoon.core.errors import CocoonError
from cocoon.core.ids import PeerKey
from cocoon.core.units import SECOND_NS
from cocoon.node import records
from cocoon.scheduler.reputation import Outcome, OutcomeSeen, Reputation, outcome_of
from sim.engine.journal import Row
from sim.peers.ground import Peer


class Regard:
    """One life's opinions, with those of earlier lives."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.reputation = Reputation()
        now_ns, now_s = peer.now_ns(), peer.wall_s()
        for row in peer.journal.entries(records.OUTCOME_SEEN):
            seen = records.OutcomeRow.unpack(row.body)
            age_ns = max(0, now_s - seen.at_s) * SECOND_NS
            self.reputation.handle(now_ns - age_ns, OutcomeSeen(seen.provider, Outcome(seen.outcome), seen.code))

    def reliability_ppm(self, provider: PeerKey) -> int:
        """For whoever ranks."""
        return self.reputation.standing(self._peer.now_ns(), provider).reliability_ppm

    def is_newcomer(self, provider: PeerKey) -> bool:
        """Whether less than one whole outcome is left of what this peer saw of it."""
        return self.reputation.standing(self._peer.now_ns(), provider).is_newcomer

    async def kept(self, provider: PeerKey) -> None:
        """A lease on which work was done ended as agreed."""
        await self._saw(OutcomeSeen(provider, Outcome.KEPT, ""))

    async def failed(self, provider: PeerKey, error: CocoonError) -> None:
        """A lease ended by ``error``: a lie or a loss if that is the provider's doing, else nothing."""
        if (outcome := outcome_of(error)) is not None:
            await self._saw(OutcomeSeen(provider, outcome, error.code))

    async def _saw(self, fact: OutcomeSeen) -> None:
        self._peer.drive(self.reputation, fact)
        self._peer.ground.checks.outcome(self._peer, fact)
        row = records.OutcomeRow(self._peer.wall_s(), fact.provider, fact.outcome.value, fact.code)
        await self._peer.journal.append(Row(records.OUTCOME_SEEN, row.pack()))
