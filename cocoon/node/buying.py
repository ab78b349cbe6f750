"""Buying: propose a lease under a quote, and keep bought leases warm per model.

Purity: shell. Spec: docs/spec/leases.md, rules LEA-10 to LEA-15; lanes.md, rules LAN-1 to LAN-7.
"""

from __future__ import annotations

import os
from functools import partial

import trio

from cocoon.core.errors import CreditRefused, Draining, LeaseIdle, LeaseReturned, PeerFault, ProviderBusy, StorageFull
from cocoon.core.ids import LeaseId, ModelId, PeerKey
from cocoon.core.limits import LEASES_PER_REQUESTER, RUNS_PER_LEASE
from cocoon.ledger.tab import Head
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.footing import Footing, free_lease, on_lane
from cocoon.node.link import WorkLink
from cocoon.node.means import Order, Purse
from cocoon.node.patience import persist
from cocoon.node.proposal import propose
from cocoon.node.purchase import Purchase, Say
from cocoon.node.settling import Debts
from cocoon.node.treasury import ShownVoucher, Treasury
from cocoon.scheduler.selection import Quote, expected_cost_nanoton
from cocoon.store.service import Row
from cocoon.wire.messages import Lease, LeaseAccept
from cocoon.wire.signing import Signed, sign

#: A model, whether it is private, and who runs it.
_Key = tuple[ModelId, bool, PeerKey]


