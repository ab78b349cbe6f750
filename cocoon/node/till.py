"""The till: what lanes owe this provider, from the first check of a lease to the claim on chain.

Purity: shell. Spec: docs/spec/lanes.md, rules LAN-8 to LAN-21; money.md, rules MON-16 to MON-18.
"""

from __future__ import annotations

from functools import partial

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import ChainUnreachable, LaneUnproven, wrong
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LANE_PROOF_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import Value
from cocoon.ledger.claims import ClaimEvent, ClosePending, VoucherSettled
from cocoon.ledger.closing import check_close
from cocoon.ledger.escrow import LaneState
from cocoon.ledger.exposure import (
    CREDIT_FACTS,
    CreditBook,
    CreditEnded,
    CreditFact,
    CreditGiven,
    WorkLost,
    lost_nanoton,
)
from cocoon.ledger.journal import replay
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import LeaseTerms, terms_of
from cocoon.ledger.till import (
    TILL_FACTS,
    LaneEntered,
    LaneGone,
    LaneLeft,
    LaneTill,
    SoldLane,
    TillFact,
    VoucherKept,
    check_lane,
    check_network,
)
from cocoon.node import records
from cocoon.node.keeper import Keeper
from cocoon.node.money import EscrowSeen, Money
from cocoon.store.service import Journal, Row
from cocoon.telemetry.log import Log
from cocoon.wire.judged import Voucher
from cocoon.wire.messages import Lease, LeaseOpen
from cocoon.wire.orders import CloseOrder
from cocoon.wire.signing import open_signed

LaneId = tuple[bytes, int]
Fact = TillFact | CreditFact


class Entry(Value):
    """What a paid lease begins with on this side."""

    opening: Head
    #: Whether its lane is on chain; if not, it runs on credit.
    proven: bool
    #: A paid lease that was open before is opened again to settle it, and takes no run.
    settles: bool = False
    #: Chain time until which its lane must live, while runs are taken on it.
    until_s: int = 0


#: A lease that costs nothing.
FREE = Entry(Head(), proven=True)


