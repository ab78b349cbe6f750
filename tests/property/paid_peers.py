"""The two peers of the weather tests: real machines, and journals of packed facts.

Nothing but its journal survives the crash of a peer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import CreditRefused, LaneBusy, LaneClosing, PeerFault
from cocoon.core.ids import LeaseId
from cocoon.ledger.claims import (
    ClaimKeeper,
    LaneSeen,
    LookAtLane,
    SendClaim,
    VoucherSettled,
)
from cocoon.ledger.closing import OrderDesk
from cocoon.ledger.escrow import EscrowState
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    CountersignReceived,
    IssueReceipt,
    LaneProven,
    ReceiptReceived,
    RepeatCountersign,
    RunAccepted,
    SettleTranche,
    TrancheClosed,
)
from cocoon.ledger.exposure import CREDIT_FACTS, CreditBook, CreditEnded, WorkLost, lost_nanoton
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    LaneBook,
    LaneRules,
)
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import terms_of
from cocoon.ledger.till import (
    TILL_FACTS,
    LaneEntered,
    LaneLeft,
    LaneTill,
    VoucherKept,
    check_lane,
    proof_of_lane,
)
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import Lease
from cocoon.wire.signing import Signed, sign
from tests.property.paid_chain import Chain
from tests.unit.ledger.chainside import PAYOUT, PROVIDER_KEY
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, PROVIDER, REQUESTER

MILLION = 10**6
TRANCHE, PRICE, SETUP, CEILING = 5 * MILLION, MILLION, 100_000, 12 * MILLION
#: One voucher over half a tranche is not worth a claim by itself.
FEE, DURATION_S = 250_000, 600
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
                self.book.restore(BOOK_FACTS.unpack(body))

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

    def newest(self, deal: Deal) -> tuple[bytes, bytes]:
        """Voucher and signature that a lease shows: its lane's newest, else the lane key's word for the lease."""
        mine = [voucher for (found, _), voucher in self.promises.items() if found == deal.lane]
        first = proof_of_lane(BIRTH.network_tag, ESCROW, deal.lane, deal.id)
        word = countersigned(max(mine, key=lambda voucher: voucher.seq, default=first))
        return word.voucher.pack(), word.signature


class Provider:
    """Its journal is all that a crash leaves."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, Any, bytes]] = []
        self.leases: dict[LeaseId, Signed[Lease]] = {}
        self.issued: dict[tuple[int, int], Any] = {}
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
