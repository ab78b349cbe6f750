"""A requester, a provider and an escrow for weather tests: real machines and journals, a small chain.

Each side keeps a journal of packed facts and nothing else survives its crash.
Words between them are lists that the weather empties, repeats and delays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import CreditRefused, LaneBusy, LaneClosing, PeerFault
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LANE_LOOKS
from cocoon.core.units import SECOND_NS
from cocoon.ledger.claims import ClaimEnded, ClaimKeeper, ClosePending, LaneSeen, LookAtLane, SendClaim, VoucherSettled
from cocoon.ledger.closing import OrderDesk, check_close
from cocoon.ledger.escrow import EscrowState, LaneState
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    CountersignReceived,
    IssueReceipt,
    LaneProven,
    LeaseResumed,
    LinkResumed,
    ReceiptReceived,
    RepeatCountersign,
    RunAccepted,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.exposure import CREDIT_FACTS, CreditBook, CreditEnded, WorkLost, lost_nanoton
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    TILL_FACTS,
    LaneBook,
    LaneEnding,
    LaneEntered,
    LaneLeft,
    LanePromised,
    LaneRules,
    LaneTill,
    LeaseReleased,
    LeaseReserved,
    NewLaneNeeded,
    TopUpLane,
    UseLane,
    VoucherKept,
    check_lane,
)
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import terms_of
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import Lease
from cocoon.wire.orders import CloseOrder, OrderHead
from cocoon.wire.signing import Signed, sign
from tests.property.paid_chain import Chain
from tests.unit.ledger.chainside import PAYOUT, PROVIDER_KEY
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, PROVIDER, REQUESTER, lease, next_statement

MILLION = 10**6
TRANCHE, PRICE, SETUP, CEILING = 2 * MILLION, 400_000, 100_000, 8 * MILLION
FEE, DURATION_S = 20_000, 600
RULES = LaneRules(margin_s=60, open_fee_nanoton=50_000, claim_fee_nanoton=FEE, life_s=50_000)
ESCROW = BIRTH.address()
DEPOSIT = 200 * MILLION


@dataclass
class Deal:
    """One lease and the words about it that are under way."""

    lease: Signed[Lease]
    lane: int
    #: live: runs may go. broken: no link. settling: resumed, no new runs. done.
    stage: str = "live"
    results: list[Any] = field(default_factory=list)
    to_buyer: list[Any] = field(default_factory=list)
    to_seller: list[Any] = field(default_factory=list)
    next_run: int = 1

    @property
    def id(self) -> LeaseId:
        return LeaseId(self.lease.digest)

    def cut(self) -> None:
        """The link is gone, with all that was on it."""
        self.stage = "broken"
        self.results.clear()
        self.to_buyer.clear()
        self.to_seller.clear()


class Requester:
    """Its journal is all that a crash leaves."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, Any, bytes]] = []
        self.promises: dict[tuple[int, int], Voucher] = {}
        self.accepted: dict[int, int] = {}
        self.restart(0)

    def restart(self, now_ns: int) -> None:
        self.book = LaneBook()
        self.desk = OrderDesk()
        self.verifiers: dict[LeaseId, ReceiptVerifier] = {}
        for kind, _, body in self.journal:
            if kind == "book":
                self.book.record(BOOK_FACTS.unpack(body))

    def record(self, fact: Any) -> None:
        self.book.record(fact)
        self.journal.append(("book", None, BOOK_FACTS.pack(fact)))

    def verifier(self, deal: Deal) -> ReceiptVerifier:
        if deal.id not in self.verifiers:
            made = ReceiptVerifier(Tab(terms_of(deal.lease), self.book.lanes[deal.lane].head))
            replay(made, 0, [body for kind, key, body in self.journal if kind == "fact" and key == deal.id])
            self.verifiers[deal.id] = made
        return self.verifiers[deal.id]

    def tell(self, deal: Deal, now_ns: int, event: Any) -> None:
        side = self.verifier(deal)
        try:
            orders = side.handle(now_ns, event)
        except PeerFault:
            return
        if isinstance(event, JOURNALLED):
            self.journal.append(("fact", deal.id, pack_event(event)))
        if isinstance(event, RunAccepted):
            self.accepted[deal.lane] = self.accepted.get(deal.lane, 0) + event.statement.price_nanoton
        for order in orders:
            match order:
                case AskReceipt(through):
                    deal.to_seller.append(TrancheClosed(through))
                case Countersign(voucher) | RepeatCountersign(voucher):
                    assert self.promises.setdefault((voucher.lane, voucher.seq), voucher) == voucher, "contradiction"
                    deal.to_seller.append(countersigned(voucher))

    def newest(self, lane: int) -> tuple[bytes, bytes]:
        """Voucher and signature that a lease on this lane shows."""
        mine = [voucher for (found, _), voucher in self.promises.items() if found == lane]
        if not mine:
            return b"", b""
        word = countersigned(max(mine, key=lambda voucher: voucher.seq))
        return word.voucher.pack(), word.signature


