"""Buying: leases proposed, kept warm, and settled when they broke off; ``buying``, ``proposal`` and ``settling``.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-10 to LEA-16; lanes.md, LAN-1 to LAN-7; simulation.md, SIM-1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cocoon.core.errors import (
    CocoonError,
    CreditRefused,
    Draining,
    LeaseIdle,
    LeaseReturned,
    PeerFault,
    ProviderLost,
    Unreachable,
    from_peer,
    wrong,
)
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import LEASE_REPLY_NS, LEASES_PER_REQUESTER, RUNS_PER_LEASE, TRANCHE_NANOTON
from cocoon.core.values import Value
from cocoon.ledger.tab import Head
from cocoon.node import records
from cocoon.node.footing import Footing, free_lease, on_lane
from cocoon.scheduler.selection import Quote, expected_cost_nanoton
from cocoon.wire.messages import Lease, LeaseAccept, LeaseOpen, Refusal
from cocoon.wire.signing import Signed, sign
from sim.engine.flow import Bell, Moment, Turn
from sim.engine.journal import Row
from sim.engine.network import End
from sim.peers.ground import Peer
from sim.peers.market import Market
from sim.peers.models import Model
from sim.peers.purchase import Purchase
from sim.peers.regard import Regard
from sim.peers.selling import LEASE_PROTOCOL
from sim.peers.treasury import Treasury


class Order(Value):
    """The model of a lease and the conditions of the user."""

    model: Model
    units: int
    ceiling_nanoton: int | None
    without: Collection[PeerKey] = ()


class Buying:
    """One life of a requester's leases."""

    def __init__(self, peer: Peer, market: Market, regard: Regard, lease_idle_ns: int) -> None:
        self.peer = peer
        self.market, self.regard = market, regard
        self.lease_idle_ns = lease_idle_ns
        self.treasury = Treasury(peer) if peer.ground.chain is not None else None
        self._warm: dict[tuple[bytes, PeerKey], Purchase] = {}
        self._opening: dict[tuple[bytes, PeerKey], Turn] = {}
        #: Leases that broke off: told to whoever settles them.
        self.owed: dict[LeaseId, Signed[Lease]] = {}
        self.owing = Bell(peer.ground.heap)

    def warm(self, order: Order) -> list[Purchase]:
        """Open leases for this model that take the order's units, each within its ceiling, the cheapest first."""
        keys = [key for key in self._warm if key[0] == order.model.id]
        fitting = [lease for key in keys if (lease := self._warm_at(key, order)) is not None]
        return sorted(fitting, key=lambda lease: lease.price(order.model.measure).cost_nanoton(order.units))

    def _warm_at(self, key: tuple[bytes, PeerKey], order: Order) -> Purchase | None:
        lease = self._warm.get(key)
        if lease is None or not lease.usable or lease.provider in order.without:
            return None
        return lease if lease.covers(order.units, order.model.measure, order.ceiling_nanoton) else None

    async def open(self, quote: Quote, order: Order) -> Purchase:
        """A lease that takes runs now: a new one, or one that another task has just opened there for this model.

        Raises:
            CocoonError: refused, unreachable, no lane for it, or the model was not accepted.
        """
        key = (order.model.id, quote.provider)
        async with self._opening.setdefault(key, Turn(self.peer.ground.heap)):
            warm = self._warm_at(key, order)
            if warm is not None and warm.costs_what(quote.asked):
                return warm
            return await self._open(key, quote, order)

    async def _open(self, key: tuple[bytes, PeerKey], quote: Quote, order: Order) -> Purchase:
        await self._make_room(quote.provider)
        held = self._warm.get(key)
        if held is not None and held.idle:
            await held.release()
        await self.settle_with(quote.provider)
        try:
            agreed = await self._propose(quote, order)
        except CreditRefused:                           # not before its lane is there, then; it is on its way
            agreed = await self._propose(quote, order)
        lease = Purchase(self, *agreed, order.model)
        self._warm[key] = lease
        self.peer.spawn(self._keep(lease, key))
        await lease.ready()
        return lease

    async def _make_room(self, provider: PeerKey) -> None:
        held = [lease for lease in self._warm.values() if lease.provider == provider]
        surplus = len(held) - (LEASES_PER_REQUESTER - 2)
        for lease in [lease for lease in held if lease.idle][: max(0, surplus)]:
            await lease.release()

    async def _keep(self, lease: Purchase, key: tuple[bytes, PeerKey]) -> None:
        """See a lease to its end, and remember what it says of its provider (SCH-21)."""
        await lease.gone.wait()
        if self._warm.get(key) is lease:
            del self._warm[key]
        ending = lease.ending
        if ending is None or isinstance(ending, LeaseReturned | LeaseIdle | Draining):
            if lease.tally.verifier.tab.units > 0 and lease.tally.verifier.settled:
                await self.regard.kept(lease.provider)
        elif isinstance(ending, PeerFault) or self._hears_others(lease.provider):
            await self.regard.failed(lease.provider, ending)
        await self._part(lease)
        lease.scope.close()

    def _hears_others(self, provider: PeerKey) -> bool:
        """Whoever lost everybody at once was cut off itself: no provider is to blame."""
        ground = self.peer.ground
        return ground.network.connected(self.peer.number, ground.by_key[provider].number)

    async def _part(self, lease: Purchase) -> None:
        """Free the lane of an ended lease, or remember that it is to be settled."""
        if self.treasury is None or not lease.tally.lane:
            return
        if lease.ended_well:
            await self.treasury.release(lease.tally.lane, lease.id, lease.tally.verifier.tab.head)
        else:
            self.owed[lease.id] = lease.lease
            self.owing.ring()

    async def settle_with(self, provider: PeerKey) -> None:
        """Try at once to settle what is owed to ``provider``; replaced by whoever settles debts."""

    # --- proposing -----------------------------------------------------------------

    async def _propose(self, quote: Quote, order: Order) -> tuple[Signed[Lease], Head, Signed[LeaseAccept], End]:
        """A lease that its provider countersigned."""
        lease, opening = await self._sign(quote, order)
        try:
            return lease, opening, *await self._agree(lease, opening)
        except CreditRefused:
            if self.treasury is not None:
                await self.treasury.arrived(lease.message.lane)
            raise
        except PeerFault as error:
            await self.regard.failed(quote.provider, error)
            raise

    async def _sign(self, quote: Quote, order: Order) -> tuple[Signed[Lease], Head]:
        if self.treasury is None or not expected_cost_nanoton(quote.terms, RUNS_PER_LEASE):
            lease = sign(self._terms(quote, order, None), self.peer.signer)
            self.peer.ground.words.terms(lease)         # a price that cannot be paid is refused before it is promised
            return lease, Head()
        return await self.treasury.reserve(
            quote, expected_cost_nanoton(quote.terms, order.units),
            lambda footing: sign(self._terms(quote, order, footing), self.peer.signer),
        )

    async def _agree(self, lease: Signed[Lease], opening: Head) -> tuple[Signed[LeaseAccept], End]:
        """Open the lease with the provider and record it; first if it costs anything, because it may be owed for."""
        treasury, lane = self.treasury, lease.message.lane
        row = Row(records.LEASE_BOUGHT, lease.pack(), records.lease_key(LeaseId(lease.digest)))
        if treasury is None or not lane:
            accept, end = await self.propose(lease, (b"", b""))
            await self.peer.journal.append(row)
            return accept, end
        await self.peer.journal.append(row)
        try:
            return await self.propose(lease, treasury.shown(lane, LeaseId(lease.digest)))
        except CocoonError:                             # nothing was accepted on it (LAN-7)
            await treasury.release(lane, LeaseId(lease.digest), opening)
            raise

    async def propose(
        self, lease: Signed[Lease], shown: tuple[bytes, bytes], *, again: bool = False
    ) -> tuple[Signed[LeaseAccept], End]:
        """Send the words that open a lease, for the first time or again.

        Raises:
            CocoonError: refused, unreachable, or answered with something else.
        """
        provider = PeerKey(lease.message.provider)
        end, answer = self.peer.open(provider, LEASE_PROTOCOL), Moment[Any](self.peer.ground.heap)
        if end is None:
            raise Unreachable("nobody has this key")
        early: list[Any] = []

        def hear(message: Any) -> None:
            if answer.came:
                early.append(message)
            answer.set(message)

        end.on_frame = hear
        end.on_close = lambda: hear(None)
        end.send(LeaseOpen(lease=lease.pack(), keybox=b"", voucher=shown[0], signature=shown[1]))
        try:
            if not await answer.wait(LEASE_REPLY_NS):
                raise ProviderLost("the provider did not answer the lease in time")
            accept = self._accepted(answer.value, lease, provider)
            if accept.message.resumed and not again:
                raise wrong("lease", "the provider resumes a lease that was never open")
        except CocoonError:
            end.close()
            raise
        if early:
            raise ProviderLost("the link ended with the answer")
        return accept, end

    def _accepted(self, said: Any, lease: Signed[Lease], provider: PeerKey) -> Signed[LeaseAccept]:
        match said:
            case Refusal(code, text):
                raise from_peer(code, text)
            case None:
                raise Unreachable("the stream ended before an answer")
        accept = self.peer.ground.words.open(said.pack(), LeaseAccept, signer=provider)
        if accept.message.lease != lease.digest:
            raise wrong("lease", "the provider countersigned another lease")
        return accept

    def _terms(self, quote: Quote, order: Order, footing: Footing | None) -> Lease:
        free = free_lease(
            quote, network=self.peer.ground.network_id, nonce=self.peer.random(16), requester=self.peer.key,
            model=order.model.id, private=False, kind=order.model.manifest.sold_as,
            ceiling_nanoton=order.ceiling_nanoton or 0,
        )
        if footing is None or self.treasury is None:
            return free
        return on_lane(free, quote, footing, self.treasury.birth, self.treasury.address, TRANCHE_NANOTON)
