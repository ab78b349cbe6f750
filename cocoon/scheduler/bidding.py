"""Bidding: a provider's side of every call, and the bids that it still stands by.

A bid binds the price, not the place: whoever comes with an award when every
lease is taken is told ``busy``. A bid is good for one lease of the requester
that called for it.

Invariants
    No bid exceeds the standing asks.
    A lease is admitted under a bid at most once, and only while it binds.
    What is remembered of callers, bids and calls is bounded.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-8 to AUC-12.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from cocoon.core.ids import PeerKey
from cocoon.core.limits import BID_HONOURED_NS, BIDS_HONOURED, CALL_BURST, CALL_NS, CALLERS, CALLS_REMEMBERED
from cocoon.core.machine import DeadlinePassed, Effect, Event
from cocoon.core.units import MILLISECOND_NS, PPM
from cocoon.core.values import Value, replace
from cocoon.scheduler.strategy import Prices, Strategy
from cocoon.wire.market import Call, CallResult

K = TypeVar("K")
V = TypeVar("V")


class CallHeard(Event):
    """A call with the digest ``id``, and how this provider stands.

    Attributes:
        start_ms: From the award to the first run, as far as it was measured.
        run_us, unit_ns: Of one run of this model, and of a unit that is billed, as measured; 0 if it never ran here.
        warm: The model's bytes are here.
        closed: Code and text of why this provider takes nothing now; empty if it does.
    """

    id: bytes
    requester: PeerKey
    call: Call
    leases_open: int
    leases_max: int
    start_ms: int
    run_us: int
    warm: bool
    closed: tuple[str, str] | None = None
    unit_ns: int = 0


class BidSigned(Event):
    """The shell signed the bid ordered by ``MakeBid``."""

    id: bytes
    digest: bytes


class BidTaken(Event):
    """A lease under this bid is countersigned: the call was won."""

    digest: bytes


class ResultHeard(Event):
    """The requester says why this bid did not win; its runner-up may be taken all the same, later."""

    requester: PeerKey
    result: CallResult


class MakeBid(Effect):
    """Sign a bid with these terms, and send it."""

    id: bytes
    setup_nanoton: int
    prices: Prices
    start_ms: int
    run_us: int
    warm: bool


class DeclineCall(Effect):
    """Say that there is no bid, and why."""

    id: bytes
    code: str
    text: str


class CallSeen(Value):
    """One call as its provider remembers it, for its owner; who called is not kept with what was called for.

    Attributes:
        answer: ``bid``, or the code of the refusal.
        outcome: ``won``, or ``lost`` as the requester said; empty while neither is known.
        bands: What the requester said of a lost bid.
        run_us: Of one run, as the bid had it; 0 if the model never ran here.
    """

    at_ns: int
    kind: str
    model: bytes
    units: int
    setup_nanoton: int = 0
    prices: Prices = ()
    answer: str = "bid"
    outcome: str = ""
    bands: CallResult | None = None
    run_us: int = 0


class StandingBid(Value):
    """What a lease may name. Prices in nanoton."""

    call: bytes
    requester: PeerKey
    kind: str
    model: bytes
    setup_nanoton: int
    prices: Prices
    until_ns: int


@dataclass(slots=True)
class Bidding:
    """Answers calls; feed facts by ``handle``, ask by ``bid`` and ``seen``."""

    strategy: Strategy
    _bids: OrderedDict[bytes, StandingBid] = field(default_factory=OrderedDict)
    _calls: OrderedDict[bytes, tuple[PeerKey, CallSeen]] = field(default_factory=OrderedDict)
    #: When each caller has used up its burst (generic cell rate algorithm).
    _due_ns: OrderedDict[PeerKey, int] = field(default_factory=OrderedDict)

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one fact; see the module for the invariants."""
        match event:
            case CallHeard():
                return [self._answer(now_ns, event)]
            case BidSigned(call_id, digest) if call_id in self._calls:
                requester, seen = self._calls[call_id]
                until_ns = now_ns + BID_HONOURED_NS
                self._bids[digest] = StandingBid(
                    call_id, requester, seen.kind, seen.model, seen.setup_nanoton, seen.prices, until_ns
                )
                self._make_room()
            case BidTaken(digest) if digest in self._bids:
                self._learn(self._bids.pop(digest).call, "won", None)
            case ResultHeard(requester, result) if self._calls.get(result.call, (None,))[0] == requester:
                self._learn(result.call, "lost", result)
            case DeadlinePassed():
                self._forget(now_ns)
        return []

    def deadline_ns(self) -> int | None:
        """When the oldest bid stops to bind."""
        return next((bid.until_ns for bid in self._bids.values()), None)

    def bid(self, now_ns: int, digest: bytes, requester: PeerKey) -> StandingBid | None:
        """The bid that a lease of ``requester`` may name now."""
        bid = self._bids.get(digest)
        return bid if bid is not None and now_ns < bid.until_ns and bid.requester == requester else None

    def seen(self) -> list[CallSeen]:
        """The calls of late, oldest first."""
        return [seen for _, seen in self._calls.values()]

    def _answer(self, now_ns: int, heard: CallHeard) -> Effect:
        call = heard.call
        if not self._in_time(now_ns, heard.requester):
            # Not remembered: a flood would push out what the owner wants to read.
            wait_ms = CALL_NS // MILLISECOND_NS
            return DeclineCall(heard.id, "busy", f"more than {CALL_BURST} calls at once; try again in {wait_ms} ms")
        no = self._refusal(heard)
        if no is not None:
            if heard.id not in self._calls:
                self._remember(heard, CallSeen(now_ns, call.kind, call.model, call.units, answer=no[0]))
            return DeclineCall(heard.id, *no)
        setup, prices = self.strategy.price(call.kind, heard.leases_open * PPM // heard.leases_max, heard.unit_ns)
        self._remember(heard, CallSeen(
            now_ns, call.kind, call.model, call.units, setup, prices, run_us=heard.run_us
        ))
        return MakeBid(heard.id, setup, prices, heard.start_ms, heard.run_us, heard.warm)

    def _refusal(self, heard: CallHeard) -> tuple[str, str] | None:
        if heard.id in self._calls:
            return "replayed", "this call was made before"
        if heard.closed is not None:
            return heard.closed
        if heard.leases_open >= heard.leases_max:
            return "busy", f"{heard.leases_open} of {heard.leases_max} leases are open"
        return self.strategy.refusal(heard.call, heard.unit_ns)

    def _in_time(self, now_ns: int, caller: PeerKey) -> bool:
        """Whether the caller keeps to its rate; only a call that is taken counts."""
        due_ns = max(now_ns, self._due_ns.get(caller, now_ns))
        if due_ns - now_ns > (CALL_BURST - 1) * CALL_NS:
            return False
        self._due_ns[caller] = due_ns + CALL_NS
        self._due_ns.move_to_end(caller)
        _cut(self._due_ns, CALLERS)
        return True

    def _remember(self, heard: CallHeard, seen: CallSeen) -> None:
        self._calls[heard.id] = heard.requester, seen
        _cut(self._calls, CALLS_REMEMBERED)

    def _learn(self, call_id: bytes, outcome: str, bands: CallResult | None) -> None:
        """How a bid did; one that was won stays so."""
        requester, seen = self._calls.get(call_id, (None, None))
        if requester is not None and seen is not None and seen.answer == "bid" and seen.outcome != "won":
            self._calls[call_id] = requester, replace(seen, outcome=outcome, bands=bands)

    def _make_room(self) -> None:
        """Whoever holds most bids loses its oldest, so that no caller can push out those of others."""
        if len(self._bids) > BIDS_HONOURED:
            held = Counter(bid.requester for bid in self._bids.values())
            most = max(held, key=lambda requester: (held[requester], requester))
            del self._bids[next(digest for digest, bid in self._bids.items() if bid.requester == most)]

    def _forget(self, now_ns: int) -> None:
        while self._bids and next(iter(self._bids.values())).until_ns <= now_ns:
            self._bids.popitem(last=False)


def _cut(table: OrderedDict[K, V], most: int) -> None:
    """Let the oldest go."""
    while len(table) > most:
        table.popitem(last=False)