class Provider:
    """Its journal is all that a crash leaves."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, Any, bytes]] = []
        self.leases: dict[LeaseId, Signed[Lease]] = {}
        self.issued: dict[tuple[int, int], Any] = {}
        self.lost = 0
        self.restart(0)

    def restart(self, now_ns: int) -> None:
        self.till, self.credit = LaneTill(), CreditBook(strangers_nanoton=4 * TRANCHE, patience_nanoton=1 << 60)
        self.issuers: dict[LeaseId, ReceiptIssuer] = {}
        self.keepers: dict[int, ClaimKeeper] = {}
        self.claims: list[Voucher] = []
        for kind, _, body in self.journal:
            if kind == "till":
                self.till.record(TILL_FACTS.unpack(body))
            elif kind == "credit":
                self.credit.record(CREDIT_FACTS.unpack(body))
        for sold in self.till.lanes.values():
            if sold.voucher is not None:
                self.keep(sold.lane, now_ns, VoucherSettled(sold.voucher, sold.signature))
        for sold in self.till.open_leases():
            assert sold.lease is not None
            self.leave(sold.lane, sold.lease)

    def record(self, fact: Any) -> None:
        self.till.record(fact)
        self.journal.append(("till", None, TILL_FACTS.pack(fact)))

    def record_credit(self, fact: Any) -> None:
        self.credit.record(fact)
        self.journal.append(("credit", None, CREDIT_FACTS.pack(fact)))

    def issuer(self, lease_id: LeaseId, lane: int, opening: Head | None = None) -> ReceiptIssuer:
        if lease_id not in self.issuers:
            opening = opening or self.till.lane(ESCROW, lane).opening
            made = ReceiptIssuer(Tab(terms_of(self.leases[lease_id]), opening))
            made.proven = lease_id not in self.credit.open
            replay(made, 0, [body for kind, key, body in self.journal if kind == "fact" and key == lease_id])
            self.issuers[lease_id] = made
        return self.issuers[lease_id]

    def enter(self, deal: Deal, chain: Chain, shown: tuple[bytes, bytes]) -> bool:
        """Take the lease, or refuse it."""
        terms, state = terms_of(deal.lease), chain.state()
        before = self.till.unsettled(ESCROW, deal.lane)
        if before is not None and before != deal.id and shown[0]:
            self.tell(before, deal.lane, 0, CountersignReceived(Voucher.unpack(shown[0]), shown[1]), [])
        try:
            self.credit.check(terms.requester)
            facts = self.till.enter(terms, *shown, now_s=chain.now_s, known=deal.id in self.leases)
            assert isinstance(facts[0], LaneEntered)
            opening = facts[0].opening
            given = None
            if deal.id in self.leases:
                pass                                    # opened again: what it stands on was checked when it began
            elif deal.lane in state.lanes:
                self._check(terms, opening, state, chain.now_s)
            elif deal.lane < state.next_lane:
                return False
            else:
                given = self.credit.ask(terms.lease, terms.requester, TRANCHE, DEPOSIT - state.locked_nanoton)
        except (PeerFault, LaneBusy, LaneClosing, CreditRefused):
            return False
        for fact in facts:
            self.record(fact)
        if given is not None:
            self.record_credit(given)
        self.leases[deal.id] = deal.lease
        self.issuer(deal.id, deal.lane)
        return True

    def prove(self, deal: Deal, chain: Chain) -> None:
        state, side = chain.state(), self.issuer(deal.id, deal.lane)
        if side.proven or deal.lane not in state.lanes:
            return
        self._check(side.tab.terms, side.tab.opening, state, chain.now_s - DURATION_S)
        side.handle(0, LaneProven())
        self.record_credit(CreditEnded(deal.id, 0))

    def _check(self, terms: Any, head: Head, state: EscrowState, now_s: int) -> None:
        check_lane(
            state.lanes.get(terms.lane), terms, head, payout=PAYOUT, provider_key=PROVIDER_KEY,
            until_s=now_s + DURATION_S + RULES.margin_s, least_cap_nanoton=RULES.least_nanoton,
        )

    def tell(self, lease_id: LeaseId, lane: int, now_ns: int, event: Any, words: list[Any]) -> None:
        side = self.issuer(lease_id, lane)
        try:
            orders = side.handle(now_ns, event)
        except PeerFault:
            return
        if isinstance(event, JOURNALLED):
            self.journal.append(("fact", lease_id, pack_event(event)))
        for order in orders:
            match order:
                case IssueReceipt(receipt):
                    assert self.issued.setdefault((lane, receipt.seq), receipt) == receipt, "two with one number"
                    words.append(ReceiptReceived(sign(receipt, PROVIDER)))
                case SettleTranche(_, _, voucher, signature):
                    self.record(VoucherKept(ESCROW, lane, voucher.pack(), signature))
                    self.keep(lane, now_ns, VoucherSettled(voucher, signature))

    def leave(self, lane: int, lease_id: LeaseId) -> None:
        side = self.issuer(lease_id, lane)
        self.record(LaneLeft(ESCROW, lane, lease_id, *side.parting()))
        if self.credit.concerns(lease_id) or lost_nanoton(side.tab):
            self.record_credit(WorkLost(lease_id, REQUESTER.key, lost_nanoton(side.tab)))
            self.record_credit(CreditEnded(lease_id, lost_nanoton(side.tab)))

    def keep(self, lane: int, now_ns: int, event: Any, chain: Chain | None = None) -> None:
        keeper = self.keepers.setdefault(lane, ClaimKeeper(ESCROW, lane, BIRTH.close_delay_s))
        for order in keeper.handle(now_ns, event):
            match order:
                case LookAtLane() if chain is not None:
                    self.look(lane, now_ns, chain)
                case SendClaim(voucher):
                    self.claims.append(voucher)

    def look(self, lane: int, now_ns: int, chain: Chain) -> None:
        state = chain.lanes.get(lane)
        self.keep(lane, now_ns, LaneSeen(state, chain.now_s, FEE, expected=lane < chain.next_lane))


def countersigned(voucher: Voucher) -> CountersignReceived:
    """The voucher with the lane key's signature."""
    return CountersignReceived(voucher, sign_cell(voucher.hash(), LANE_OWNER))


