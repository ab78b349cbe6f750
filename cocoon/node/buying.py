"""Buying: propose a lease under a quote, and keep bought leases warm per model.

Purity: shell. Protocol ``/cocoon/lease/1``. Spec: docs/spec/leases.md, rules LEA-10 to LEA-15.
"""

from __future__ import annotations

import os

import trio

from cocoon.core.errors import CocoonError, PeerFault, ProviderLost, from_code, wrong
from cocoon.core.ids import LeaseId, ModelId, PeerKey
from cocoon.core.limits import LEASE_DURATION_S, LEASE_REPLY_NS, LEASES_PER_REQUESTER, RUNS_PER_LEASE
from cocoon.core.units import SECOND_NS
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.link import WorkLink
from cocoon.node.means import Order, Purse
from cocoon.node.purchase import Purchase, Say
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import seal_keys
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.scheduler.admission import NO_ESCROW
from cocoon.scheduler.selection import Quote
from cocoon.wire.messages import KeyBox, Lease, LeaseAccept, LeaseOpen, Refusal
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import Signed, open_signed, sign

LEASE_PROTOCOL = "/cocoon/lease/1"


class Buyer:
    """Opens leases and finds the warm one of a model."""

    def __init__(self, purse: Purse, nursery: trio.Nursery) -> None:
        self._purse = purse
        self._nursery = nursery
        self._warm: dict[tuple[ModelId, bool], Purchase] = {}
        self._opening: dict[tuple[ModelId, bool], trio.Lock] = {}

    def warm(self, model: ModelId, private: bool) -> Purchase | None:
        """An open lease for this model that takes another unit."""
        lease = self._warm.get((model, private))
        return lease if lease is not None and lease.usable else None

    async def open(self, quote: Quote, order: Order, progress: Say) -> Purchase:
        """A lease that takes runs now: a new one, or one that another task has just opened for this model.

        Tasks that want one cold model at the same time share a lease; a provider has few for each requester.

        Raises:
            CocoonError: refused, unreachable, or the model was not accepted.
        """
        key = (order.model.id, order.private)
        turn = self._opening.setdefault(key, trio.Lock())
        try:
            async with turn:
                warm = self.warm(*key)
                if warm is not None and warm.costs_what(quote.offer):
                    return warm
                return await self._open(quote, order, progress)
        finally:
            if not turn.locked():
                self._opening.pop(key, None)

    async def _open(self, quote: Quote, order: Order, progress: Say) -> Purchase:
        """Propose a lease, deliver the model, and return once runs may go."""
        await self._make_room(quote.provider)
        lease, accept, link = await self._agree(quote, order)
        try:
            key = records.lease_key(LeaseId(lease.digest))
            await self._purse.journal.append(records.LEASE_BOUGHT, lease.pack(), key)
        except BaseException:
            with trio.CancelScope(shield=True):
                await link.close()
            raise
        purchase = Purchase(self._purse, lease, accept, link, order.model, quote.offer.max_payload_bytes, progress)
        self._nursery.start_soon(self._keep, purchase, (order.model.id, order.private))
        await purchase.ready()
        return purchase

    async def _make_room(self, provider: PeerKey) -> None:
        """Give idle leases of this provider back, the oldest first, until one more fits."""
        held = [lease for lease in self._warm.values() if lease.provider == provider]
        surplus = len(held) - (LEASES_PER_REQUESTER - 2)  # one more may still be closing on the other side
        for lease in [lease for lease in held if lease.idle][: max(0, surplus)]:
            await lease.release()

    async def _keep(self, purchase: Purchase, key: tuple[ModelId, bool]) -> None:
        self._warm[key] = purchase
        try:
            await purchase.run()
        except Exception as error:                      # supervisor border: one lease must not end the peer
            self._purse.log.failure("purchase_failed", error, lease=purchase.id)
        finally:
            if self._warm.get(key) is purchase:
                del self._warm[key]

    async def _agree(self, quote: Quote, order: Order) -> tuple[Signed[Lease], Signed[LeaseAccept], WorkLink]:
        lease = sign(self._terms(quote, order), self._purse.identity)
        terms_of(lease)                                 # a price that cannot be paid is refused before it is promised
        lease_id = LeaseId(lease.digest)
        keys = LinkKeys.from_bytes(os.urandom(64))
        box = seal_keys(quote.sealing_key, lease_id, keys, sender=self._purse.identity.key, receiver=quote.provider)
        keybox = sign(KeyBox(lease=lease.digest, box=box), self._purse.identity)
        stream = await self._purse.mesh.open_stream(quote.provider, LEASE_PROTOCOL)
        try:
            await stream.send(pack(LeaseOpen(lease=lease.pack(), keybox=keybox.pack())))
            accept = await _answer(stream, quote.provider)
            _check(accept.message, lease.digest, keybox.digest)
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise
        session = session_keys(keys, accept.message.nonce, lease_id)
        link = WorkLink(stream, SealedWriter(session.to_provider), SealedReader(session.to_requester))
        return lease, accept, link

    def _terms(self, quote: Quote, order: Order) -> Lease:
        offer = quote.offer
        return Lease(
            network=self._purse.network, nonce=os.urandom(16), requester=self._purse.identity.key,
            provider=quote.provider, offer=quote.digest, model=order.model.id, private=order.private, kind=order.kind,
            setup_nanoton=offer.setup_nanoton, prices=offer.prices, ceiling_nanoton=order.ceiling_nanoton,
            max_runs=RUNS_PER_LEASE, duration_s=LEASE_DURATION_S, escrow=NO_ESCROW, lane=0, run_ms=offer.max_run_ms,
        )


def _check(accept: LeaseAccept, lease: bytes, keybox: bytes) -> None:
    """Return if ``accept`` is about this new lease and these keys; ``wrong_lease`` or ``wrong_keys``."""
    if accept.lease != lease:
        raise wrong("lease", "the provider countersigned another lease")
    if accept.resumed:
        raise wrong("lease", "the provider resumes a lease that was never open")
    if accept.keybox != keybox:
        raise wrong("keys", "the provider opened another box of keys")


async def _answer(stream: PeerStream, provider: PeerKey) -> Signed[LeaseAccept]:
    data = None
    with trio.move_on_after(LEASE_REPLY_NS / SECOND_NS):
        data = await stream.receive()
    if data is None:
        raise ProviderLost(f"the provider did not answer the lease within {LEASE_REPLY_NS // SECOND_NS} s")
    if (error := refused(data)) is not None:
        raise error
    return open_signed(data, LeaseAccept, signer=provider)


def refused(data: bytes) -> CocoonError | None:
    """The error in a refusal; None if ``data`` is something else."""
    try:
        refusal = unpack(data, Refusal)
    except PeerFault:
        return None
    return from_code(refusal.code, refusal.text)
