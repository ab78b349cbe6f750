"""A provider that plays by the rules except where a test tells it to lie.

It runs in a thread of this process on a real mesh: it founds a network or joins
one, sells, answers offers and calls, agrees to leases and speaks on the sealed
link. It executes no model; its outputs are the inputs.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from cocoon.config.network import NetworkFile, format_link
from cocoon.core.ids import LeaseId, PeerKey, ReceiptHash, kind_key
from cocoon.core.limits import OFFER_TTL_S
from cocoon.core.units import KINDS, UNIT_OF
from cocoon.core.values import replace
from cocoon.identity.keys import HPKE_SEED_BYTES, KeyPair, identity_of
from cocoon.ledger.events import IssueReceipt, StatementMade, TrancheClosed
from cocoon.ledger.receipt import ReceiptIssuer
from cocoon.ledger.tab import Head, Tab
from cocoon.ledger.terms import terms_of
from cocoon.node.bids import CALL_PROTOCOL
from cocoon.node.clock import MonotonicClock
from cocoon.node.closing import CLOSE_PROTOCOL
from cocoon.node.counter import OFFER_PROTOCOL
from cocoon.node.link import WorkLink
from cocoon.node.selling import LEASE_PROTOCOL
from cocoon.p2p.book import AddressBook
from cocoon.p2p.service import MeshSettings, open_mesh
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import open_keys, public_bytes
from cocoon.privacy.link import SealedReader, SealedWriter, session_keys
from cocoon.telemetry.log import get_logger
from cocoon.wire.commitment import commit
from cocoon.wire.counting import counted_units
from cocoon.wire.judged import Statement, Voucher
from cocoon.wire.market import Bid, BidReply, Call, CallResult, Decline
from cocoon.wire.messages import (
    Chunk,
    ChunkHashes,
    CloseAgree,
    CloseAsk,
    Countersign,
    KeyBox,
    KeyBundle,
    Lease,
    LeaseAccept,
    LeaseClose,
    LeaseOpen,
    ModelOffer,
    ModelReady,
    Offer,
    OfferReply,
    OfferRequest,
    Profile,
    ReceiptIssued,
    RunCancel,
    RunRequest,
    RunResult,
    TrancheClose,
)
from cocoon.wire.orders import CloseOrder
from cocoon.wire.schema import Message, digest, pack, unpack
from cocoon.wire.signing import Signed, open_signed, sign
from tests.attack.matrix import Lie
from tests.loopback.town import PATIENCE_S

_HEARD = (ModelOffer, ChunkHashes, Chunk, RunRequest, RunCancel, TrancheClose, Countersign, LeaseClose)
PROFILE = Profile(
    engine="none", provider="none", device="hostile", threads=1, optimisation="none", memory_bytes=1, platform="test"
)


@dataclass
class Talk:
    """One lease, from the hostile side."""

    stream: PeerStream
    writer: SealedWriter
    link: WorkLink
    lease: Signed[Lease]
    issuer: ReceiptIssuer
    tell: Callable[[Any], Any]
    sign: Callable[[Message], bytes]

    async def ready(self, _: Message) -> None:
        """Say that the model is loaded."""
        await self.link.send(ModelReady(load_us=1))

    def result_of(self, request: RunRequest, outputs: bytes | None = None) -> RunResult:
        """The result of a run, its statement perhaps a lie; the account is kept honestly."""
        outputs = request.inputs if outputs is None else outputs
        given, made = commit(request.salt, request.inputs), commit(request.salt, outputs)
        units = counted_units(self.issuer.tab.terms.unit_kind, request.inputs, outputs)
        statement = Statement(
            lease=self.lease.digest, number=request.number, input_alg=given.alg, input=given.hash, output_alg=made.alg,
            output=made.hash, units=units, price_nanoton=self.issuer.tab.price_nanoton(units), queued_us=0, ran_us=1,
        )
        self.issuer.handle(0, StatementMade(statement))
        return RunResult(number=request.number, outputs=outputs, statement=self.tell(statement).pack())

    async def answer(self, request: RunRequest) -> None:
        """Send the result of a run."""
        await self.link.send(self.result_of(request))

    def receipt_of(self, through: int) -> ReceiptIssued:
        """The receipt that is due, perhaps a lie."""
        (order,) = self.issuer.handle(0, TrancheClosed(through))
        assert isinstance(order, IssueReceipt)
        return ReceiptIssued(receipt=self.sign(order.receipt))

    async def account(self, close: TrancheClose) -> None:
        """Send the receipt that is due."""
        await self.link.send(self.receipt_of(close.through))

    async def raw(self, *frames: bytes) -> None:
        """Send frames as they are."""
        for frame in frames:
            await self.stream.send(frame)


Turn = Callable[[Talk, Any], Awaitable[None]]


@dataclass
class HostileProvider:
    """``lie`` and ``turns`` are what it does wrong now; ``heard`` is how its leases ended."""

    network: NetworkFile = field(default_factory=lambda: NetworkFile("hostile", "none", os.urandom(16)))
    lie: Lie | None = None
    #: Replaces what it does when a message of this type comes.
    turns: dict[type[Message], Turn] = field(default_factory=dict)
    #: Replaces all that it does once a lease is proposed.
    greet: Callable[[PeerStream], Awaitable[None]] | None = None
    #: Makes the answer to a call out of the honest one.
    bid: Callable[[Call, BidReply], BidReply | Decline] | None = None
    #: Codes of the requester's ``LeaseClose``.
    heard: queue.Queue[str] = field(default_factory=queue.Queue)
    countersigned: queue.Queue[Countersign] = field(default_factory=queue.Queue)
    link: str = ""
    #: What it asks on a network with a ledger: once a lease, and for a run. Who is paid, and who signs closes.
    setup_nanoton: int = 0
    run_nanoton: int = 0
    payout: bytes = bytes(32)
    provider_key: KeyPair | None = None
    #: Makes the answer to a close out of its order; None hangs up.
    close: Callable[[CloseOrder], bytes] | None = None

    def __post_init__(self) -> None:
        self.identity = identity_of(os.urandom(32), os.urandom(HPKE_SEED_BYTES), 0)
        self.boot = os.urandom(8)
        self._up, self._stop = threading.Event(), trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    def tell(self, value: Any) -> Any:
        """``value``, with the lie in it if it is about such a message."""
        name = value.shape.name if isinstance(value, Message) else type(value).__name__.lower()
        if self.lie is None or self.lie.message != name:
            return value
        return replace(value, **{self.lie.field: self.lie.twist(getattr(value, self.lie.field))})

    def sign(self, message: Message) -> bytes:
        """Sign ``message``, lie included."""
        return sign(self.tell(message), self.identity).pack()

    @contextmanager
    def running(self) -> Iterator[HostileProvider]:
        """In a thread of its own, until the block ends."""
        thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        thread.start()
        assert self._up.wait(PATIENCE_S)
        try:
            yield self
        finally:
            assert self._token is not None
            self._token.run_sync_soon(self._stop.set)
            thread.join(PATIENCE_S)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        settings = MeshSettings(network=self.network.id, boot_id=self.boot, sells=True, dht_server=True)
        log = get_logger("hostile")
        async with open_mesh(settings, self.identity.seed, AddressBook(), MonotonicClock(), log) as mesh:
            for bootstrap in self.network.bootstraps:
                await mesh.connect(bootstrap)
            mesh.serve(OFFER_PROTOCOL, self._offer)
            mesh.serve(CALL_PROTOCOL, self._call)
            mesh.serve(LEASE_PROTOCOL, self._lease)
            mesh.serve(CLOSE_PROTOCOL, self._close)
            for kind in KINDS:
                await mesh.provide(kind_key(self.network.id, kind))
            self.link = format_link(self.network.with_bootstraps(tuple(mesh.addresses())))
            self._up.set()
            await self._stop.wait()

    async def _offer(self, stream: PeerStream) -> None:
        unpack(await stream.receive(), OfferRequest)
        await stream.send(pack(self._offered()[1]))

    async def _call(self, stream: PeerStream) -> None:
        """Bid what the offer asks, for whatever is called for, unless told otherwise."""
        while True:
            message = unpack(await stream.receive(), Call, CallResult)
            if isinstance(message, CallResult):
                continue
            offer, reply = self._offered()
            bid = Bid(
                network=self.network.id, call=digest(message), offer=digest(offer),
                setup_nanoton=offer.setup_nanoton, start_ms=0, run_us=0, warm=False,
                prices=tuple(one for one in offer.prices if one[0] == UNIT_OF[message.kind]),
            )
            honest = BidReply(
                call=digest(message), bid=self.sign(bid), offer=reply.offer, keys=reply.keys, profile=reply.profile
            )
            await stream.send(pack(honest if self.bid is None else self.bid(message, honest)))

    def _offered(self) -> tuple[Offer, OfferReply]:
        bundle = KeyBundle(
            network=self.network.id, boot_id=self.boot, suite=1, public=public_bytes(self.identity.hpke),
            payout=self.payout, provider_key=bytes(32) if self.provider_key is None else self.provider_key.key,
        )
        named = self.tell(bundle) if self.lie is not None and self.lie.digest_follows else bundle
        offer = Offer(
            network=self.network.id, boot_id=self.boot, seq=1, ttl_s=OFFER_TTL_S, keys_digest=digest(named),
            profile_digest=digest(PROFILE), kinds=KINDS,
            setup_nanoton=self.setup_nanoton, prices=((1, 1_000 * self.run_nanoton), (5, 0)),
            max_model_bytes=1 << 30, max_memory_bytes=1 << 30, max_run_ms=30_000, max_payload_bytes=1 << 20, queue=0,
            free_memory_bytes=0, warm=bytes(32),
        )
        bodies = {"keys": self.sign(bundle), "profile": pack(PROFILE), "warm": b""}
        return self.tell(offer), OfferReply(offer=self.sign(offer), **bodies)

    async def _lease(self, stream: PeerStream) -> None:
        if self.greet is not None:
            await stream.receive()
            await self.greet(stream)
            return
        talk = await self._agree(stream)
        if self.lie is not None and self.lie.field == "nonce":
            await talk.ready(LeaseClose(code="x"))       # nobody can read anything now; it speaks first
            while True:
                await stream.receive(1 << 20)
        honest: dict[type[Message], Turn] = {
            ModelOffer: Talk.ready, RunRequest: Talk.answer, TrancheClose: Talk.account, Countersign: self._keep,
        }
        while True:
            message = await talk.link.receive(*_HEARD)
            if isinstance(message, LeaseClose):
                self.heard.put(message.code)
                return
            turn = {**honest, **self.turns}.get(type(message))
            if turn is not None:
                await turn(talk, message)

    async def _close(self, stream: PeerStream) -> None:
        order = CloseOrder.unpack(unpack(await stream.receive(), CloseAsk).order)
        if self.close is not None:
            await stream.send(pack(CloseAgree(signature=self.close(order))))

    async def _keep(self, _: Talk, message: Countersign) -> None:
        self.countersigned.put(message)

    async def _agree(self, stream: PeerStream) -> Talk:
        opening = unpack(await stream.receive(), LeaseOpen)
        lease, keybox = open_signed(opening.lease, Lease), open_signed(opening.keybox, KeyBox)
        lease_id = LeaseId(lease.digest)
        keys = open_keys(
            self.identity.hpke, lease_id, keybox.message.box, sender=stream.peer, receiver=PeerKey(self.identity.key)
        )
        accept = LeaseAccept(lease=lease.digest, keybox=keybox.digest, nonce=os.urandom(32), resumed=False)
        await stream.send(self.sign(accept))
        session = session_keys(keys, accept.nonce, lease_id)
        writer = SealedWriter(session.to_requester)
        link = WorkLink(stream, writer, SealedReader(session.to_provider))
        issuer = ReceiptIssuer(Tab(terms_of(lease), _head(opening)))
        return Talk(stream, writer, link, lease, issuer, self.tell, self.sign)


def _head(opening: LeaseOpen) -> Head:
    """Where the lane stands, as the requester says it."""
    # Number 0 is the lane key's word for the lease: the lane is new.
    if not opening.voucher or not (shown := Voucher.unpack(opening.voucher)).seq:
        return Head()
    return Head(shown.seq, ReceiptHash(shown.head), shown.total_nanoton)


def says(*words: Message) -> Callable[[PeerStream], Awaitable[None]]:
    """Answers a lease with these words."""

    async def greet(stream: PeerStream) -> None:
        for word in words:
            await stream.send(pack(word))

    return greet