class World:
    """Both peers and the chain between them; every method is something that happens."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.chain = Chain()
        self.requester, self.provider = Requester(), Provider()
        self.mempool: list[tuple[Any, ...]] = []
        self.deals: list[Deal] = []
        self.delivered_unpaid = 0
        self.nonce = 0

    # --- leases

    def lease(self, *, answer_lost: bool) -> None:
        """The requester wants a lease; it gets one, or orders what is missing for it."""
        state = self.chain.state()
        self.requester.book.see(state)
        choice = self.requester.book.choose(
            PROVIDER.key, PAYOUT, PROVIDER_KEY, ceiling_nanoton=CEILING, duration_s=DURATION_S,
            now_s=self.chain.now_s, rules=RULES,
        )
        match choice:
            case NewLaneNeeded(lane, cap, expires_s):
                if state.locked_nanoton + cap > DEPOSIT or not self.requester.desk.free(state, self.chain.now_s):
                    return
                self.requester.record(LanePromised(lane, PROVIDER.key, PAYOUT, PROVIDER_KEY, cap, expires_s))
                self.order_lanes()
                self.propose(lane, answer_lost)
            case TopUpLane(lane, cap, expires_s):
                if state.locked_nanoton + cap <= DEPOSIT:
                    self.order(lambda chain: chain.top_up(lane, cap, expires_s))
            case UseLane(lane):
                self.propose(lane, answer_lost)

    def propose(self, lane: int, answer_lost: bool) -> None:
        self.nonce += 1
        signed = lease(
            paid=True, lane=lane, nonce=self.nonce.to_bytes(16, "big"), tranche_nanoton=TRANCHE,
            prices=((1, 1_000 * PRICE),), setup_nanoton=SETUP, ceiling_nanoton=CEILING, duration_s=DURATION_S,
        )
        deal = Deal(signed, lane)
        self.requester.record(LeaseReserved(lane, deal.id, CEILING))
        if self.provider.enter(deal, self.chain, self.requester.newest(lane)):
            self.deals.append(deal)
            if answer_lost:
                deal.cut()
                self.provider.leave(lane, deal.id)
        else:
            self.release(deal)

    def release(self, deal: Deal) -> None:
        deal.stage = "done"
        head = self.requester.verifier(deal).tab.head
        self.requester.record(LeaseReleased.at(deal.lane, deal.id, head))

    def run(self, deal: Deal) -> None:
        self.provider.prove(deal, self.chain)
        side = self.provider.issuer(deal.id, deal.lane)
        if deal.stage == "live" and side.may_start() and side.affordable():
            made = next_statement(side.tab, max(deal.next_run, side.tab.last_number + 1))
            deal.next_run = made.number + 1
            deal.results.append(made)
            self.provider.tell(deal.id, deal.lane, self.now_ns, StatementMade(made), deal.to_buyer)

    def deliver(self, deal: Deal, count: int) -> None:
        for made in deal.results[:count]:
            self.requester.tell(deal, self.now_ns, RunAccepted(made))
        del deal.results[:count]

    def hear_buyer(self, deal: Deal, at: int, keep: bool = False) -> None:
        """A word of the provider reaches the requester, after the results that were sent before it."""
        self.deliver(deal, len(deal.results))
        word = deal.to_buyer[at] if keep else deal.to_buyer.pop(at)
        self.requester.tell(deal, self.now_ns, word)

    def hear_seller(self, deal: Deal, at: int, keep: bool = False) -> None:
        word = deal.to_seller[at] if keep else deal.to_seller.pop(at)
        self.provider.tell(deal.id, deal.lane, self.now_ns, word, deal.to_buyer)

    def break_link(self, deal: Deal) -> None:
        deal.cut()
        self.provider.leave(deal.lane, deal.id)

    def resume(self, deal: Deal) -> None:
        """The same words open the lease again; the first of them is what the requester holds."""
        if not self.provider.enter(deal, self.chain, self.requester.newest(deal.lane)):
            return
        deal.stage = "settling"
        self.requester.tell(deal, self.now_ns, LeaseResumed())
        (ask,) = deal.to_seller
        deal.to_seller.clear()
        for event in (StatementsWithdrawn(ask.through), ask, LinkResumed()):
            self.provider.tell(deal.id, deal.lane, self.now_ns, event, deal.to_buyer)
        promised = self.requester.verifier(deal).promised
        if promised is not None:
            deal.to_seller.append(countersigned(promised))

    def finish(self, deal: Deal, *, cut: bool, answer_lost: bool) -> None:
        """The requester gives a settled lease back; it is released when the provider's last word has come.

        Else the provider may lack the newest voucher, and the lease is resumed.
        """
        if not self.requester.verifier(deal).settled:
            return
        if cut:
            self.break_link(deal)
            return
        while deal.to_seller:
            self.hear_seller(deal, 0)
        self.provider.leave(deal.lane, deal.id)
        if answer_lost:
            deal.cut()
        else:
            self.release(deal)

    # --- orders and claims

    def order(self, act: Any) -> bool:
        taken = self.requester.desk.take(self.chain.state(), self.chain.now_s)
        if taken is not None:
            self.mempool.append(("order", *taken, act))
        return taken is not None

    def order_lanes(self) -> None:
        """One order opens every lane that was promised and is not on chain."""
        wanted = self.requester.book.unopened(self.chain.now_s, RULES)
        states = {one.lane: LaneState(PAYOUT, PROVIDER_KEY, one.cap_nanoton, 0, one.expires_s) for one in wanted}
        if states:
            self.order(lambda chain: chain.open_all(states))

    def close(self, lane: int, *, lost: bool) -> None:
        """Cooperatively if the provider signs and the answer arrives, else by expiry."""
        known = self.requester.book.lanes[lane]
        state = self.chain.state()
        taken = self.requester.desk.take(state, self.chain.now_s)
        if taken is None or lane not in state.lanes:
            return
        self.requester.record(LaneEnding(lane))
        asked = CloseOrder(OrderHead(BIRTH.network_tag, ESCROW, *taken), lane, known.head.total_nanoton)
        sold = self.provider.till.lanes.get((ESCROW, lane))
        try:
            assert sold is not None
            fact = check_close(asked, sign_cell(asked.hash(), LANE_OWNER), sold, state, now_s=self.chain.now_s)
        except (PeerFault, LaneBusy, AssertionError):
            self.mempool.append(("order", *taken, lambda chain: chain.expire(lane)))
            return
        self.provider.record(fact)
        self.provider.keep(lane, self.now_ns, ClosePending(fact.total_nanoton))
        if lost:                                        # the provider may still carry it; the requester expires
            self.mempool.append(("order", *taken, lambda chain: chain.expire(lane)))
        self.mempool.append(("order", *taken, lambda chain: chain.close(lane, asked.total_nanoton)))

    def claim(self) -> None:
        """What the provider's keepers ordered goes to the chain."""
        self.mempool += [("claim", voucher) for voucher in self.provider.claims]
        self.provider.claims.clear()

    def execute(self, at: int, *, keep: bool = False) -> None:
        message = self.mempool[at] if keep else self.mempool.pop(at)
        done = self.chain.run(message)
        if message[0] == "claim":
            self.provider.keep(message[1].lane, self.now_ns, ClaimEnded(message[1].seq, done))

    def pass_time(self, looks: int) -> None:
        """Look by look; a chain takes a claim in well under a close delay."""
        for _ in range(looks):
            for at in reversed([at for at, message in enumerate(self.mempool) if message[0] == "claim"]):
                self.execute(at)
            self.chain.now_s += BIRTH.close_delay_s // LANE_LOOKS
            self.now_ns += BIRTH.close_delay_s // LANE_LOOKS * SECOND_NS
            for lane in tuple(self.provider.keepers):
                self.provider.look(lane, self.now_ns, self.chain)
            self.claim()
        self.requester.book.see(self.chain.state())