class Till:
    """Lanes that pay us."""

    def __init__(
        self, money: Money, journal: Journal, clock: Clock, log: Log, *, tranche_nanoton: int, strangers_nanoton: int
    ) -> None:
        self.money = money
        self.lanes = LaneTill()
        self.credit = CreditBook(strangers_nanoton)
        self._journal = journal
        self._clock = clock
        self._log = log
        self._tranche_nanoton = tranche_nanoton
        self._keepers: dict[LaneId, Keeper] = {}
        self._entering = trio.Lock()
        # Leases that were open when this peer died: their requesters are not to blame for what they did not get.
        self._cut: set[LeaseId] = set()
        # Lanes that pay for runs now: until when each must live, and who is told if it will not.
        self._served: dict[LaneId, tuple[int, trio.Event]] = {}
        self._nursery: trio.Nursery

    @property
    def payout(self) -> bytes:
        """Where lanes pay us: our wallet."""
        return self.money.ledger.address

    async def open(self, nursery: trio.Nursery) -> None:
        """Read the journal, end the leases that a crash left open, and watch every lane that owes us something."""
        self._nursery = nursery
        for entry in self._journal.entries(records.TILL_FACT):
            self.lanes.record(TILL_FACTS.unpack(entry.body))
        for entry in self._journal.entries(records.CREDIT_FACT):
            self.credit.record(CREDIT_FACTS.unpack(entry.body))
        for lane in self.lanes.open_leases():
            if lane.lease is not None:
                self._cut.add(lane.lease)
            await self._abandon(lane)
        for lease in tuple(self.credit.open):           # no lease is open now, so none is on credit
            await self._keep(CreditEnded(lease, 0))
        for lane in self.lanes.lanes.values():
            if lane.voucher is not None and not lane.gone:
                self._tell(lane, VoucherSettled(lane.voucher, lane.signature))
                if lane.closing_nanoton is not None:
                    self._tell(lane, ClosePending(lane.closing_nanoton))

    async def abandon(self, terms: LeaseTerms) -> None:
        """A lease was entered and could not be opened after all."""
        await self._abandon(self.lanes.lane(terms.escrow, terms.lane))

    async def _abandon(self, lane: SoldLane) -> None:
        """Record the end of a lease that nobody serves any more, as its facts in the journal have it."""
        assert lane.lease is not None                   # it was entered
        entry = self._journal.find(records.lease_key(lane.lease))
        if entry is None:                               # entered, and never countersigned
            left = LaneLeft(lane.escrow, lane.lane, lane.lease, True, lane.opening.skipped)
            await self._keep(left, *self._credit_ended(lane.lease, 0))
            return
        terms = terms_of(open_signed(entry.body, Lease))
        issuer = ReceiptIssuer(Tab(terms, lane.opening))
        facts = records.facts_in(row.body for row in self._journal.under(records.facts_of(lane.lease)))
        replay(issuer, self._clock.now_ns(), facts)
        await self.leave(terms, issuer)

    def _credit_ended(self, lease: LeaseId, lost_nanoton: int) -> tuple[CreditEnded, ...]:
        return (CreditEnded(lease, lost_nanoton), ) if lease in self.credit.open else ()

    # --- leases ------------------------------------------------------------

    async def enter(self, terms: LeaseTerms, opening: LeaseOpen, until_s: int, *, known: bool) -> Entry:
        """Check everything that a paid lease stands on, and record what we take on with it.

        Args:
            until_s: Seconds from now that the lane must outlive, the claim margin not included.
            known: We countersigned this very lease before; it is opened again to settle it.

        Raises:
            WrongField, BadSignature: the lease, its escrow, its lane or its voucher is not what it says.
            LaneBusy, LaneClosing, CreditRefused: lawful, but not now.
            ChainUnreachable: nothing can be checked.
        """
        check_network(
            terms, network_tag=self.money.network_tag, close_delay_s=self.money.facts.close_delay_s
        )
        if terms.tranche_nanoton > self._tranche_nanoton:
            raise wrong("tranche", f"a tranche of {terms.tranche_nanoton} nanoton, here it is {self._tranche_nanoton}")
        seen = await self.money.look_soon(terms.escrow)
        async with self._entering:                      # two leases must not find one lane free
            facts = self.lanes.enter(terms, opening.voucher, opening.signature, now_s=seen.at_s, known=known)
            entered = facts[0]
            assert isinstance(entered, LaneEntered)
            credit = () if known else await self._credit(terms, entered.opening, seen, until_s)
            if credit and len(facts) > 1:
                raise wrong("head", f"lane {terms.lane} is not on chain: a voucher that we do not know is no money")
            await self._keep(*facts, *credit)
        for fact in facts:
            if isinstance(fact, VoucherKept):
                kept = self.lanes.lane(terms.escrow, terms.lane)
                self._tell(kept, VoucherSettled(Voucher.unpack(fact.voucher), fact.signature))
        margin_s = self.money.facts.claim_margin_s
        return Entry(entered.opening, proven=not credit, settles=known, until_s=seen.at_s + until_s + margin_s)

    def serve(self, terms: LeaseTerms, entry: Entry) -> trio.Event:
        """What is set if the lane of this lease is gone or ends too early: its vouchers would soon be worth nothing."""
        ending = trio.Event()
        self._served[terms.escrow, terms.lane] = (entry.until_s, ending)
        return ending

    def _seen(self, lane: LaneId, state: LaneState | None) -> None:
        """A lane was looked at (LAN-32)."""
        until_s, ending = self._served.get(lane, (0, None))
        if ending is not None and (state is None or state.expires_s < until_s):
            ending.set()

    async def prove(self, terms: LeaseTerms, head: Head, until_s: int) -> None:
        """Wait until the lane of a lease on credit is on chain and covers it.

        Raises:
            LaneUnproven: it did not come in time. WrongField: it came, and is not what was promised.
        """
        with trio.move_on_after(LANE_PROOF_NS / SECOND_NS):
            seen = await self.money.look(terms.escrow)
            while not _has(seen, terms.lane):
                seen = await self.money.next_look(terms.escrow, seen.seqno)
            await self._check(terms, head, seen, until_s)
            await self._keep(*self._credit_ended(terms.lease, 0))
            return
        raise LaneUnproven(f"lane {terms.lane} was not on chain within {LANE_PROOF_NS // SECOND_NS} s")

    @staticmethod
    def row(terms: LeaseTerms, voucher: Voucher, signature: bytes) -> Row:
        """What is recorded together with the receipt that ``voucher`` countersigns."""
        return Row(records.TILL_FACT, TILL_FACTS.pack(_kept(terms, voucher, signature)))

    def keep(self, terms: LeaseTerms, voucher: Voucher, signature: bytes) -> None:
        """A receipt was countersigned, and its ``row`` is in the journal: this voucher is what a claim will show."""
        self.lanes.record(_kept(terms, voucher, signature))
        self._tell(self.lanes.lane(terms.escrow, terms.lane), VoucherSettled(voucher, signature))

    async def leave(self, terms: LeaseTerms, issuer: ReceiptIssuer) -> None:
        """The lease is over; what was delivered on it and never promised is remembered against its requester."""
        self._served.pop((terms.escrow, terms.lane), None)
        lost = lost_nanoton(issuer.tab, cut=terms.lease in self._cut)
        credit: tuple[CreditFact, ...] = self._credit_ended(terms.lease, lost)
        if not credit and (lost or self.credit.concerns(terms.lease)):
            credit = (WorkLost(terms.lease, terms.requester, lost), )
        await self._keep(LaneLeft(terms.escrow, terms.lane, terms.lease, *issuer.parting()), *credit)

    async def agree_close(self, order: CloseOrder, signature: bytes, seen: EscrowSeen) -> None:
        """Check a close and record it before it is signed: from now on its total counts as paid if the lane goes.

        Raises:
            As ``check_close``; ``wrong_escrow`` too if the escrow is not on chain.
        """
        if seen.state is None:
            raise wrong("escrow", "the escrow is not on chain")
        async with self._entering:                      # no lease begins between the check and the record
            lane = self.lanes.lane(order.head.escrow, order.lane)
            fact = check_close(order, signature, lane, seen.state, now_s=seen.at_s)
            await self._keep(fact)
        self._tell(lane, ClosePending(fact.total_nanoton))

    async def claim_all(self) -> None:
        """Claim what is due on every lane, whatever it is worth beyond the fee; returns when all is done."""
        async with trio.open_nursery() as nursery:
            for keeper in tuple(self._keepers.values()):
                nursery.start_soon(keeper.claim_now)

    async def _credit(
        self, terms: LeaseTerms, head: Head, seen: EscrowSeen, until_s: int
    ) -> tuple[CreditGiven, ...]:
        """Nothing if the lane is on chain and covers the lease; else the credit that is given."""
        self.credit.check(terms.requester)
        if _has(seen, terms.lane):
            await self._check(terms, head, seen, until_s)
            return ()
        if seen.state is not None and terms.lane < seen.state.next_lane:
            raise wrong("lane", f"lane {terms.lane} is gone from the escrow")
        if seen.remembered:
            raise ChainUnreachable("the chain does not answer, so no credit is given")
        worth = max(terms.tranche_nanoton, terms.bill_nanoton(1))
        return (self.credit.ask(terms.lease, terms.requester, worth, seen.unlocked_nanoton),)

    async def _check(self, terms: LeaseTerms, head: Head, seen: EscrowSeen, until_s: int) -> None:
        rules = await self.money.rules()
        assert seen.state is not None                   # the lane is in it
        check_lane(
            seen.state.lanes[terms.lane], terms, head, payout=self.payout,
            provider_key=self.money.provider_key.key, until_s=seen.at_s + until_s + rules.margin_s,
            least_cap_nanoton=rules.least_nanoton,
        )

    async def _keep(self, *facts: Fact) -> None:
        """Journal facts of lanes and of credit in one commit, then take them."""
        if not facts:
            return
        await self._journal.append_many([_row(fact) for fact in facts])
        for fact in facts:
            if isinstance(fact, CreditFact):
                self.credit.record(fact)
            else:
                self.lanes.record(fact)

    async def _gone(self, lane: SoldLane) -> None:
        """A lane is on chain no more: nobody watches it again, also after a restart."""
        await self._keep(LaneGone(lane.escrow, lane.lane))
        del self._keepers[lane.escrow, lane.lane]

    # --- claims ------------------------------------------------------------

    def _tell(self, lane: SoldLane, event: ClaimEvent) -> None:
        key = (lane.escrow, lane.lane)
        keeper = self._keepers.get(key)
        if keeper is None:
            keeper = self._keepers[key] = Keeper(
                self.money, self._clock, self._log, lane, partial(self._seen, key), partial(self._gone, lane)
            )
            self._nursery.start_soon(keeper.run)
        # Not awaited: a lease must not wait for the chain.
        self._nursery.start_soon(keeper.tell, event)


def _row(fact: Fact) -> Row:
    if isinstance(fact, CreditFact):
        return Row(records.CREDIT_FACT, CREDIT_FACTS.pack(fact))
    return Row(records.TILL_FACT, TILL_FACTS.pack(fact))


def _kept(terms: LeaseTerms, voucher: Voucher, signature: bytes) -> VoucherKept:
    return VoucherKept(terms.escrow, terms.lane, voucher.pack(), signature)


def _has(seen: EscrowSeen, lane: int) -> bool:
    return seen.state is not None and lane in seen.state.lanes
