"""Issuer and verifier over a channel that loses, doubles and reorders, with crashes on both sides.

Results travel in order, as the sealed link delivers them or ends; a result that
was lost with its link is withdrawn when the lease resumes, and a receipt over it
voided. Everything else may happen to receipts, closes and countersignatures.
"""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cocoon.core.errors import PeerFault
from cocoon.core.limits import TRANCHE_RUNS
from cocoon.core.machine import DeadlinePassed
from cocoon.core.values import replace
from cocoon.ledger.events import (
    AskReceipt,
    Countersign,
    IssueReceipt,
    LeaseResumed,
    LinkResumed,
    RepeatCountersign,
    RunAccepted,
    RunsForgotten,
    SettleTranche,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.journal import JOURNALLED, pack_event, replay
from cocoon.ledger.receipt import ReceiptIssuer, ReceiptVerifier
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.schema import digest
from tests.unit.ledger.parties import countersigned, issuer, next_statement, signed, verifier


class ReceiptsInAnyWeather(RuleBasedStateMachine):
    """One lease, free or priced; ``deepest`` shows that the weather let tranches through."""

    deepest = 0

    @initialize(paid=st.booleans())
    def lease(self, paid: bool) -> None:
        self.paid = paid
        self.now_ns = 0
        self.seller: ReceiptIssuer = issuer(paid)
        self.buyer: ReceiptVerifier = verifier(paid)
        self.sold: list[bytes] = []
        self.bought: list[bytes] = []
        self.flushed = 0
        self.stated: list[int] = []
        self.link: list[Statement] = []
        self.to_buyer: list[IssueReceipt] = []
        self.to_seller: list[Any] = []
        self.promises: dict[int, Countersign] = {}
        self.kept: dict[int, SettleTranche] = {}
        self.issued: dict[int, IssueReceipt] = {}
        self.accepted: list[Statement] = []
        self.next_run = 1

    # --- what the machines are told, journalled as a shell does

    def sell(self, event: Any) -> None:
        try:
            orders = self.seller.handle(self.now_ns, event)
        except PeerFault:
            return
        if isinstance(event, JOURNALLED):
            self.sold.append(pack_event(event))
            self.stated.append(event.statement.number if isinstance(event, StatementMade) else 0)
        # Statements are not waited for; what is said of them is, and with it all before it.
        if not isinstance(event, StatementMade) or any(isinstance(order, IssueReceipt) for order in orders):
            self.flushed = len(self.sold)
        self.obey(orders)

    def buy(self, event: Any) -> None:
        try:
            orders = self.buyer.handle(self.now_ns, event)
        except PeerFault:
            return
        if isinstance(event, JOURNALLED):
            self.bought.append(pack_event(event))
        self.obey(orders)

    def obey(self, orders: list[Any]) -> None:
        for order in orders:
            match order:
                case IssueReceipt(receipt):
                    assert self.issued.setdefault(receipt.seq, order) == order, "two receipts with one number"
                    self.to_buyer.append(order)
                case Countersign(voucher):
                    assert self.promises.setdefault(voucher.seq, order).voucher == voucher, "two promises"
                    self.to_seller.append(order)
                case RepeatCountersign(voucher):
                    self.to_seller.append(self.promises[voucher.seq])
                case AskReceipt(through):
                    self.to_seller.append(TrancheClosed(through))
                case SettleTranche(receipt):
                    assert self.kept.setdefault(receipt.seq, order) == order, "settled twice, differently"

    # --- the weather

    @rule(runs=st.sampled_from([1, 1, 2, 3, TRANCHE_RUNS - 1, TRANCHE_RUNS]))
    def the_provider_runs(self, runs: int) -> None:
        for _ in range(min(runs, self.seller.room(), self.seller.tab.terms.max_runs + 1 - self.next_run)):
            made = next_statement(self.seller.tab, self.next_run)
            self.next_run += 1
            self.sell(StatementMade(made))
            self.link.append(made)

    @rule()
    def a_run_fails(self) -> None:
        self.next_run += 1

    @precondition(lambda self: self.link)
    @rule(count=st.one_of(st.integers(1, 3), st.just(2 * TRANCHE_RUNS)))
    def the_link_delivers_results(self, count: int) -> None:
        for made in self.link[:count]:
            self.accepted.append(made)
            self.buy(RunAccepted(made))
        del self.link[:count]

    @rule()
    def the_link_breaks_and_resumes(self) -> None:
        """The requester says first what it holds; nothing above that ever reached it."""
        self.link.clear()
        self.buy(LeaseResumed())
        self.sell(StatementsWithdrawn(self.buyer.tab.last_number))
        self.sell(LinkResumed())

    @rule(back=st.integers(0, 3))
    def the_requester_closes(self, back: int) -> None:
        self.buy(TrancheClosed(max(0, self.buyer.tab.last_number - back)))

    @precondition(lambda self: self.to_buyer)
    @rule(data=st.data(), keep=st.booleans())
    def a_receipt_arrives(self, data: st.DataObject, keep: bool) -> None:
        at = data.draw(st.integers(0, len(self.to_buyer) - 1))
        self.buy(signed(self.to_buyer[at] if keep else self.to_buyer.pop(at)))

    @precondition(lambda self: self.to_seller)
    @rule(data=st.data(), keep=st.booleans())
    def a_word_of_the_requester_arrives(self, data: st.DataObject, keep: bool) -> None:
        at = data.draw(st.integers(0, len(self.to_seller) - 1))
        word = self.to_seller[at] if keep else self.to_seller.pop(at)
        self.sell(countersigned(self.seller.tab.terms, word) if isinstance(word, Countersign) else word)

    @precondition(lambda self: self.to_buyer or self.to_seller)
    @rule(data=st.data())
    def a_word_is_lost(self, data: st.DataObject) -> None:
        for channel in (self.to_buyer, self.to_seller):
            if channel:
                channel.pop(data.draw(st.integers(0, len(channel) - 1)))

    @rule(runs=st.integers(0, 4), back=st.integers(0, 2))
    def a_tranche_goes_well(self, runs: int, back: int) -> None:
        """Without this, chance alone would seldom get anything settled."""
        self.the_provider_runs(runs)
        self.the_link_delivers_results(len(self.link))
        self.the_requester_closes(back)
        for word in [word for word in self.to_seller if isinstance(word, TrancheClosed)]:
            self.sell(word)
        for order in self.to_buyer[-1:]:
            self.buy(signed(order))
        for word in [word for word in self.to_seller if isinstance(word, Countersign)][-1:]:
            self.sell(countersigned(self.seller.tab.terms, word))

    @rule(step_ns=st.integers(0, 12 * 10**9))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.sell(DeadlinePassed())
        self.buy(DeadlinePassed())

    @rule()
    def the_provider_restarts(self) -> None:
        self.seller = issuer(self.paid)
        self.obey(replay(self.seller, self.now_ns, self.sold))

    @rule(facts=st.integers(1, 2 * TRANCHE_RUNS))
    def the_provider_loses_power(self, facts: int) -> None:
        """It forgets statements that nothing rests on, says so when the lease is opened again, and forgoes them."""
        kept = max(self.flushed, len(self.sold) - facts)
        del self.sold[kept:], self.stated[kept:]
        self.the_provider_restarts()
        self.link.clear()
        if (last := max(self.stated, default=0)) < self.buyer.tab.last_number:
            lost = {made.number for made in self.buyer.tab.open if made.number > last}
            self.accepted = [made for made in self.accepted if made.number not in lost]
            self.buy(RunsForgotten(last))
        self.the_link_breaks_and_resumes()

    @rule()
    def the_requester_restarts(self) -> None:
        self.buyer = verifier(self.paid)
        self.obey(replay(self.buyer, self.now_ns, self.bought))

    # --- the laws

    @invariant()
    def each_statement_is_under_exactly_one_receipt(self) -> None:
        settled = [made.number for seq in sorted(self.promises) for made in self.promises[seq].statements]
        still_open = [made.number for made in self.buyer.tab.open]
        assert settled + still_open == [made.number for made in self.accepted]

    @invariant()
    def receipts_are_one_chain_and_totals_never_fall(self) -> None:
        before = (0, bytes(32), 0)
        for seq in sorted(self.promises):
            promise = self.promises[seq]
            receipt = promise.receipt.message
            assert (receipt.seq, receipt.previous) == (seq, before[1])
            assert receipt.total_nanoton >= before[2]
            assert receipt.units == before[0] + len(promise.statements)
            before = (receipt.units, digest(receipt), receipt.total_nanoton)

    @invariant()
    def the_provider_claims_nothing_that_was_not_promised(self) -> None:
        assert set(self.kept) <= set(self.promises) <= set(self.issued)
        for seq, kept in self.kept.items():
            assert kept.voucher == self.promises[seq].voucher
            assert kept.statements == self.promises[seq].statements
        newest: Voucher | None = self.seller.settled
        assert newest is None or newest.seq == max(self.kept)

    @invariant()
    def lines_add_up(self) -> None:
        lines = sum(made.price_nanoton for made in self.accepted)
        assert lines == self.buyer.tab.billed_nanoton
        for tab in (self.seller.tab, self.buyer.tab):
            assert tab.units == tab.units_settled + sum(made.units for made in tab.open)
            assert tab.billed_nanoton == tab.terms.bill_nanoton(tab.units)
            assert tab.open_nanoton == tab.billed_nanoton - tab.terms.bill_nanoton(tab.units_settled)

    def teardown(self) -> None:
        """From any state, once nothing is lost any more, both sides agree (on rebuilt copies of both)."""
        if not hasattr(self, "seller"):
            return
        type(self).deepest = max(type(self).deepest, len(self.kept))
        self.the_link_delivers_results(len(self.link))
        seller, buyer = issuer(self.paid), verifier(self.paid)
        orders = replay(seller, 0, self.sold)[-1:] and seller.handle(0, LinkResumed())
        replay(buyer, 0, self.bought)
        seen = {made.number for made in self.accepted}
        assert all(made.number in seen for made in seller.tab.open)
        last = buyer.tab.last_number
        for _ in range(8):
            inbox = [order for order in orders if isinstance(order, IssueReceipt)]
            orders = seller.handle(0, TrancheClosed(last))
            for order in inbox + [o for o in orders if isinstance(o, IssueReceipt)]:
                for answer in buyer.handle(0, signed(order)):
                    promise = answer if isinstance(answer, Countersign) else self.promises[answer.voucher.seq]
                    orders = seller.handle(0, countersigned(seller.tab.terms, promise))
        # The requester allows for a voided receipt at each resumption, whether there was one or not.
        assert replace(seller.tab.head, skipped=0) == replace(buyer.tab.head, skipped=0)
        assert seller.tab.head.skipped <= buyer.tab.head.skipped
        assert seller.tab.open == buyer.tab.open == []


# Not shrunk: an example signs hundreds of receipts, and shrinking one took longer than a run may hang.
ReceiptsInAnyWeather.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


class TestReceiptsInAnyWeather(ReceiptsInAnyWeather.TestCase):  # type: ignore[name-defined,misc]
    """Runs the machine, and refuses to pass if nothing of interest happened."""

    def runTest(self) -> None:
        super().runTest()
        assert ReceiptsInAnyWeather.deepest >= 3, "no example settled three tranches: the test is empty"
