"""Reputation: what this peer has seen of each provider itself, fading with time; nobody else's word counts.

Four things are counted: leases that ended as agreed, leases that were lost, bids
that were not kept, and lies. Each count halves every ``REPUTATION_HALF_LIFE_NS``. A stranger begins with
a few good leases to its name, so that a newcomer gets work and one accident of an
old acquaintance does not end it.

Invariants
    Reliability lies above 0 and at most at one.
    It rises only by a kept lease or by time, and falls only by a lost one, a lie, or time.
    At most ``REPUTATIONS`` providers are remembered.

Purity: pure. Spec: docs/spec/scheduling.md, rules SCH-21 to SCH-23.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.errors import CocoonError, PeerFault
from cocoon.core.ids import PeerKey
from cocoon.core.limits import REPUTATION_HALF_LIFE_NS, REPUTATIONS
from cocoon.core.machine import Event
from cocoon.core.units import PPM
from cocoon.core.values import Value

#: A count of one, in the parts that decay is reckoned in.
_ONE = 1 << 20
#: What a stranger begins with.
_PRIOR_KEPT, _PRIOR_LOST = 9 * _ONE, _ONE
#: A lie weighs as much as so many lost leases: it is no accident.
_LIE = 8
#: So many bids that came to nothing weigh as much as a lost lease: each costs a buyer a moment only.
_REFUSALS = 4
#: Decay goes in sixteenths of a half-life; 65536 x 2^(-1/16), rounded.
_STEPS, _STEP = 16, 62_757
#: After so many half-lives nothing is left of a count of 16.
_FORGOTTEN_STEPS = 24 * _STEPS


class Outcome(Enum):
    """How a lease ended on the provider's side."""

    KEPT = "kept"
    LOST = "lost"
    REFUSED = "refused"
    LIED = "lied"


#: What only the provider's own end or overload explains; all other weather may be ours or the chain's.
_LOST_CODES = frozenset({"provider_lost", "worker_lost", "receipt_missing"})
#: The provider says that it had no countersignature of ours. A cut that is shorter than the heartbeats' patience makes
#: it true of two honest peers.
_WEATHER_CODES = frozenset({"receipt_unsettled"})


def outcome_of(error: CocoonError) -> Outcome | None:
    """What the error by which a lease ended, or came to nothing, says of its provider; None: nothing (SCH-21)."""
    if error.code in _LOST_CODES:
        return Outcome.LOST
    if isinstance(error, PeerFault) and error.code not in _WEATHER_CODES:
        return Outcome.LIED
    return None


class OutcomeSeen(Event):
    """A lease with this provider, or its bid, ended so; ``code`` is the error that ended it, empty if it was kept."""

    provider: PeerKey
    outcome: Outcome
    code: str


class Standing(Value):
    """What is known of one provider now. Counts are whole leases, decayed and rounded down.

    Attributes:
        reliability_ppm: Share of leases that are expected to end as agreed.
        last_code: Of the newest outcome that was not good; empty if there is none.
        last_age_ns: How long ago that was.
    """

    reliability_ppm: int
    kept: int = 0
    lost: int = 0
    lied: int = 0
    refused: int = 0
    last_code: str = ""
    last_age_ns: int = 0

    @property
    def is_newcomer(self) -> bool:
        """Whether less than one whole outcome is left of what was seen (AUC-6)."""
        return not (self.kept or self.lost or self.refused or self.lied)

    def reason(self) -> str:
        """In words, for people."""
        counted = (self.kept, "kept"), (self.lost, "lost"), (self.refused, "bids refused"), (self.lied, "lied")
        said = [f"{count} {name}" for count, name in counted if count]
        if not said:
            return "nothing known lately"
        return ", ".join(said) + (f", last by {self.last_code}" if self.last_code else "")


@dataclass(slots=True)
class _Counts:
    """Of one provider at ``at_ns``, in parts of ``_ONE``."""

    at_ns: int
    kept: int = 0
    lost: int = 0
    lied: int = 0
    refused: int = 0
    last_code: str = ""
    last_ns: int = 0

    def fade(self, now_ns: int) -> None:
        """Bring the counts to ``now_ns``; only whole steps of decay are taken, the rest waits."""
        step_ns = REPUTATION_HALF_LIFE_NS // _STEPS
        steps = max(0, now_ns - self.at_ns) // step_ns
        self.at_ns += steps * step_ns
        for _ in range(min(steps, _FORGOTTEN_STEPS)):
            self.kept, self.lost, self.lied, self.refused = (
                count * _STEP >> 16 for count in (self.kept, self.lost, self.lied, self.refused)
            )

    @property
    def weight(self) -> int:
        """How much would be forgotten with it."""
        return self.kept + self.lost + self.lied + self.refused // _REFUSALS


@dataclass(slots=True)
class Reputation:
    """What is remembered of providers; feed facts by ``handle``, ask by ``standing``."""

    _counts: dict[PeerKey, _Counts] = field(default_factory=dict)

    def handle(self, now_ns: int, event: Event) -> None:
        """Take one outcome, seen at ``now_ns``; an earlier life's may lie in the past, also before 0."""
        match event:
            case OutcomeSeen(provider, outcome, code):
                counts = self._counts.setdefault(provider, _Counts(now_ns))
                counts.fade(now_ns)
                match outcome:
                    case Outcome.KEPT:
                        counts.kept += _ONE
                    case Outcome.LOST:
                        counts.lost += _ONE
                    case Outcome.REFUSED:
                        counts.refused += _ONE
                    case Outcome.LIED:
                        counts.lied += _ONE
                if outcome is not Outcome.KEPT:
                    counts.last_code, counts.last_ns = code, now_ns
                self._bound(now_ns, provider)

    def standing(self, now_ns: int, provider: PeerKey) -> Standing:
        """What is known of ``provider`` now."""
        counts = self._counts.get(provider)
        if counts is None:
            return Standing(_reliability_ppm(0, 0))
        counts.fade(now_ns)
        return Standing(
            _reliability_ppm(counts.kept, counts.lost + counts.refused // _REFUSALS + _LIE * counts.lied),
            counts.kept // _ONE, counts.lost // _ONE, counts.lied // _ONE, counts.refused // _ONE, counts.last_code,
            max(0, now_ns - counts.last_ns) if counts.last_code else 0,
        )

    def _bound(self, now_ns: int, newest: PeerKey) -> None:
        """Forget whom least is known of; whoever just gave us reason to remember stays."""
        while len(self._counts) > REPUTATIONS:
            for counts in self._counts.values():
                counts.fade(now_ns)
            others = (item for item in self._counts.items() if item[0] != newest)
            del self._counts[min(others, key=lambda item: (item[1].weight, item[0]))[0]]


def _reliability_ppm(kept: int, bad: int) -> int:
    good = kept + _PRIOR_KEPT
    return PPM * good // (good + bad + _PRIOR_LOST)
