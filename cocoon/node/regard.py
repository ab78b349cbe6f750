"""What this peer remembers of providers: outcomes of leases, in the journal and in the reputation machine.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-21 to SCH-23.
"""

from __future__ import annotations

from collections.abc import Callable

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, StorageFull
from cocoon.core.ids import PeerKey
from cocoon.core.limits import REPUTATION_HALF_LIFE_NS
from cocoon.core.units import SECOND_NS
from cocoon.node import records
from cocoon.node.clock import wall_clock_s
from cocoon.scheduler.reputation import Outcome, OutcomeSeen, Reputation, Standing, outcome_of
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log

#: Older outcomes weigh nothing any more.
_REMEMBERED_S = 16 * REPUTATION_HALF_LIFE_NS // SECOND_NS


class Regard:
    """Opinions of providers, from this peer's own leases."""

    def __init__(self, journal: Journal, clock: Clock, log: Log, now_s: Callable[[], int] = wall_clock_s) -> None:
        self._journal = journal
        self._clock = clock
        self._log = log
        self._now_s = now_s
        self._reputation = Reputation()

    def restore(self) -> None:
        """Remember what earlier lives of this peer saw. A clock that was set back makes no outcome younger than now."""
        now_ns, now_s = self._clock.now_ns(), self._now_s()
        for entry in self._journal.entries(records.OUTCOME_SEEN):
            seen = records.OutcomeRow.unpack(entry.body)
            age_s = max(0, now_s - seen.at_s)
            if age_s < _REMEMBERED_S:
                fact = OutcomeSeen(seen.provider, Outcome(seen.outcome), seen.code)
                self._reputation.handle(now_ns - age_s * SECOND_NS, fact)

    def standing(self, provider: PeerKey) -> Standing:
        """What is known of ``provider`` now."""
        return self._reputation.standing(self._clock.now_ns(), provider)

    def reliability_ppm(self, provider: PeerKey) -> int:
        """As ``standing``, for whoever ranks."""
        return self.standing(provider).reliability_ppm

    def is_newcomer(self, provider: PeerKey) -> bool:
        """Whether less than one whole outcome is left of what this peer saw of it."""
        return self.standing(provider).is_newcomer

    async def kept(self, provider: PeerKey) -> None:
        """A lease on which work was done ended as agreed."""
        await self._saw(OutcomeSeen(provider, Outcome.KEPT, ""))

    async def refused(self, provider: PeerKey, code: str) -> None:
        """It did not keep a bid that still binds it: it has no place, after all."""
        await self._saw(OutcomeSeen(provider, Outcome.REFUSED, code))

    async def failed(self, provider: PeerKey, error: CocoonError) -> None:
        """A lease ended by ``error``: a lie or a loss if that is the provider's doing, else nothing."""
        outcome = outcome_of(error)
        if outcome is not None:
            await self._saw(OutcomeSeen(provider, outcome, error.code))

    async def _saw(self, fact: OutcomeSeen) -> None:
        self._reputation.handle(self._clock.now_ns(), fact)
        row = records.OutcomeRow(self._now_s(), fact.provider, fact.outcome.value, fact.code)
        try:
            await self._journal.append(records.OUTCOME_SEEN, row.pack())
        except StorageFull as error:                    # an opinion is no obligation: it lasts as long as this process
            self._log.failure("outcome_not_kept", error, provider=fact.provider)
