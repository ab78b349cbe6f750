"""A requester's lanes: what ``cocoon.node.treasury`` and ``orders`` do around the book of lanes and the order desk.

Purity: pure. Spec: docs/spec/lanes.md, rules LAN-1 to LAN-7 and LAN-28; simulation.md, SIM-1.
"""

from __future__ import annotations

from collections.abc import Callable

from cocoon.core.errors import ChainUnreachable, LaneUnproven, LimitExceeded
from cocoon.core.ids import LeaseId
from cocoon.core.limits import (
    CHAIN_SILENCE_NS,
    CREDIT_TRANCHES,
    LEASE_DURATION_S,
    ORDER_TRIES,
    ORDER_WAIT_S,
    TRANCHE_NANOTON,
)
from cocoon.core.units import SECOND_NS
from cocoon.ledger.closing import OrderDesk
from cocoon.ledger.escrow import LaneState, reserve_nanoton
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    BookFact,
    Choice,
    LaneBook,
    LaneEnding,
    LanePromised,
    LeaseReleased,
    LeaseReserved,
    NewLaneNeeded,
    NoLane,
    TopUpLane,
    UseLane,
)
from cocoon.ledger.record import unpack_record
from cocoon.ledger.tab import Head
from cocoon.ledger.till import proof_of_lane
from cocoon.node import records
from cocoon.node.footing import Footing
from cocoon.scheduler.selection import Quote
from cocoon.wire.codec import decode, encode
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import Lease
from cocoon.wire.signing import Signed
from sim.engine.chain import Chain, OpenLanes
from sim.engine.flow import Moment, Turn
from sim.engine.journal import Row
from sim.peers.ground import Peer
from sim.peers.purse import NETWORK_TAG, birth_of, lane_signer, payout_of

#: What the escrow keeps unlocked beside its lanes, so that providers may give credit (``node.orders``).
_FLOAT_NANOTON = 2 * CREDIT_TRANCHES * TRANCHE_NANOTON
_ORDER_SENT = "order_sent"