class Buyer:
    """Opens leases and finds the warm ones of a model."""

    def __init__(self, purse: Purse, nursery: trio.Nursery) -> None:
        self._purse = purse
        self._nursery = nursery
        self._warm: dict[_Key, Purchase] = {}
        self._opening: dict[_Key, trio.Lock] = {}
        # Every lease until its lane is free again, or it is among the debts.
        self._kept: dict[Purchase, trio.Event] = {}
        self.debts = Debts(purse)

    def warm(self, order: Order) -> list[Purchase]:
        """Open leases for this model that take the order's units, each within its ceiling, the cheapest first."""
        keys = [key for key in self._warm if key[:2] == (order.model.id, order.private)]
        fitting = [lease for key in keys if (lease := self._warm_at(key, order)) is not None]
        return sorted(fitting, key=lambda lease: lease.price(order.measure).cost_nanoton(order.units))

    def _warm_at(self, key: _Key, order: Order) -> Purchase | None:
        lease = self._warm.get(key)
        if lease is None or not lease.usable or lease.provider in order.without:
            return None
        return lease if lease.covers(order.units, order.measure, order.ceiling_nanoton) else None

    def bought(self, model: ModelId) -> bool:
        """Whether a lease on this model is open."""
        return any(key[0] == model for key in self._warm)

    async def open(self, quote: Quote, order: Order, progress: Say) -> Purchase:
        """A lease that takes runs now: a new one, or one that another task has just opened there for this model.

        Tasks that want one cold model of one provider at the same time share a lease; it has few for each requester.

        Raises:
            CocoonError: refused, unreachable, no lane for it, or the model was not accepted.
        """
        key = (order.model.id, order.private, quote.provider)
        turn = self._opening.setdefault(key, trio.Lock())
        try:
            async with turn:
                warm = self._warm_at(key, order)
                if warm is not None and warm.costs_what(quote.asked):
                    return warm
                return await self._open(key, quote, order, progress)
        finally:
            if not turn.locked():
                self._opening.pop(key, None)

    async def release_idle(self) -> None:
        """Give back what nobody uses; each lease has its last receipt, or is among the debts, when this returns."""
        for lease, over in tuple(self._kept.items()):
            if lease.idle or lease.over:
                await lease.release()
                await over.wait()

    async def _open(self, key: _Key, quote: Quote, order: Order, progress: Say) -> Purchase:
        """Propose a lease, deliver the model, and return once runs may go."""
        await self._make_room(quote.provider)
        held = self._warm.get(key)
        if held is not None and held.idle:
            await held.release()                        # too small for this task; its lane may be filled up instead
        await self.debts.settle_with(quote.provider)
        try:
            agreed = await self._propose(quote, order)
        except CreditRefused:                           # not before its lane is there, then; it is on its way
            agreed = await self._propose(quote, order)
        purchase = Purchase(self._purse, *agreed, order.model, quote.offer.max_payload_bytes, progress)
        self._nursery.start_soon(self._keep, purchase, key)
        await purchase.ready()
        return purchase

    async def _make_room(self, provider: PeerKey) -> None:
        """Give idle leases of this provider back, the oldest first, until one more fits."""
        held = [lease for lease in self._warm.values() if lease.provider == provider]
        surplus = len(held) - (LEASES_PER_REQUESTER - 2)  # one more may still be closing on the other side
        for lease in [lease for lease in held if lease.idle][: max(0, surplus)]:
            await lease.release()

    async def _keep(self, purchase: Purchase, key: _Key) -> None:
        self._warm[key] = purchase
        over = self._kept[purchase] = trio.Event()
        try:
            await purchase.run()
        except Exception as error:                      # supervisor border: one lease must not end the peer
            self._purse.log.failure("purchase_failed", error, lease=purchase.id)
        finally:
            if self._warm.get(key) is purchase:
                del self._warm[key]
        try:
            await self._remember(purchase)
            await self._part(purchase)
        finally:
            del self._kept[purchase]
            over.set()

    async def _remember(self, purchase: Purchase) -> None:
        """What this lease says of its provider (SCH-21)."""
        ending, purse = purchase.ending, self._purse
        if ending is None or isinstance(ending, LeaseReturned | LeaseIdle | Draining):
            if purchase.worked and purchase.tally.verifier.settled:
                await purse.regard.kept(purchase.provider)
        elif isinstance(ending, PeerFault) or any(peer != purchase.provider for peer in purse.mesh.connections()):
            # Whoever lost everybody at once was cut off itself: no provider is to blame.
            await purse.regard.failed(purchase.provider, ending)

    async def _part(self, purchase: Purchase) -> None:
        """Free the lane of an ended lease, or remember that it is to be settled."""
        treasury = self._purse.treasury
        if treasury is None or not purchase.tally.lane:
            return
        if purchase.ended_well:
            tally = purchase.tally
            free = partial(treasury.release, tally.lane, purchase.id, tally.tab.head)
            await persist(self._purse.log, "lane_not_freed", free, number=tally.lane)
        else:
            self.debts.owe(purchase.lease)

    async def _sign(self, quote: Quote, order: Order) -> tuple[Signed[Lease], Head]:
        """The lease under this quote, on a lane of ours if it costs anything."""
        treasury = self._purse.treasury
        if treasury is None or not expected_cost_nanoton(quote.terms, RUNS_PER_LEASE):
            lease = sign(self._terms(quote, order, None), self._purse.identity)
            terms_of(lease)                             # a price that cannot be paid is refused before it is promised
            return lease, Head()
        return await treasury.reserve(
            quote, expected_cost_nanoton(quote.terms, order.units),
            lambda footing: sign(self._terms(quote, order, footing), self._purse.identity),
        )

    async def _propose(
        self, quote: Quote, order: Order
    ) -> tuple[Signed[Lease], Head, Signed[LeaseAccept], WorkLink]:
        """A lease that its provider countersigned.

        Raises:
            CreditRefused: its lane had not been on chain; it is now, if it came at all.
        """
        lease, opening = await self._sign(quote, order)
        try:
            return lease, opening, *await self._agree(lease, opening, quote)
        except CreditRefused:
            if self._purse.treasury is not None:
                await self._purse.treasury.arrived(lease.message.lane)
            raise
        except ProviderBusy as error:
            # Perhaps our own leases fill the places that it has for us: then nobody broke a word.
            if all(held.provider != quote.provider for held in self._kept):
                await self._purse.regard.refused(quote.provider, error.code)
            raise
        except PeerFault as error:
            await self._purse.regard.failed(quote.provider, error)
            raise

    async def _agree(
        self, lease: Signed[Lease], opening: Head, quote: Quote
    ) -> tuple[Signed[LeaseAccept], WorkLink]:
        """Open the lease with the provider and record it; first if it costs anything, because it may be owed for."""
        treasury, lane = self._purse.treasury, lease.message.lane
        row = Row(records.LEASE_BOUGHT, lease.pack(), records.lease_key(LeaseId(lease.digest)))
        if treasury is None or not lane:
            accept, link = await propose(self._purse, lease, quote.sealing_key, ShownVoucher())
            await self._record(row, link)
            return accept, link
        try:
            await self._purse.journal.append_many([row])
            shown = treasury.shown(lane, LeaseId(lease.digest))
            return await propose(self._purse, lease, quote.sealing_key, shown)
        except BaseException:                           # a cancelled task must not keep the lane either
            await self._give_back(treasury, lease, opening)
            raise

    async def _give_back(self, treasury: Treasury, lease: Signed[Lease], opening: Head) -> None:
        """Free the lane of a lease on which nothing was accepted, whether its provider heard of it or not (LAN-7)."""
        with trio.CancelScope(shield=True):
            try:
                await treasury.release(lease.message.lane, LeaseId(lease.digest), opening)
            except StorageFull as error:                # settled as a debt, then: there is nothing to ask for
                self._purse.log.failure("lane_not_freed", error, number=lease.message.lane)
                self.debts.owe(lease)

    async def _record(self, row: Row, link: WorkLink) -> None:
        try:
            await self._purse.journal.append_many([row])
        except BaseException:
            with trio.CancelScope(shield=True):
                await link.close()
            raise

    def _terms(self, quote: Quote, order: Order, footing: Footing | None) -> Lease:
        free = free_lease(
            quote, network=self._purse.network, nonce=os.urandom(16), requester=self._purse.identity.key,
            model=order.model.id, private=order.private, kind=order.kind, ceiling_nanoton=order.ceiling_nanoton or 0,
        )
        treasury = self._purse.treasury
        if footing is None or treasury is None:
            return free
        return on_lane(free, quote, footing, treasury.money.birth, treasury.address, self._purse.tranche_nanoton)
