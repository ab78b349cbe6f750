"""What must never happen in a simulated world, looked at while it happens.

A breach is noted and the world goes on, so that one run tells all of them. Peers
report what they did; nothing here decides for them.

Purity: pure. Spec: docs/spec/simulation.md, rules SIM-11 and SIM-12.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.ids import LeaseId, PeerKey, TaskId
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.ledger.terms import LeaseTerms
from cocoon.scheduler.award import Verdict
from cocoon.scheduler.reputation import Outcome, OutcomeSeen
from cocoon.scheduler.selection import Ranked
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.messages import Lease
from cocoon.wire.signing import Signed
from sim.engine.heap import Heap

#: After its deadline a task has so long to say that it ended.
GRACE_NS = 5 * SECOND_NS
#: An accident explains the loss of a lease for so long.
EXPLAINS_NS = 45 * SECOND_NS
#: Breaches that are told; more say nothing new.
BREACHES = 64


@dataclass(slots=True)
class Submitted:
    """A task as its world knows it."""

    number: int
    requester: int
    life: int
    at_ns: int
    deadline_at_ns: int
    units: int
    accepted: int = 0
    #: It called somebody to whom no stream was open.
    is_cold: bool = False
    matched_ns: int | None = None
    ended_ns: int | None = None
    code: str | None = None
    text: str = ""


@dataclass(slots=True)
class Checks:
    """Kept by a world."""

    heap: Heap
    breaches: list[str] = field(default_factory=list)
    tasks: dict[TaskId, Submitted] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    #: Leases sold by each provider, and bids that each requester passed over, by what was said.
    sold: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    auctions: int = 0
    #: Numbers of providers that do not keep to the rules.
    dishonest: set[int] = field(default_factory=set)
    numbers: dict[PeerKey, int] = field(default_factory=dict)
    #: When a peer last died or was cut off from another: (peer, other) or (peer, peer).
    accidents: dict[tuple[int, int], int] = field(default_factory=dict)
    #: Calls that a provider had heard when it sold its first lease.
    first_call: dict[int, int] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    #: When each offer was signed; and how many peers had one so many milliseconds later, of those who were there then.
    offers: dict[bytes, int] = field(default_factory=dict)
    spread_ms: Counter[int] = field(default_factory=Counter)
    #: What the gossip sent, to a few bytes a frame.
    gossip_bytes: int = 0
    #: Largest voucher of each lane.
    totals: dict[tuple[bytes, int], int] = field(default_factory=dict)
    _bids: set[tuple[PeerKey, bytes]] = field(default_factory=set)
    _units: dict[tuple[TaskId, int, int], PeerKey] = field(default_factory=dict)
    _vouchers: dict[tuple[bytes, int, int], Voucher] = field(default_factory=dict)
    _runs: set[tuple[LeaseId, int]] = field(default_factory=set)
    _delivered: Counter[tuple[bytes, int]] = field(default_factory=Counter)

    @property
    def now_ns(self) -> int:
        """The world's time."""
        return self.heap.now_ns

    def breach(self, text: str) -> None:
        """A rule was broken."""
        if len(self.breaches) < BREACHES:
            self.breaches.append(f"{self.now_ns / SECOND_NS:.3f} s: {text}")

    # --- offers ----------------------------------------------------------------

    def offer_heard(self, packed: bytes, since_ns: int) -> None:
        """A peer that lives since then has an offer for the first time."""
        signed_ns = self.offers.get(packed, 0)
        if since_ns <= signed_ns:
            self.spread_ms[(self.now_ns - signed_ns) // MILLISECOND_NS] += 1

    # --- bids and leases -------------------------------------------------------

    def bid_made(self, provider: PeerKey, digest: bytes) -> None:
        """A provider signed a bid."""
        self._bids.add((provider, digest))
        self.calls[self.numbers[provider]] += 1

    def lease_sold(self, lease: Signed[Lease]) -> None:
        """A provider countersigned a lease."""
        provider = PeerKey(lease.message.provider)
        number = self.numbers[provider]
        if (provider, lease.message.bid) not in self._bids:
            self.breach(f"peer {number} sold a lease without a bid")
        self._bids.discard((provider, lease.message.bid))       # one lease a bid
        self.sold[number] += 1
        self.first_call.setdefault(number, self.calls[number])

    def auction(self, requester: Any, sold: Any) -> None:
        """A requester judged bids, and told the losers why."""
        self.auctions += 1
        why: Verdict
        for why in sold.lost.values():
            self.lost[why.reason()] += 1
        if isinstance(sold.verdict, Ranked):
            told = {quote.provider for quote in sold.quotes} - {sold.verdict.quotes[0].provider}
            if told != set(sold.lost):
                self.breach(f"peer {requester.number} left losers of an auction without a reason")

    # --- tasks -------------------------------------------------------------------

    def unit_accepted(self, task: TaskId, unit: int, slot: int, provider: PeerKey, price_nanoton: int) -> None:
        """A unit is owed to a provider."""
        key = (task, unit, slot)
        if key in self._units:
            self.breach(f"unit {unit} of task {self.tasks[task].number} was accepted twice")
        self._units[key] = provider
        self.tasks[task].accepted += 1

    def task_matched(self, task: TaskId) -> None:
        """Its first lease was awarded."""
        if self.tasks[task].matched_ns is None:
            self.tasks[task].matched_ns = self.now_ns

    def task_ended(self, task: TaskId, code: str | None, text: str) -> None:
        """A task said its end."""
        found = self.tasks[task]
        if found.ended_ns is not None:
            self.breach(f"task {found.number} ended twice")
        if self.now_ns > found.deadline_at_ns + GRACE_NS:
            self.breach(f"task {found.number} ended {(self.now_ns - found.deadline_at_ns) / SECOND_NS:.1f} s too late")
        found.ended_ns, found.code, found.text = self.now_ns, code, text

    # --- money -------------------------------------------------------------------

    def run_accepted(self, terms: LeaseTerms, statement: Statement) -> None:
        """A requester took a result: from here on it is owed."""
        run = terms.lease, statement.number
        if terms.lane and run not in self._runs:
            self._delivered[terms.escrow, terms.lane] += statement.price_nanoton
        self._runs.add(run)

    def promised(self, voucher: Voucher) -> None:
        """A requester signed a voucher."""
        if not voucher.lane:
            return
        lane = (voucher.escrow, voucher.lane)
        if self._vouchers.setdefault((*lane, voucher.seq), voucher) != voucher:
            self.breach(f"two vouchers {voucher.seq} on lane {voucher.lane}")
        if voucher.total_nanoton > self._delivered[lane]:
            owed = self._delivered[lane]
            self.breach(f"a voucher of {voucher.total_nanoton} nanoton on lane {voucher.lane}, owed are {owed}")
        self.totals[lane] = max(self.totals.get(lane, 0), voucher.total_nanoton)

    # --- blame -------------------------------------------------------------------

    def outcome(self, requester: Any, fact: OutcomeSeen) -> None:
        """A requester remembers something of a provider."""
        provider = self.numbers[fact.provider]
        self.outcomes[f"{fact.outcome.value} {fact.code}".strip()] += 1
        if provider in self.dishonest or fact.outcome is Outcome.KEPT:
            return
        if fact.outcome is Outcome.LIED:
            self.breach(f"peer {requester.number} calls the honest peer {provider} a liar: {fact.code}")
        elif not self._explained(requester.number, provider):
            self.breach(f"peer {requester.number} holds {fact.code} against peer {provider}, which was there")

    def accident(self, one: int, other: int) -> None:
        """These two could not hear each other from now on; or one died."""
        self.accidents[one, other] = self.accidents[other, one] = self.now_ns

    def _explained(self, requester: int, provider: int) -> bool:
        """Whether the provider died, or the two were cut off from each other, of late."""
        return any(
            self.now_ns - self.accidents[pair] <= EXPLAINS_NS
            for pair in ((provider, provider), (requester, provider)) if pair in self.accidents
        )