class Treasury:
    """One life of the lanes of a requester's escrow."""

    def __init__(self, peer: Peer) -> None:
        assert peer.ground.chain is not None
        self.peer = peer
        self.chain: Chain = peer.ground.chain
        self.birth = birth_of(peer)
        self.address = self.birth.address()
        self.lane_key = lane_signer(peer)
        self.rules = peer.ground.rules
        self.book = LaneBook()
        self.desk = OrderDesk()
        self._choosing = Turn(peer.ground.heap)
        self._ordering = Turn(peer.ground.heap)
        self._writing = Turn(peer.ground.heap)
        self._coming: dict[int, Moment[None]] = {}
        self._wanted: set[int] = set()
        self._shown: dict[int, tuple[bytes, bytes]] = {}
        self._restore()

    def _restore(self) -> None:
        for row in self.peer.journal.entries(records.LANE_FACT):
            self.book.restore(BOOK_FACTS.unpack(row.body))
        for row in self.peer.journal.entries(records.RECEIPT_ACCEPTED):
            words = unpack_record(row.body).words
            self.show(Voucher.unpack(words.voucher), words.signature)
        for row in self.peer.journal.entries(_ORDER_SENT):
            self.desk.resume(*decode(row.body, max_bytes=64))

    def show(self, voucher: Voucher, signature: bytes) -> None:
        """Keep a voucher that this side signed, for the opening of the lane's next lease."""
        if voucher.escrow == self.address:
            self._shown[voucher.lane] = voucher.pack(), signature

    def shown(self, lane: int, lease: LeaseId) -> tuple[bytes, bytes]:
        """What ``lease`` shows: the newest voucher of its lane, or the lane key's word for it (LAN-8)."""
        if lane not in self._shown:
            proof = proof_of_lane(NETWORK_TAG, self.address, lane, lease)
            return proof.pack(), sign_cell(proof.hash(), self.lane_key)
        return self._shown[lane]

    async def reserve(
        self, quote: Quote, need_nanoton: int, make: Callable[[Footing], Signed[Lease]]
    ) -> tuple[Signed[Lease], Head]:
        """Find or open a lane for a lease, let ``make`` sign it, and record that the lane is taken.

        Raises:
            LimitExceeded, ChainUnreachable, LaneUnproven: no lane, and why.
        """
        for _ in range(ORDER_TRIES):
            async with self._choosing:
                self._look()
                choice = self.book.choose(
                    quote.provider, quote.payout, quote.provider_key,
                    ceiling_nanoton=need_nanoton, duration_s=LEASE_DURATION_S, now_s=self.chain.now_s,
                    rules=self.rules,
                )
                match choice:
                    case UseLane(lane, head, proven) if proven or lane in self._coming:
                        lease = make(Footing(lane, head, self.book.lanes[lane].free_nanoton))
                        await self._record(LeaseReserved(lane, LeaseId(lease.digest), lease.message.ceiling_nanoton))
                        return lease, head
                    case NewLaneNeeded(lane, cap_nanoton, expires_s) if not self.chain.is_away:
                        await self._record(LanePromised(
                            lane, quote.provider, quote.payout, quote.provider_key, cap_nanoton, expires_s
                        ))
            await self._order(choice)
        raise LaneUnproven(f"no lane came on chain in {ORDER_TRIES} tries")

    async def arrived(self, lane: int) -> None:
        """Wait for a lane that is on its way, if this one is."""
        if lane in self._coming:
            await self._coming[lane].wait()

    async def release(self, lane: int, lease: LeaseId, head: Head) -> None:
        """The lease is over and settled; the lane is free for the next one."""
        await self._record(LeaseReleased.at(lane, lease, head))

    async def end(self, lane: int) -> None:
        """No further lease goes on this lane."""
        await self._record(LaneEnding(lane))

    def _look(self) -> None:
        if not self.chain.is_away:
            self.book.see(self.chain.escrows[self.address].state())

    async def _record(self, fact: BookFact) -> None:
        async with self._writing:
            self.book.check(fact)
            await self.peer.journal.append(Row(records.LANE_FACT, BOOK_FACTS.pack(fact)))
            self.book.record(fact)

    async def _order(self, choice: Choice) -> None:
        match choice:
            case UseLane(lane):
                await self._open(lane)
            case TopUpLane() | NewLaneNeeded() if self.chain.is_away:
                raise ChainUnreachable("the chain does not answer, so no lane is opened or filled up")
            case TopUpLane(lane, cap_nanoton, expires_s):
                old = self.chain.escrows[self.address].lanes[lane]
                entry = LaneState(old.payout, old.provider_key, cap_nanoton, old.paid_nanoton, expires_s)
                await self._send(lambda: {lane: entry})
            case NewLaneNeeded(lane):
                if self.chain.unlocked_nanoton(self.chain.escrows[self.address]) < CREDIT_TRANCHES * TRANCHE_NANOTON:
                    await self._open(lane)
                else:
                    self._coming[lane] = Moment(self.peer.ground.heap)
                    self.peer.spawn(self._open_behind(lane))
            case NoLane(why):
                raise LimitExceeded(f"the escrow takes no further lane: {why}")

    async def _open_behind(self, lane: int) -> None:
        try:
            await self._open(lane)
        except (ChainUnreachable, LimitExceeded):
            pass                                        # the lease stops after one tranche; the next one orders anew
        self._coming.pop(lane).set(None)

    async def _open(self, lane: int) -> None:
        """Order ``lane``, and with it the others that must not be left behind (LAN-4)."""
        self._wanted.add(lane)

        def entries() -> dict[int, LaneState]:
            news = self.book.unopened(self._wanted, self.chain.now_s, self.rules)
            return {
                new.lane: LaneState(
                    self.book.lanes[new.lane].payout, self.book.lanes[new.lane].provider_key, new.cap_nanoton, 0,
                    new.expires_s,
                )
                for new in news
            } if lane in {new.lane for new in news} else {}

        try:
            await self._send(entries)
        finally:
            self._wanted.discard(lane)

    async def _send(self, make: Callable[[], dict[int, LaneState]]) -> None:
        """One order at a time, under the escrow's next number; returns when it was executed, or never will be."""
        chain, escrow = self.chain, self.chain.escrows[self.address]
        async with self._ordering:
            while (taken := self.desk.take(escrow.state(), chain.now_s)) is None:
                if not await escrow.news.wait(min(CHAIN_SILENCE_NS, self._ns_in_flight)) and chain.is_away:
                    raise ChainUnreachable("no block came in which an order could end")
            self._look()
            lanes = make()
            number, until_s = taken
            deposit = self._deposit_nanoton(lanes)
            if not lanes or deposit > chain.wallets[payout_of(self.peer.key)]:
                self.desk.drop(number)
                if lanes:
                    raise LimitExceeded(f"the wallet cannot put {deposit} nanoton into the escrow")
                return
            await self.peer.journal.append(Row(_ORDER_SENT, encode([number, until_s])))
            done: Moment[bool] = Moment(self.peer.ground.heap)
            chain.send(OpenLanes(self.address, number, until_s, lanes, deposit, payout_of(self.peer.key)), done.set)
            if not await done.wait(ORDER_WAIT_S * SECOND_NS):
                raise ChainUnreachable("the order was not executed while it was valid")
            self._look()

    @property
    def _ns_in_flight(self) -> int:
        """So long the order in flight may still be executed, and a block more."""
        until_s = self.chain.now_s if self.desk.flying is None else self.desk.flying[1]
        return max(0, until_s - self.chain.now_s) * SECOND_NS + self.chain.pace.block_ns

    def _deposit_nanoton(self, lanes: dict[int, LaneState]) -> int:
        escrow = self.chain.escrows[self.address]
        after = escrow.lanes | lanes
        locked = sum(lane.cap_nanoton - lane.paid_nanoton for lane in after.values())
        return max(0, locked + reserve_nanoton(len(after)) + _FLOAT_NANOTON - escrow.balance_nanoton)
