"""Debts: leases that broke off, opened again to settle what was accepted on them; ``cocoon.node.settling``.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-13 and REC-18; leases.md, rule LEA-16; simulation.md, SIM-1.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import CocoonError, ProviderLost, wrong
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import RECEIPT_REPLY_NS
from cocoon.core.retry import Backoff
from cocoon.ledger import events as receipts
from cocoon.node import records
from cocoon.wire.messages import Lease, LeaseAccept, LeaseClose, Receipt, ReceiptIssued, Refusal
from cocoon.wire.signing import Signed
from sim.engine.flow import Moment, Turn
from sim.engine.network import End
from sim.peers.buying import Buying
from sim.peers.purchase import Tally


class _Words:
    """What a provider says on a link, one by one."""

    def __init__(self, buying: Buying, end: End) -> None:
        self._heap = buying.peer.ground.heap
        self._heard: list[Any] = []
        self._next: Moment[None] = Moment(self._heap)
        end.on_frame = self._hear
        end.on_close = lambda: self._hear(None)

    def _hear(self, message: Any) -> None:
        self._heard.append(message)
        self._next.set(None)

    async def next(self) -> Any:
        """The next word; None at the end.

        Raises:
            ProviderLost: it says nothing.
        """
        if not self._heard:
            self._next = Moment(self._heap)
            if not await self._next.wait(RECEIPT_REPLY_NS):
                raise ProviderLost("no word of the provider in time")
        return self._heard.pop(0)


class Debts:
    """One life of what broken leases still owe."""

    def __init__(self, buying: Buying) -> None:
        self._buying = buying
        self._turns: dict[PeerKey, Turn] = {}
        buying.settle_with = self.settle_with           # type: ignore[method-assign]
        if buying.treasury is not None:
            buying.peer.spawn(self._run())

    async def _run(self) -> None:
        """Find what an earlier life left, then settle what can be settled, for ever."""
        buying, treasury = self._buying, self._buying.treasury
        assert treasury is not None
        for lane in tuple(treasury.book.lanes.values()):
            if lane.lease is None:
                continue
            row = buying.peer.journal.find(records.lease_key(lane.lease))
            if row is not None:
                buying.owed[lane.lease] = buying.peer.ground.words.open(row.body, Lease, signer=buying.peer.key)
            else:
                await treasury.release(lane.lane, lane.lease, lane.head)
        backoff = Backoff()
        while True:
            before = len(buying.owed)
            for provider in sorted({PeerKey(lease.message.provider) for lease in buying.owed.values()}):
                await self.settle_with(provider)
            if len(buying.owed) < before or not buying.owed:
                backoff.succeeded()
            else:
                backoff.failed()
            if not buying.owed:
                await buying.owing.wait()
            else:
                await buying.owing.wait(backoff.delay_ns())

    async def settle_with(self, provider: PeerKey) -> None:
        """Try at once to settle everything that is owed to ``provider``; it gives no new lease before."""
        buying = self._buying
        if not any(lease.message.provider == provider for lease in buying.owed.values()):
            return
        async with self._turns.setdefault(provider, Turn(buying.peer.ground.heap)):
            for lease_id, lease in tuple(buying.owed.items()):
                if lease.message.provider != provider or lease_id not in buying.owed:
                    continue
                try:
                    await self._settle(lease)
                except CocoonError:
                    continue                            # not now
                del buying.owed[lease_id]

    async def _settle(self, lease: Signed[Lease]) -> None:
        treasury, lane = self._buying.treasury, lease.message.lane
        assert treasury is not None
        escrow = treasury.chain.escrows[treasury.address]
        seen = escrow.lanes.get(lane)
        if lane < escrow.next_lane and (seen is None or treasury.chain.now_s >= seen.expires_s):
            await treasury.end(lane)
            return
        tally = self._tally(lease, lambda _: None)
        head = treasury.book.lanes[lane].head
        if tally.verifier.tab.last_number:
            head = (await self._agree(lease)).verifier.tab.head
        await treasury.release(lane, LeaseId(lease.digest), head)

    async def _agree(self, lease: Signed[Lease]) -> Tally:
        """Say what we hold; countersign receipts until nothing is open and the provider has closed the lease.

        Raises:
            CocoonError: not now.
        """
        buying, treasury = self._buying, self._buying.treasury
        assert treasury is not None
        await buying.market.ask_offer(PeerKey(lease.message.provider))
        shown = treasury.shown(lease.message.lane, LeaseId(lease.digest))
        accept, end = await buying.propose(lease, shown, again=True)
        words, tally = _Words(buying, end), self._tally(lease, end.send)
        try:
            if not accept.message.resumed:
                raise wrong("lease", "the provider does not know a lease on which it delivered")
            last_stated = accept.message.last_stated
            if last_stated is not None and last_stated < tally.verifier.tab.last_number:
                await tally.tell(receipts.RunsForgotten(last_stated), accept)
            await tally.tell(receipts.LeaseResumed(), accept)
            if tally.verifier.promised is not None:
                tally.repeat(tally.verifier.promised)
            while not tally.verifier.settled:
                if not await self._next(tally, accept, words):
                    raise ProviderLost("the provider ended the lease before it was settled")
            end.send(LeaseClose(code="released"))
            while await self._next(tally, accept, words):
                pass
        finally:
            end.close()
        return tally

    async def _next(self, tally: Tally, accept: Signed[LeaseAccept], words: _Words) -> bool:
        match await words.next():
            case ReceiptIssued(packed):
                receipt = self._buying.peer.ground.words.open(packed, Receipt, signer=accept.signer)
                await tally.tell(receipts.ReceiptReceived(receipt), accept)
            case Refusal():
                pass                                    # the cause, for people
            case LeaseClose() | None:
                return False
        return True

    def _tally(self, lease: Signed[Lease], say: Any) -> Tally:
        treasury = self._buying.treasury
        assert treasury is not None
        tally = Tally(self._buying, lease, treasury.book.lanes[lease.message.lane].head, say, lambda _: None)
        tally.restore()
        return tally
