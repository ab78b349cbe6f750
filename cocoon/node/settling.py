"""Debts: leases that broke off, opened again to settle what was accepted on them.

A debt lives in the journal: a lane whose lease was reserved and never released.
It is tried again, at growing intervals, until the provider is there or the lane
has expired; after that nothing can be claimed any more. One settlement at a time
with each provider, all providers at once: a silent one holds up no other.

Purity: shell. Spec: docs/spec/receipts.md, rules REC-13 and REC-18; lanes.md, rule LAN-7; leases.md, rule LEA-16.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from cocoon.core.errors import CocoonError, Corrupt, ProviderLost, UsageError, wrong
from cocoon.core.groups import single_error
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import RECEIPT_REPLY_NS, SETTLE_NS
from cocoon.core.retry import Backoff
from cocoon.core.units import SECOND_NS
from cocoon.ledger import events as receipts
from cocoon.ledger.tab import Head
from cocoon.node import records
from cocoon.node.asking import ask_offer
from cocoon.node.link import WorkLink
from cocoon.node.means import Purse
from cocoon.node.proposal import propose
from cocoon.node.tally import Say, Tally
from cocoon.node.treasury import Treasury
from cocoon.wire.messages import Lease, LeaseAccept, LeaseClose, Receipt, ReceiptIssued, Refusal
from cocoon.wire.schema import Message
from cocoon.wire.signing import Signed, open_signed


class Debts:
    """What broken leases still owe."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._open: dict[LeaseId, Signed[Lease]] = {}
        self._news = trio.Event()
        # Of the providers that are being settled with now: no more than there are debts, and each debt has a lane.
        self._turns: dict[PeerKey, trio.Lock] = {}

    @property
    def open(self) -> int:
        """How many leases are not settled."""
        return len(self._open)

    @property
    def leases(self) -> frozenset[LeaseId]:
        """Leases that are not settled."""
        return frozenset(self._open)

    async def restore(self) -> None:
        """Find in the journal what an earlier life of this peer left."""
        if (treasury := self._purse.treasury) is None:
            return
        for lane in treasury.book.lanes.values():
            if lane.lease is None:
                continue
            entry = self._purse.journal.find(records.lease_key(lane.lease))
            if entry is not None:
                self.owe(open_signed(entry.body, Lease, signer=self._purse.identity.key))
            else:                                       # reserved, and never proposed
                await treasury.release(lane.lane, lane.lease, lane.head)

    def owe(self, lease: Signed[Lease]) -> None:
        """Remember a lease that broke off."""
        self._open[LeaseId(lease.digest)] = lease
        self._news.set()

    async def run(self) -> None:
        """Settle what can be settled, until cancelled."""
        backoff = Backoff()
        while True:
            self._news, before = trio.Event(), len(self._open)
            await self.settle_all()
            if len(self._open) < before:
                backoff.succeeded()
            else:
                backoff.failed()
            with trio.move_on_after(backoff.delay_ns() / SECOND_NS if self._open else float("inf")):
                await self._news.wait()
                backoff.succeeded()

    async def settle_with(self, provider: PeerKey) -> None:
        """Try at once to settle everything that is owed to ``provider``; it gives no new lease before."""
        await self._try({provider} & self._creditors())

    async def settle_all(self) -> None:
        """Try at once to settle everything."""
        await self._try(self._creditors())

    def _creditors(self) -> set[PeerKey]:
        return {PeerKey(lease.message.provider) for lease in self._open.values()}

    async def _try(self, providers: Iterable[PeerKey]) -> None:
        with single_error():
            async with trio.open_nursery() as nursery:
                for provider in providers:
                    nursery.start_soon(self._try_one, provider)

    async def _try_one(self, provider: PeerKey) -> None:
        async with self._turn(provider):
            owed = [lease for lease in self._open.values() if lease.message.provider == provider]
            for lease in owed:
                lease_id = LeaseId(lease.digest)
                try:
                    await self._settle(lease)
                except Corrupt:
                    raise                               # our own journal: no attempt mends it
                except CocoonError as error:
                    self._purse.log.info("lease_unsettled", lease=lease_id, code=error.code, text=error.text)
                else:
                    del self._open[lease_id]
                    self._purse.log.info("lease_settled", lease=lease_id)

    @asynccontextmanager
    async def _turn(self, provider: PeerKey) -> AsyncIterator[None]:
        """A provider opens a lease once at a time, so nobody else settles with it meanwhile."""
        turn = self._turns.setdefault(provider, trio.Lock())
        try:
            async with turn:
                yield
        finally:
            if not turn.locked():
                self._turns.pop(provider, None)

    async def _settle(self, lease: Signed[Lease]) -> None:
        """Open the lease again, get the last receipt, free the lane.

        Raises:
            CocoonError: not now.
        """
        treasury, terms = self._purse.treasury, lease.message
        assert treasury is not None                     # a debt has a lane
        if await self._expired(treasury, terms.lane):
            self._purse.log.warning("lane_expired", number=terms.lane)
            await treasury.end(terms.lane)
            return
        if not self._tally(lease, treasury).tab.last_number:
            # Nothing was accepted on it; whether its provider ever heard of it does not matter.
            await treasury.release(terms.lane, LeaseId(lease.digest), treasury.lane(terms.lane).head)
            return
        head = None
        with trio.move_on_after(SETTLE_NS / SECOND_NS):
            head = await self._agree(lease, treasury)
        if head is None:
            raise ProviderLost(f"the provider did not settle in time, {SETTLE_NS // SECOND_NS} s")
        await treasury.release(terms.lane, LeaseId(lease.digest), head)

    async def _agree(self, lease: Signed[Lease], treasury: Treasury) -> Head:
        """Where the lane stands once both sides agree on everything that was accepted on the lease.

        Raises:
            CocoonError: not now.
        """
        terms = lease.message
        quote = await ask_offer(self._purse.mesh, self._purse.network, terms.kind, PeerKey(terms.provider))
        accept, link = await propose(
            self._purse, lease, quote.sealing_key, treasury.shown(terms.lane, LeaseId(lease.digest)), again=True
        )
        try:
            tally = await self._account(lease, accept, link, treasury)
        finally:
            with trio.CancelScope(shield=True):
                await link.close()
        return tally.tab.head

    async def _expired(self, treasury: Treasury, lane: int) -> bool:
        """Whether nothing can be claimed from the lane any more; a chain that is away holds no new lease up."""
        seen = await treasury.look(soon=True)
        if seen.state is None or lane >= seen.state.next_lane:
            return False                                # still on its way
        state = seen.state.lanes.get(lane)
        return state is None or seen.at_s >= state.expires_s

    async def _account(
        self, lease: Signed[Lease], accept: Signed[LeaseAccept], link: WorkLink, treasury: Treasury
    ) -> Tally:
        """Say what we hold; countersign receipts until nothing is open and the provider has closed the lease."""
        tally = self._tally(lease, treasury, link.post)
        if not accept.message.resumed:
            raise wrong("lease", "the provider does not know a lease on which it delivered")
        last_stated = accept.message.last_stated
        if last_stated is not None and last_stated < tally.tab.last_number:
            self._purse.log.warning("runs_forgotten", lease=lease.digest, number=last_stated)
            await tally.tell(receipts.RunsForgotten(last_stated), accept)
        await tally.tell(receipts.LeaseResumed(), accept)
        tally.repeat()
        await link.flush()
        while not tally.verifier.settled:
            if not await self._next(tally, accept, link):
                raise ProviderLost("the provider ended the lease before it was settled")
        await link.send(LeaseClose(code="released"))
        while await self._next(tally, accept, link):
            pass                                        # its last receipt is countersigned once more before it closes
        return tally

    def _tally(self, lease: Signed[Lease], treasury: Treasury, say: Say | None = None) -> Tally:
        async def settled(receipt: Signed[Receipt], numbers: tuple[int, ...]) -> None:
            self._purse.log.info("receipt_settled", receipt=receipt.digest, runs=len(numbers))

        tally = Tally(self._purse, lease, treasury.lane(lease.message.lane).head, say or _nobody, settled)
        tally.restore()
        return tally

    async def _next(self, tally: Tally, accept: Signed[LeaseAccept], link: WorkLink) -> bool:
        """Take the provider's next word; False once it has closed the lease.

        Raises:
            ProviderLost: it says nothing.
        """
        with trio.move_on_after(RECEIPT_REPLY_NS / SECOND_NS):
            match await link.receive(ReceiptIssued, Refusal, LeaseClose):
                case ReceiptIssued(packed):
                    receipt = open_signed(packed, Receipt, signer=accept.signer)
                    await tally.tell(receipts.ReceiptReceived(receipt), accept)
                    await link.flush()
                case Refusal(code, text):
                    self._purse.log.info("lease_closing", lease=tally.id, code=code, text=text)
                case LeaseClose():
                    return False
            return True
        raise ProviderLost(f"no word of the provider within {RECEIPT_REPLY_NS // SECOND_NS} s")


def _nobody(message: Message) -> None:
    raise UsageError("an account that is only read says nothing")
