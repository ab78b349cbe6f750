"""A requester, a provider and an escrow for weather tests: what may happen between them.

Words between the peers are lists that the weather empties, repeats and delays;
so are messages to the chain.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import LaneBusy, PeerFault
from cocoon.core.limits import LANE_LOOKS
from cocoon.core.units import SECOND_NS
from cocoon.ledger.claims import (
    ClaimAsked,
    ClaimEnded,
    ClosePending,
)
from cocoon.ledger.closing import check_close
from cocoon.ledger.escrow import LaneState
from cocoon.ledger.events import (
    LeaseResumed,
    LinkResumed,
    RunAccepted,
    StatementMade,
    StatementsWithdrawn,
    TrancheClosed,
)
from cocoon.ledger.lanes import (
    LaneEnding,
    LanePromised,
    LeaseReleased,
    LeaseReserved,
    NewLaneNeeded,
    TopUpLane,
    UseLane,
)
from cocoon.ledger.till import (
    CloseSigned,
)
from cocoon.wire.judged import sign_cell
from cocoon.wire.orders import CloseOrder, OrderHead
from tests.property.paid_chain import Chain
from tests.property.paid_peers import (
    CEILING,
    DEPOSIT,
    DURATION_S,
    ESCROW,
    PRICE,
    RULES,
    SETUP,
    TRANCHE,
    Deal,
    Provider,
    Requester,
    countersigned,
)
from tests.unit.ledger.chainside import PAYOUT, PROVIDER_KEY
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, PROVIDER, lease, next_statement


class World:
    """Both peers and the chain between them; every method is something that happens."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.chain = Chain()
        self.requester, self.provider = Requester(), Provider()
        self.mempool: list[tuple[Any, ...]] = []
        self.deals: list[Deal] = []
        self.ending: set[int] = set()
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
                self.order_lanes(lane)
                self.propose(lane, answer_lost)
            case TopUpLane(lane, cap, expires_s):
                if state.locked_nanoton + cap <= DEPOSIT:
                    self.order(lambda chain: chain.top_up(lane, cap, expires_s))
            case UseLane(lane):
                self.propose(lane, answer_lost)

    def propose(self, lane: int, answer_lost: bool) -> None:
        assert lane not in self.ending, "a lease on a lane that ends"
        self.nonce += 1
        signed = lease(
            paid=True, lane=lane, nonce=self.nonce.to_bytes(16, "big"), tranche_nanoton=TRANCHE,
            prices=((1, 1_000 * PRICE),), setup_nanoton=SETUP, ceiling_nanoton=CEILING, duration_s=DURATION_S,
        )
        deal = Deal(signed, lane)
        self.requester.record(LeaseReserved(lane, deal.id, CEILING))
        if self.provider.enter(deal, self.chain, self.requester.newest(deal)):
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

    def exchange(self, deal: Deal) -> None:
        """Everything that is said arrives, in order."""
        self.deliver(deal, len(deal.results))
        while deal.to_buyer or deal.to_seller:
            while deal.to_buyer:
                self.hear_buyer(deal, 0)
            while deal.to_seller:
                self.hear_seller(deal, 0)

    def go_well(self, deal: Deal, runs: int) -> None:
        """So many runs, each under its receipt as soon as one is due."""
        for _ in range(runs):
            self.run(deal)
            self.exchange(deal)

    def end_tranche(self, deal: Deal) -> None:
        """The requester wants no further run, and all that is said about those before arrives."""
        self.deliver(deal, len(deal.results))
        self.requester.tell(deal, self.now_ns, TrancheClosed(self.requester.verifier(deal).tab.last_number))
        self.exchange(deal)

    def break_link(self, deal: Deal) -> None:
        deal.cut()
        self.provider.leave(deal.lane, deal.id)

    def resume(self, deal: Deal) -> None:
        """The same words open the lease again; the first of them is what the requester holds."""
        if not self.provider.enter(deal, self.chain, self.requester.newest(deal)):
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

    def give_back(self, deal: Deal) -> None:
        """In good weather."""
        self.end_tranche(deal)
        self.finish(deal, cut=False, answer_lost=False)
        self.requester.book.see(self.chain.state())

    # --- orders and claims

    def order(self, act: Any) -> bool:
        taken = self.requester.desk.take(self.chain.state(), self.chain.now_s)
        if taken is not None:
            self.mempool.append(("order", *taken, act))
        return taken is not None

    def order_lanes(self, *wanted: int) -> None:
        """One order opens these lanes, and with them every one that was promised and used, and is not on chain."""
        opened = self.requester.book.unopened(wanted, self.chain.now_s, RULES)
        states = {one.lane: LaneState(PAYOUT, PROVIDER_KEY, one.cap_nanoton, 0, one.expires_s) for one in opened}
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
        self.ending.add(lane)
        asked = CloseOrder(OrderHead(BIRTH.network_tag, ESCROW, *taken), lane, known.head.total_nanoton)
        agreed = self.agree(asked)
        if agreed is None or lost:                      # the provider may carry a lost one; the requester expires
            self.mempool.append(("order", *taken, lambda chain: chain.expire(lane)))
        if agreed is not None:
            self.provider.record(agreed)
            self.provider.keep(lane, self.now_ns, ClosePending(agreed.total_nanoton))
            self.mempool.append(("order", *taken, lambda chain: chain.close(lane, asked.total_nanoton)))

    def agree(self, asked: CloseOrder) -> CloseSigned | None:
        """What the provider signs; None if it refuses, or never heard of the lane."""
        sold = self.provider.till.lanes.get((ESCROW, asked.lane))
        if sold is None:
            return None
        try:
            signature, now_s = sign_cell(asked.hash(), LANE_OWNER), self.chain.now_s
            return check_close(asked, signature, sold, self.chain.state(), now_s=now_s)
        except (PeerFault, LaneBusy):
            return None

    def expiring(self) -> list[int]:
        """Lanes that end within the close delay."""
        soon_s = self.chain.now_s + BIRTH.close_delay_s
        return [lane for lane, state in self.chain.lanes.items() if state.expires_s <= soon_s]

    def claim(self) -> None:
        """What the provider's keepers ordered goes to the chain."""
        self.mempool += [("claim", voucher) for voucher in self.provider.claims]
        self.provider.claims.clear()

    def ask_claims(self) -> None:
        """The provider's user wants what is due."""
        for lane in tuple(self.provider.keepers):
            self.provider.keep(lane, self.now_ns, ClaimAsked(), self.chain)
        self.claim()

    def execute_all(self) -> None:
        while self.mempool:
            self.execute(0)

    def execute(self, at: int, *, keep: bool = False) -> None:
        message = self.mempool[at] if keep else self.mempool.pop(at)
        done = self.chain.run(message)
        if message[0] == "claim":
            self.provider.keep(message[1].lane, self.now_ns, ClaimEnded(message[1].seq, done))

    def lose(self, at: int) -> None:
        """A message never runs, and the wallet knows it in the end. No provider is that unlucky in a close delay."""
        message = self.mempool[at]
        if message[0] == "claim" and message[1].lane in self.expiring():
            return
        self.mempool.pop(at)
        if message[0] == "claim":
            self.provider.keep(message[1].lane, self.now_ns, ClaimEnded(message[1].seq, False))

    def claims_under_way(self) -> list[int]:
        """Their places among the messages to the chain."""
        return [at for at, message in enumerate(self.mempool) if message[0] == "claim"]

    def pass_time(self, looks: int) -> None:
        """Look by look; a chain takes a claim in well under a close delay."""
        for _ in range(looks):
            for at in reversed(self.claims_under_way()):
                self.execute(at)
            self.chain.now_s += BIRTH.close_delay_s // LANE_LOOKS
            self.now_ns += BIRTH.close_delay_s // LANE_LOOKS * SECOND_NS
            for lane in tuple(self.provider.keepers):
                self.provider.look(lane, self.now_ns, self.chain)
            self.claim()
        self.requester.book.see(self.chain.state())
