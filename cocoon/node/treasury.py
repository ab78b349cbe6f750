"""The treasury: a requester's lanes, opened, filled and promised as leases need them.

What is promised on a lane is in the journal before a lease is signed. Where a
provider may give credit, a lease begins while its lane is still on its way.

Purity: shell. Spec: docs/spec/lanes.md, rules LAN-1 to LAN-7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from cocoon.core.errors import ChainUnreachable, CocoonError, LaneUnproven, LimitExceeded, OrderOvertaken
from cocoon.core.ids import LeaseId
from cocoon.core.limits import (
    CREDIT_TRANCHES,
    LEASE_DURATION_S,
    ORDER_CARRY_NANOTON,
    ORDER_TRIES,
    TRANCHE_NANOTON,
)
from cocoon.core.values import Value
from cocoon.ledger.escrow import lanes_gas
from cocoon.ledger.lanes import (
    BOOK_FACTS,
    BookFact,
    BoughtLane,
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
from cocoon.ledger.skew import check_skew
from cocoon.ledger.tab import Head
from cocoon.ledger.till import proof_of_lane
from cocoon.node import records
from cocoon.node.clock import wall_clock_s
from cocoon.node.footing import Footing
from cocoon.node.money import EscrowSeen, Money
from cocoon.node.orders import Orders, OrderTurn, deposit_nanoton
from cocoon.scheduler.selection import Quote
from cocoon.store.service import Journal
from cocoon.telemetry.log import Log
from cocoon.wire.judged import Voucher, sign_cell
from cocoon.wire.messages import Lease
from cocoon.wire.orders import NewLane, TopUp, open_order
from cocoon.wire.signing import Signed


class ShownVoucher(Value):
    """A voucher of a lane with its signature, as the opening of a lease shows it; empty on one that costs nothing."""

    voucher: bytes = b""
    signature: bytes = b""


class Treasury:
    """The lanes of our escrow."""

    def __init__(
        self, money: Money, journal: Journal, nursery: trio.Nursery, log: Log, least_cap_nanoton: int,
        wall_s: Callable[[], int] = wall_clock_s,
    ) -> None:
        self.money = money
        self.orders = Orders(money)
        self.book = LaneBook()
        self.address = money.birth.address()
        self._journal = journal
        self._nursery = nursery
        self._log = log
        self._least_cap_nanoton = least_cap_nanoton
        self._wall_s = wall_s
        self._choosing = trio.Lock()
        self._writing = trio.Lock()
        # Lanes that are on their way while a lease on them has begun on credit; told when that is over.
        self._coming: dict[int, trio.Event] = {}
        # Lanes that a lease waits for: whichever order comes first takes them along.
        self._wanted: set[int] = set()
        self._shown: dict[int, ShownVoucher] = {}

    def restore(self) -> None:
        """Read the journal: what was promised, and the newest voucher of every lane."""
        for entry in self._journal.entries(records.LANE_FACT):
            self.book.restore(BOOK_FACTS.unpack(entry.body))
        for entry in self._journal.entries(records.RECEIPT_ACCEPTED):
            words = unpack_record(entry.body).words
            self.show(Voucher.unpack(words.voucher), words.signature)
        self.orders.restore()

    def show(self, voucher: Voucher, signature: bytes) -> None:
        """Keep a voucher that this side signed, for the opening of the lane's next lease."""
        if voucher.escrow == self.address:
            self._shown[voucher.lane] = ShownVoucher(voucher.pack(), signature)

    def shown(self, lane: int, lease: LeaseId) -> ShownVoucher:
        """What ``lease`` shows: the newest voucher of its lane, or the lane key's word for it (LAN-8)."""
        if (shown := self._shown.get(lane)) is not None:
            return shown
        proof = proof_of_lane(self.money.network_tag, self.address, lane, lease)
        return ShownVoucher(proof.pack(), sign_cell(proof.hash(), self.money.lane_key))

    def promised_nanoton(self, lane: int) -> int:
        """Total of the newest voucher of ``lane``."""
        shown = self._shown.get(lane)
        return Voucher.unpack(shown.voucher).total_nanoton if shown is not None else 0

    def lane(self, lane: int) -> BoughtLane:
        """What the book knows of a lane that was promised."""
        return self.book.lanes[lane]

    async def look(self, *, soon: bool = False) -> EscrowSeen:
        """Our escrow in proven state; the book learns from it. ``soon`` takes what was seen lately if it must."""
        seen = await (self.money.look_soon if soon else self.money.look)(self.address)
        if seen.state is not None:
            self.book.see(seen.state)
        return seen

    async def reserve(
        self, quote: Quote, need_nanoton: int, make: Callable[[Footing], Signed[Lease]]
    ) -> tuple[Signed[Lease], Head]:
        """Find or open a lane for a lease, let ``make`` sign it, and record that the lane is taken.

        Args:
            need_nanoton: What the lease must be able to cost.

        Returns:
            The lease, and the head that its receipts follow.

        Raises:
            InsufficientFunds, CapExceeded: the wallet cannot fill the escrow.
            LimitExceeded: the escrow takes no further lane.
            ChainUnreachable, ChainRefused: no lane is free, and none can be opened now.
            ClockSkewed: no lane is free, and this machine's clock does not fit the chain's.
        """
        rules = await self.money.rules()
        for _ in range(ORDER_TRIES):
            async with self._choosing:                  # two leases must not find one lane free
                seen = await self.look(soon=True)
                choice = self.book.choose(
                    quote.provider, quote.payout, quote.provider_key,
                    ceiling_nanoton=need_nanoton, duration_s=LEASE_DURATION_S, now_s=seen.at_s, rules=rules,
                    worth_nanoton=self._least_cap_nanoton,
                )
                match choice:
                    case UseLane(lane, head, proven) if proven or lane in self._coming:
                        lease = make(Footing(lane, head, self.lane(lane).free_nanoton))
                        await self._record(LeaseReserved(lane, LeaseId(lease.digest), lease.message.ceiling_nanoton))
                        return lease, head
                    case _ if not seen.remembered:
                        check_skew(seen.at_s, self._wall_s())
                        if isinstance(choice, NewLaneNeeded):
                            await self._record(LanePromised(
                                choice.lane, quote.provider, quote.payout, quote.provider_key, choice.cap_nanoton,
                                choice.expires_s,
                            ))
            with suppress(OrderOvertaken):              # under the next number, then
                await self._order(choice, seen)
        raise LaneUnproven(f"no lane came on chain in {ORDER_TRIES} tries")

    async def arrived(self, lane: int) -> None:
        """Wait for a lane that is on its way, if this one is."""
        if (coming := self._coming.get(lane)) is not None:
            await coming.wait()

    async def release(self, lane: int, lease: LeaseId, head: Head) -> None:
        """The lease is over and settled; the lane is free for the next one."""
        await self._record(LeaseReleased.at(lane, lease, head))

    async def end(self, lane: int) -> None:
        """No further lease goes on this lane."""
        await self._record(LaneEnding(lane))

    async def _record(self, fact: BookFact) -> None:
        """Journal a fact, then take it; one at a time, so that the journal holds none that a replay refuses."""
        # Not cancellable: what is in the journal must be in the book.
        with trio.CancelScope(shield=True):
            async with self._writing:
                self.book.check(fact)
                await self._journal.append(records.LANE_FACT, BOOK_FACTS.pack(fact))
                self.book.record(fact)

    async def _order(self, choice: Choice, seen: EscrowSeen) -> None:
        """What has to be ordered before there is a lane to choose."""
        match choice:
            case UseLane(lane):                         # promised before, and not on its way
                await self._open(lane)
            case TopUpLane() | NewLaneNeeded() if seen.remembered:
                raise ChainUnreachable("the chain does not answer, so no lane is opened or filled up")
            case TopUpLane(lane, cap_nanoton, expires_s):
                await self._top_up(TopUp(lane, cap_nanoton, expires_s))
            case NewLaneNeeded(lane, cap_nanoton):
                await self._open_or_begin(lane, cap_nanoton, seen)
            case NoLane(why):
                raise LimitExceeded(f"the escrow takes no further lane: {why}")

    async def _open_or_begin(self, lane: int, cap_nanoton: int, seen: EscrowSeen) -> None:
        """Order the lane; do not wait for it if the provider may give credit, and nothing foreseen is in its way."""
        needed_nanoton = deposit_nanoton(seen, cap_nanoton, 1) + ORDER_CARRY_NANOTON
        payable = needed_nanoton <= await self.money.ledger.balance()
        if not payable or seen.unlocked_nanoton < CREDIT_TRANCHES * TRANCHE_NANOTON:
            await self._open(lane)
            return
        self._coming[lane] = trio.Event()
        self._nursery.start_soon(self._open_behind, lane)

    async def _open_behind(self, lane: int) -> None:
        try:
            await self._open(lane)
        except CocoonError as error:
            # The lease on it stops after one tranche; the next one orders the lane again.
            self._log.warning("lane_not_opened", number=lane, code=error.code)
        finally:
            self._coming.pop(lane).set()

    async def _open(self, lane: int) -> None:
        """Order ``lane``, and with it the others that must not be left behind (LAN-4)."""
        rules = await self.money.rules()
        self._wanted.add(lane)
        try:
            async with self.orders.turn() as turn:
                if turn.seen.state is not None:
                    self.book.see(turn.seen.state)
                entries = [
                    NewLane(new.lane, new.cap_nanoton, new.expires_s, *self._who(new.lane))
                    for new in self.book.unopened(self._wanted, turn.seen.at_s, rules)
                ]
                if lane in {entry.lane for entry in entries}:   # else an order before this one took it along
                    await self._send(turn, entries)
        finally:
            self._wanted.discard(lane)

    @staticmethod
    async def _send(turn: OrderTurn, entries: Sequence[NewLane]) -> None:
        gas = lanes_gas(len(entries), turn.seen.depth + len(entries).bit_length())
        locks_nanoton = sum(entry.cap_nanoton for entry in entries)
        await turn.send(open_order(turn.head, entries), gas, locks_nanoton=locks_nanoton, lanes=len(entries))

    def _who(self, lane: int) -> tuple[bytes, bytes]:
        promised = self.lane(lane)
        return promised.payout, promised.provider_key

    async def _top_up(self, entry: TopUp) -> None:
        async with self.orders.turn() as turn:
            if turn.seen.state is not None:
                self.book.see(turn.seen.state)
            more = entry.cap_nanoton - self.lane(entry.lane).cap_nanoton
            if more > 0:                                # else an order of an earlier life filled it
                gas = lanes_gas(1, turn.seen.depth)
                await turn.send(open_order(turn.head, [entry]), gas, locks_nanoton=more)
