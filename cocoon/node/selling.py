"""Selling: a provider's side of every lease, from the first frame to the last.

Purity: shell. Protocol ``/cocoon/lease/1``. Spec: docs/spec/leases.md, rules LEA-1 to LEA-9.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import trio

from cocoon.core.errors import (
    BadSeal,
    BidExpired,
    CocoonError,
    NotFound,
    ProviderBusy,
    Replayed,
    StorageFull,
    StreamClosed,
    wrong,
)
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import CHUNK_BYTES, HANDSHAKE_NS, MESSAGE_HEADER_BYTES
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.terms import terms_of
from cocoon.node import records
from cocoon.node.carrier import Awaited
from cocoon.node.link import WorkLink
from cocoon.node.means import Shop
from cocoon.node.proposal import LEASE_PROTOCOL
from cocoon.node.sale import Sale
from cocoon.node.till import FREE, Entry
from cocoon.p2p.direct import Ticket
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import open_keys
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.scheduler.admission import House, admit
from cocoon.wire.messages import KeyBox, Lease, LeaseAccept, LeaseOpen, refusal
from cocoon.wire.resume import LinkResume, LinkResumed
from cocoon.wire.schema import pack, unpack
from cocoon.wire.signing import Signed, open_signed, sign


@dataclass(slots=True)
class _Link:
    """The link of an open lease, and where its next stream is handed in."""

    link: WorkLink
    next: Awaited
    #: Set when the newest stream behind the first is not needed any more: each takes a place among the streams.
    relieved: trio.Event = field(default_factory=trio.Event)


class Seller:
    """Accepts leases and owns the sales that follow."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._open: dict[LeaseId, PeerKey] = {}
        self._sales: dict[LeaseId, Sale] = {}
        self._links: dict[LeaseId, _Link] = {}
        self._empty = trio.Event()
        self._empty.set()

    def serve(self) -> None:
        """Take leases from the mesh."""
        self._shop.mesh.serve(LEASE_PROTOCOL, self._take)

    async def drained(self) -> None:
        """Take nothing new and wait until every open lease has ended."""
        self._shop.counter.capacity.draining = True
        for sale in tuple(self._sales.values()):
            await sale.drain()
        await self._empty.wait()

    def closed(self) -> CocoonError | None:
        """Why no lease is taken now; None if one is."""
        if (closed := self._shop.counter.capacity.closed()) is not None:
            return closed
        if self._shop.journal.low:
            return StorageFull("this provider's disk is nearly full")
        return None

    async def _take(self, stream: PeerStream) -> None:
        try:
            opening = unpack(await stream.receive(), LeaseOpen, LinkResume)
            if isinstance(opening, LinkResume):
                await self._resume(stream, opening)
                return
            lease, keys, keybox_digest = self._read(opening, stream.peer)
            highest = self._admit(lease)
        except CocoonError as error:
            await self._refuse(stream, error)
            return
        # Its place is taken before the chain is asked, so that a second opening finds it.
        self._enter(LeaseId(lease.digest), lease.signer)
        try:
            await self._sell(stream, opening, lease, keys, keybox_digest, highest)
        finally:
            self._leave(LeaseId(lease.digest))

    async def _sell(
        self, stream: PeerStream, opening: LeaseOpen, lease: Signed[Lease], keys: LinkKeys, keybox: bytes,
        highest: int | None,
    ) -> None:
        """Serve an admitted lease until it ends."""
        lease_id = LeaseId(lease.digest)
        try:
            entry = await self._stand(lease, opening, known=highest is not None)
        except CocoonError as error:
            await self._refuse(stream, error)
            return
        try:
            if highest is None and not self._use_bid(lease):
                await self._refuse(stream, BidExpired("another lease was made under this bid meanwhile"))
                return
            accept, link = await self._accept(stream, lease, keys, keybox, resumed=highest is not None)
            sale = self._sales[lease_id] = Sale(self._shop, lease, accept, link, highest or 0, entry)
            await sale.run()
        finally:
            if self._sales.pop(lease_id, None) is None:
                await self._abandon(lease)
            if (ended := self._links.pop(lease_id, None)) is not None:
                ended.relieved.set()

    async def _resume(self, stream: PeerStream, words: LinkResume) -> None:
        """Let the link of an open lease go on over this stream, and keep it until the next one, or the lease's end."""
        lease_id = LeaseId(words.lease)
        held = self._links.get(lease_id)
        if held is None or self._open.get(lease_id) != stream.peer:
            raise NotFound("no link of this lease is open here")
        held.relieved.set()
        held.relieved = relieved = trio.Event()
        await held.next.offer(stream, words.received)
        held.link.replace()
        await relieved.wait()

    def _use_bid(self, lease: Signed[Lease]) -> bool:
        """Whether the bid was still there for this lease; now it is not any more."""
        bids, named = self._shop.bids, lease.message.bid
        standing = bids.bid(named, lease.signer) is not None
        bids.taken(named)
        return standing

    async def _refuse(self, stream: PeerStream, error: CocoonError) -> None:
        self._shop.log.info("lease_refused", peer=stream.peer, code=error.code, text=error.text)
        await stream.send(pack(refusal(error)))

    async def _abandon(self, lease: Signed[Lease]) -> None:
        """Free the lane of a lease that was never opened: the stream broke, or the disk is full."""
        terms = terms_of(lease)
        if self._shop.till is not None and terms.lane:
            with trio.CancelScope(shield=True):
                await self._shop.till.abandon(terms)

    async def _stand(self, lease: Signed[Lease], opening: LeaseOpen, *, known: bool) -> Entry:
        """What the lease's lane has to say; a lease without a price has none."""
        terms = terms_of(lease)
        if not terms.lane:
            return FREE
        if self._shop.till is None:
            raise wrong("lane", "this network has no ledger")
        return await self._shop.till.enter(terms, opening, lease.message.duration_s, known=known)

    def _read(self, opening: LeaseOpen, peer: PeerKey) -> tuple[Signed[Lease], LinkKeys, bytes]:
        """Check both signatures, and open the box of keys."""
        lease = open_signed(opening.lease, Lease, signer=peer)
        keybox = open_signed(opening.keybox, KeyBox, signer=peer)
        if keybox.message.lease != lease.digest:
            raise wrong("lease", "the box of keys is for another lease")
        return lease, self._open_box(LeaseId(lease.digest), keybox.message.box, peer), keybox.digest

    def _open_box(self, lease: LeaseId, box: bytes, peer: PeerKey) -> LinkKeys:
        """Open the box with today's key or, while its offers are held, with the one before."""
        refusal = BadSeal("this provider has no sealing key")
        for seed in self._shop.counter.sealing_seeds:
            try:
                return open_keys(seed, lease, box, sender=peer, receiver=self._shop.identity.key)
            except BadSeal as error:
                refusal = error
        raise refusal

    def _admit(self, lease: Signed[Lease]) -> int | None:
        """Admit a new lease (None), or a known one again: the highest run number begun."""
        shop = self._shop
        lease_id = LeaseId(lease.digest)
        if lease_id in self._open:
            raise Replayed("this lease is open already")
        is_known = shop.journal.find(records.lease_key(lease_id)) is not None
        closed = self.closed()
        if closed is not None and not (is_known and isinstance(closed, ProviderBusy)):
            raise closed                                # who rests still settles what it sold
        if is_known:
            return self._highest(lease_id)              # every field of it was admitted before
        mine = Counter(self._open.values())[lease.signer]
        house = House(
            network=shop.network, provider=shop.identity.key, offer=shop.counter.offer,
            leases_open=len(self._open), leases_of_requester=mine, leases_max=shop.terms.leases_max,
            leases_max_of_requester=shop.terms.leases_max_of_requester,
        )
        admit(lease.message, lease.signer, shop.bids.bid(lease.message.bid, lease.signer), house)
        return None

    def _highest(self, lease: LeaseId) -> int:
        last = self._shop.journal.last_under(records.runs_of(lease))
        return 0 if last is None else records.unpack_runs(last.body)[1]

    def _last_stated(self, lease: LeaseId) -> int:
        """A power cut may have taken our account of the newest runs; what the requester accepted of them is forgone."""
        return records.last_stated(entry.body for entry in self._shop.journal.under(records.facts_of(lease)))

    async def _accept(
        self, opened: PeerStream, lease: Signed[Lease], keys: LinkKeys, keybox: bytes, *, resumed: bool
    ) -> tuple[Signed[LeaseAccept], WorkLink]:
        """Sign, journal, answer, and open the sealed link."""
        accept = LeaseAccept(
            lease=lease.digest, keybox=keybox, nonce=os.urandom(32), resumed=resumed,
            last_stated=self._last_stated(LeaseId(lease.digest)) if resumed else None,
        )
        if not resumed:
            await self._record(opened, lease)
        port = None if resumed else self._shop.mesh.direct      # to settle takes few messages
        stream = opened
        with ExitStack() as stack:
            ticket = None if port is None else stack.enter_context(port.expect())
            if port is not None and ticket is not None:
                accept = replace(accept, port=port.port, token=ticket.token)
            signed = sign(accept, self._shop.identity)
            await opened.send(signed.pack())
            if ticket is not None:
                stream = await self._chosen(opened, ticket)
        session = session_keys(keys, accept.nonce, LeaseId(lease.digest))
        is_direct = stream is not opened
        self._shop.log.info(
            "lease_sold", lease=lease.digest, resumed=resumed, model=lease.message.model, direct=is_direct
        )
        writer = SealedWriter(session.to_requester)
        reader = SealedReader(session.to_provider, self._message_bytes)
        if resumed:
            return signed, WorkLink(stream, writer, reader)
        mesh, peer = self._shop.mesh, opened.peer
        awaited = Awaited(lambda: peer in mesh.connections(), mesh.changed, _greet)
        link = WorkLink(stream, writer, reader, awaited)
        self._links[LeaseId(lease.digest)] = _Link(link, awaited)
        return signed, link

    async def _chosen(self, opened: PeerStream, ticket: Ticket) -> PeerStream:
        """The stream of the link: the requester's direct connection, or the one where it speaks without it."""
        with trio.move_on_after(HANDSHAKE_NS / SECOND_NS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_spoken, opened, nursery.cancel_scope)
                await ticket.arrived.wait()
                nursery.cancel_scope.cancel()
        raw = ticket.take()
        return opened if raw is None else self._shop.mesh.adopt(opened.peer, raw)

    async def _record(self, stream: PeerStream, lease: Signed[Lease]) -> None:
        try:
            await self._shop.journal.append(records.LEASE_SOLD, lease.pack(), records.lease_key(LeaseId(lease.digest)))
        except StorageFull as full:
            await stream.send(pack(refusal(full)))
            await stream.close()                        # a reset could overtake the refusal
            raise

    @property
    def _message_bytes(self) -> int:
        """The largest message a requester may send: a run's inputs, or a chunk of the model."""
        return max(self._shop.terms.max_payload_bytes, CHUNK_BYTES) + MESSAGE_HEADER_BYTES

    def _enter(self, lease: LeaseId, requester: PeerKey) -> None:
        self._open[lease] = requester
        self._shop.counter.capacity.leases_open = len(self._open)
        if self._empty.is_set():
            self._empty = trio.Event()

    def _leave(self, lease: LeaseId) -> None:
        del self._open[lease]
        self._shop.counter.capacity.leases_open = len(self._open)
        if not self._open:
            self._empty.set()


async def _greet(stream: PeerStream, received: int) -> None:
    await stream.send(pack(LinkResumed(received=received)))


async def _until_spoken(stream: PeerStream, scope: trio.CancelScope) -> None:
    try:
        await stream.until_heard()
    except StreamClosed:
        return                                          # given up for a connection of its own, which arrives
    scope.cancel()
