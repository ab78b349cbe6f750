"""A provider's till: what ``cocoon.node.till`` and ``keeper`` do around lanes, credit and claims.

Purity: pure. Spec: docs/spec/lanes.md, rules LAN-8 to LAN-21; money.md, rules MON-16 to MON-18; simulation.md, SIM-1.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import ChainUnreachable, LaneUnproven, wrong
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LANE_PROOF_NS, TRANCHE_NANOTON
from cocoon.core.machine import Effect
from cocoon.ledger.claims import (
    ClaimAsked,
    ClaimEnded,
    ClaimKeeper,
    LaneSeen,
    LaneUnseen,
    LookAtLane,
    SendClaim,
    VoucherSettled,
)
from cocoon.ledger.exposure import CREDIT_FACTS, CreditBook, CreditEnded, CreditFact, WorkLost, lost_nanoton
from cocoon.ledger.journal import replay
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import LeaseTerms
from cocoon.ledger.till import (
    TILL_FACTS,
    LaneEntered,
    LaneLeft,
    LaneTill,
    SoldLane,
    VoucherKept,
    check_lane,
    check_network,
)
from cocoon.node import records
from cocoon.wire.judged import Voucher
from cocoon.wire.messages import Lease, LeaseOpen
from sim.engine.chain import CLAIM_FEE_NANOTON, Chain, Claim, Escrow
from sim.engine.driver import Driver
from sim.engine.flow import Moment, Turn
from sim.engine.journal import Row
from sim.peers.ground import Peer
from sim.peers.purse import CLOSE_DELAY_S, payout_of, provider_signer
from sim.peers.sale import Entry

LaneId = tuple[bytes, int]


class Till:
    """One life of the lanes that pay a provider."""

    def __init__(self, peer: Peer) -> None:
        assert peer.ground.chain is not None
        self.peer = peer
        self.chain: Chain = peer.ground.chain
        self.rules = peer.ground.rules
        self._provider_key = provider_signer(peer).key
        self.lanes = LaneTill()
        self.credit = CreditBook()
        self._keepers: dict[LaneId, Driver] = {}
        self._entering = Turn(peer.ground.heap)
        self._cut: set[LeaseId] = set()
        self._served: dict[LaneId, tuple[int, Moment[None]]] = {}
        peer.spawn(self._open())

    async def _open(self) -> None:
        """Read the journal, end the leases that a crash left open, and watch every lane that owes us something."""
        journal = self.peer.journal
        for row in journal.entries(records.TILL_FACT):
            self.lanes.record(TILL_FACTS.unpack(row.body))
        for row in journal.entries(records.CREDIT_FACT):
            self.credit.record(CREDIT_FACTS.unpack(row.body))
        async with self._entering:
            for lane in self.lanes.open_leases():
                if lane.lease is not None:
                    self._cut.add(lane.lease)
                await self._abandon(lane)
            for lease in tuple(self.credit.open):
                await self._keep(CreditEnded(lease, 0))
        for lane in tuple(self.lanes.lanes.values()):
            if lane.voucher is not None and not lane.gone:
                self._tell(lane, VoucherSettled(lane.voucher, lane.signature))

    async def abandon(self, terms: LeaseTerms) -> None:
        """A lease was entered and could not be opened after all."""
        await self._abandon(self.lanes.lane(terms.escrow, terms.lane))

    async def _abandon(self, lane: SoldLane) -> None:
        assert lane.lease is not None
        row = self.peer.journal.find(records.lease_key(lane.lease))
        if row is None:
            left = LaneLeft(lane.escrow, lane.lane, lane.lease, True, lane.opening.skipped)
            await self._keep(left, *self._credit_ended(lane.lease, 0))
            return
        terms = self.peer.ground.words.terms(self.peer.ground.words.open(row.body, Lease))
        issuer = ReceiptIssuer(Tab(terms, lane.opening))
        facts = records.facts_in(row.body for row in self.peer.journal.under(records.facts_of(lane.lease)))
        replay(issuer, self.peer.now_ns(), facts)
        await self.leave(terms, issuer)

    def _credit_ended(self, lease: LeaseId, lost: int) -> tuple[CreditEnded, ...]:
        return (CreditEnded(lease, lost),) if lease in self.credit.open else ()

    # --- leases ----------------------------------------------------------------

    async def enter(self, terms: LeaseTerms, opening: LeaseOpen, until_s: int, *, known: bool) -> Entry:
        """As ``node.till.Till.enter``: check all that a paid lease stands on, and record what we take on."""
        escrow = self.chain.escrows.get(terms.escrow)
        check_network(terms, network_tag=terms.network_tag, close_delay_s=CLOSE_DELAY_S)
        if terms.tranche_nanoton > TRANCHE_NANOTON:
            raise wrong("tranche", f"a tranche of {terms.tranche_nanoton} nanoton")
        if escrow is None or self.chain.is_away:
            raise ChainUnreachable("the chain does not answer")
        now_s = self.chain.now_s
        async with self._entering:
            facts = self.lanes.enter(terms, opening.voucher, opening.signature, now_s=now_s, known=known)
            entered = facts[0]
            assert isinstance(entered, LaneEntered)
            credit = () if known else self._credit(terms, entered.opening, escrow, until_s)
            if credit and len(facts) > 1:
                raise wrong("head", f"lane {terms.lane} is not on chain: a voucher that we do not know is no money")
            await self._keep(*facts, *credit)
        for fact in facts:
            if isinstance(fact, VoucherKept):
                kept = self.lanes.lane(terms.escrow, terms.lane)
                self._tell(kept, VoucherSettled(Voucher.unpack(fact.voucher), fact.signature))
        return Entry(entered.opening, proven=not credit, settles=known, until_s=now_s + until_s + self.rules.margin_s)

    def _credit(self, terms: LeaseTerms, head: Head, escrow: Escrow, until_s: int) -> tuple[CreditFact, ...]:
        self.credit.check(terms.requester)
        if terms.lane in escrow.lanes:
            self._check(terms, head, escrow, until_s)
            return ()
        if terms.lane < escrow.next_lane:
            raise wrong("lane", f"lane {terms.lane} is gone from the escrow")
        worth = max(terms.tranche_nanoton, terms.bill_nanoton(1))
        return (self.credit.ask(terms.lease, terms.requester, worth, self.chain.unlocked_nanoton(escrow)),)

    def _check(self, terms: LeaseTerms, head: Head, escrow: Escrow, until_s: int) -> None:
        check_lane(
            escrow.lanes[terms.lane], terms, head, payout=payout_of(self.peer.key),
            provider_key=self._provider_key, until_s=self.chain.now_s + until_s + self.rules.margin_s,
            least_cap_nanoton=self.rules.least_nanoton,
        )

    def serve(self, terms: LeaseTerms, entry: Entry) -> Moment[None]:
        """What is set if the lane of this lease is gone or ends too early."""
        ending: Moment[None] = Moment(self.peer.ground.heap)
        self._served[terms.escrow, terms.lane] = (entry.until_s, ending)
        return ending

    async def prove(self, terms: LeaseTerms, head: Head, until_s: int) -> None:
        """Wait until the lane of a lease on credit is on chain and covers it."""
        heap, escrow = self.peer.ground.heap, self.chain.escrows[terms.escrow]
        until_ns = heap.now_ns + LANE_PROOF_NS
        while terms.lane not in escrow.lanes or self.chain.is_away:
            if heap.now_ns >= until_ns:
                raise LaneUnproven(f"lane {terms.lane} was not on chain in time")
            await escrow.news.wait(until_ns - heap.now_ns)
        self._check(terms, head, escrow, until_s)
        await self._keep(*self._credit_ended(terms.lease, 0))

    @staticmethod
    def row(terms: LeaseTerms, voucher: Voucher, signature: bytes) -> Row:
        """What is recorded together with the receipt that ``voucher`` countersigns."""
        return Row(records.TILL_FACT, TILL_FACTS.pack(_kept(terms, voucher, signature)))

    def keep(self, terms: LeaseTerms, voucher: Voucher, signature: bytes) -> None:
        """This voucher is what a claim will show."""
        self.lanes.record(_kept(terms, voucher, signature))
        self._tell(self.lanes.lane(terms.escrow, terms.lane), VoucherSettled(voucher, signature))

    async def leave(self, terms: LeaseTerms, issuer: ReceiptIssuer) -> None:
        """The lease is over; what was delivered and never promised is remembered against its requester."""
        self._served.pop((terms.escrow, terms.lane), None)
        lost = lost_nanoton(issuer.tab, cut=terms.lease in self._cut)
        credit: tuple[CreditFact, ...] = self._credit_ended(terms.lease, lost)
        if not credit and (lost or self.credit.concerns(terms.lease)):
            credit = (WorkLost(terms.lease, terms.requester, lost),)
        await self._keep(LaneLeft(terms.escrow, terms.lane, terms.lease, *issuer.parting()), *credit)

    async def _keep(self, *facts: Any) -> None:
        if not facts:
            return
        await self.peer.journal.append(*(_row(fact) for fact in facts))
        for fact in facts:
            if isinstance(fact, CreditFact):
                self.credit.record(fact)
            else:
                self.lanes.record(fact)

    # --- claims ------------------------------------------------------------------

    def claim_all(self) -> None:
        """The owner wants what is due."""
        for keeper in self._keepers.values():
            keeper.post(ClaimAsked())

    def _tell(self, lane: SoldLane, event: Any) -> None:
        key = (lane.escrow, lane.lane)
        if key not in self._keepers:
            keeper = ClaimKeeper(lane.escrow, lane.lane, CLOSE_DELAY_S)

            async def perform(effect: Effect) -> None:
                self._watch(key, effect)

            async def record(_: object) -> None:
                """A claim has a row of its own in the wallet's outbox, which is not simulated."""

            self._keepers[key] = Driver(keeper, self.peer.scope, self.peer, perform, record)
        self._keepers[key].post(event)

    def _watch(self, key: LaneId, effect: Effect) -> None:
        match effect:
            case LookAtLane():
                self._keepers[key].post(self._look(key))
            case SendClaim(voucher):
                life, keeper = self.peer.life, self._keepers[key]

                def done(paid: bool) -> None:
                    if self.peer.alive and self.peer.life == life:
                        keeper.post(ClaimEnded(voucher.seq, paid))

                self.chain.send(Claim(key[0], voucher, payout_of(self.peer.key)), done)

    def _look(self, key: LaneId) -> LaneSeen | LaneUnseen:
        if self.chain.is_away:
            return LaneUnseen()
        escrow = self.chain.escrows[key[0]]
        state = escrow.lanes.get(key[1])
        expected = key[1] < escrow.next_lane
        until_s, ending = self._served.get(key, (0, None))
        if ending is not None and (state is not None or expected) and (state is None or state.expires_s < until_s):
            ending.set(None)
        return LaneSeen(state, self.chain.now_s, CLAIM_FEE_NANOTON, expected)


def _row(fact: Any) -> Row:
    if isinstance(fact, CreditFact):
        return Row(records.CREDIT_FACT, CREDIT_FACTS.pack(fact))
    return Row(records.TILL_FACT, TILL_FACTS.pack(fact))


def _kept(terms: LeaseTerms, voucher: Voucher, signature: bytes) -> VoucherKept:
    return VoucherKept(terms.escrow, terms.lane, voucher.pack(), signature)
