"""A provider: its counter of offers, its bid desk and its leases, as ``counter``, ``bids`` and ``selling`` of the node.

Purity: pure. Spec: docs/spec/leases.md, rules LEA-1 to LEA-9; auction.md, rules AUC-8 to AUC-12; simulation.md, SIM-1.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cocoon.core.errors import BidExpired, CocoonError, Replayed, wrong
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import OFFER_TTL_S
from cocoon.core.machine import DeadlinePassed
from cocoon.core.units import PPM
from cocoon.core.values import Value, field, replace
from cocoon.node import records
from cocoon.node.stock import Terms
from cocoon.scheduler.admission import House, admit
from cocoon.scheduler.bidding import Bidding, BidSigned, BidTaken, CallHeard, DeclineCall, MakeBid, ResultHeard
from cocoon.scheduler.offers import OfferAsked, SignOffer, StandingOffer
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.strategy import Prices, Strategy
from cocoon.wire.market import NO_MODEL, Bid, BidReply, Call, CallResult, Decline
from cocoon.wire.messages import (
    SUITE_MLKEM768_X25519,
    KeyBundle,
    Lease,
    LeaseAccept,
    LeaseOpen,
    Offer,
    OfferReply,
    OfferRequest,
    Profile,
    refusal,
)
from cocoon.wire.schema import digest, pack
from cocoon.wire.signing import Signed, sign
from cocoon.wire.widths import HPKE_PUBLIC_BYTES
from sim.engine.compute import Compute
from sim.engine.journal import Row
from sim.engine.network import End
from sim.peers.ground import Peer
from sim.peers.sale import FREE, Entry, Sale
from sim.peers.till import Till

CALL_PROTOCOL, LEASE_PROTOCOL, OFFER_PROTOCOL = "call", "lease", "offer"
_PROFILE = Profile(
    engine="simulated", provider="cpu", device="cpu", threads=2, optimisation="all", memory_bytes=0, platform="sim",
)


class Wares(Value):
    """What a provider sells, over all its lives."""

    terms: Terms
    strategy: Strategy
    compute: Compute
    #: A dishonest one: its bids lie so much above its own asks.
    above_ask_ppm: int = 0
    #: Models that came whole, by id; they outlive a crash.
    shelf: set[bytes] = field(default_factory=set)


class Selling:
    """One life of a provider."""

    def __init__(self, peer: Peer, wares: Wares) -> None:
        self.peer = peer
        self.wares = wares
        self.pace = Pace()
        self.bidding = Bidding(wares.strategy)
        self.till = Till(peer) if peer.ground.chain is not None else None
        self._standing = StandingOffer()
        bundle = KeyBundle(
            network=peer.ground.network_id, boot_id=peer.boot_id, suite=SUITE_MLKEM768_X25519,
            public=bytes(HPKE_PUBLIC_BYTES), payout=wares.terms.payout, provider_key=wares.terms.provider_key,
        )
        self._keys = sign(bundle, peer.signer).pack()
        terms = wares.terms
        self._offer = Offer(
            network=peer.ground.network_id, boot_id=peer.boot_id, seq=0, ttl_s=OFFER_TTL_S, keys_digest=digest(bundle),
            profile_digest=digest(_PROFILE), kinds=terms.kinds, setup_nanoton=terms.setup_nanoton, prices=terms.prices,
            max_model_bytes=terms.max_model_bytes, max_memory_bytes=terms.max_memory_bytes,
            max_run_ms=terms.max_run_ms, max_payload_bytes=terms.max_payload_bytes, queue=0, free_memory_bytes=0,
            warm=bytes(32),
        )
        self._signed = sign(self._offer, peer.signer)
        self._open: dict[LeaseId, PeerKey] = {}
        self.sales: dict[LeaseId, Sale] = {}

    def serves(self) -> dict[str, Any]:
        """Streams that others open."""
        return {CALL_PROTOCOL: self._take_calls, LEASE_PROTOCOL: self._take_lease, OFFER_PROTOCOL: self._take_asker}

    @property
    def leases_open(self) -> int:
        """Now."""
        return len(self._open)

    # --- offers and bids -----------------------------------------------------

    def current(self) -> Signed[Offer]:
        """The standing offer, signed anew if it is due."""
        for effect in self.peer.drive(self._standing, OfferAsked(len(self._open))):
            if isinstance(effect, SignOffer):
                self._signed = sign(replace(self._offer, seq=effect.seq, queue=effect.queue), self.peer.signer)
        return self._signed

    def _reply(self) -> OfferReply:
        return OfferReply(offer=self.current().pack(), keys=self._keys, profile=pack(_PROFILE), warm=b"")

    def _take_asker(self, end: End) -> None:
        def hear(message: Any) -> None:
            if isinstance(message, OfferRequest):
                end.send(self._reply())

        end.on_frame = hear

    def _take_calls(self, end: End) -> None:
        caller = self.peer.ground.peers[end.peer.number].key

        def hear(message: Any) -> None:
            match message:
                case Call():
                    end.send(self._answer(caller, message))
                case CallResult():
                    self.peer.drive(self.bidding, ResultHeard(caller, message))

        end.on_frame = hear

    def _answer(self, caller: PeerKey, call: Call) -> BidReply | Decline:
        call_id, terms = digest(call), self.wares.terms
        self.peer.drive(self.bidding, DeadlinePassed())
        heard = CallHeard(
            call_id, caller, call, len(self._open), terms.leases_max, start_ms=self.pace.load_us(call.model) // 1_000,
            run_us=self.pace.run_us(call.model), warm=call.model != NO_MODEL and call.model in self.wares.shelf,
            unit_ns=self.pace.unit_ns(call.model),
        )
        (effect,) = self.peer.drive(self.bidding, heard)
        match effect:
            case MakeBid():
                return self._bid(effect)
            case DeclineCall(_, code, text):
                return Decline(call=call_id, code=code, text=text)
        raise AssertionError(effect)

    def _bid(self, made: MakeBid) -> BidReply:
        reply, offer = self._reply(), self.current()
        setup, prices = self._asked(made)
        bid = sign(
            Bid(
                network=self._offer.network, call=made.id, offer=offer.digest, setup_nanoton=setup, prices=prices,
                start_ms=made.start_ms, run_us=made.run_us, warm=made.warm,
            ),
            self.peer.signer,
        )
        self.peer.drive(self.bidding, BidSigned(made.id, bid.digest))
        self.peer.ground.checks.bid_made(self.peer.key, bid.digest)
        return BidReply(call=made.id, bid=bid.pack(), offer=reply.offer, keys=reply.keys, profile=reply.profile)

    def _asked(self, made: MakeBid) -> tuple[int, Prices]:
        """As the machine says, or dearer if this provider lies."""
        more = PPM + self.wares.above_ask_ppm
        return made.setup_nanoton * more // PPM, tuple((kind, price * more // PPM) for kind, price in made.prices)

    # --- leases ----------------------------------------------------------------

    def _take_lease(self, end: End) -> None:
        def hear(message: Any) -> None:
            if isinstance(message, LeaseOpen):
                self.peer.spawn(self._sell(end, message))

        end.on_frame = hear

    async def _sell(self, end: End, opening: LeaseOpen) -> None:
        """Admit a lease, or refuse it; then serve it until it ends."""
        signer = self.peer.ground.peers[end.peer.number].key
        try:
            lease = self.peer.ground.words.open(opening.lease, Lease, signer=signer)
            known = self._admit(lease)
        except CocoonError as error:
            end.send(refusal(error))
            return
        lease_id = LeaseId(lease.digest)
        self._open[lease_id] = lease.signer
        try:
            await self._serve(end, opening, lease, known=known)
        finally:
            self._open.pop(lease_id, None)

    async def _serve(self, end: End, opening: LeaseOpen, lease: Signed[Lease], *, known: bool) -> None:
        lease_id = LeaseId(lease.digest)
        try:
            entry = await self._stand(lease, opening, known=known)
        except CocoonError as error:
            end.send(refusal(error))
            return
        if not known and not self._use_bid(lease):
            end.send(refusal(BidExpired("another lease was made under this bid meanwhile")))
            if self.till is not None and self.peer.ground.words.terms(lease).lane:
                await self.till.abandon(self.peer.ground.words.terms(lease))
            return
        accept = sign(
            LeaseAccept(
                lease=lease.digest, keybox=bytes(32), nonce=self.peer.random(32), resumed=known,
                last_stated=records.last_stated(
                    row.body for row in self.peer.journal.under(records.facts_of(lease_id))
                ) if known else None,
            ),
            self.peer.signer,
        )
        if not known:
            self.peer.ground.checks.lease_sold(lease)
            await self.peer.journal.append(Row(records.LEASE_SOLD, lease.pack(), records.lease_key(lease_id)))
        runs = self.peer.journal.under(records.runs_of(lease_id))
        highest = records.unpack_runs(runs[-1].body)[1] if runs else 0
        sale = self.sales[lease_id] = Sale(self, lease, accept, end, highest, entry)
        end.send(accept)
        try:
            await sale.run()
        finally:
            del self.sales[lease_id]

    def _use_bid(self, lease: Signed[Lease]) -> bool:
        named = lease.message.bid
        standing = self.bidding.bid(self.peer.now_ns(), named, lease.signer) is not None
        self.peer.drive(self.bidding, BidTaken(named))
        return standing

    async def _stand(self, lease: Signed[Lease], opening: LeaseOpen, *, known: bool) -> Entry:
        terms = self.peer.ground.words.terms(lease)
        if not terms.lane:
            return FREE
        if self.till is None:
            raise wrong("lane", "this network has no ledger")
        return await self.till.enter(terms, opening, lease.message.duration_s, known=known)

    def _admit(self, lease: Signed[Lease]) -> bool:
        """Whether this lease was countersigned before; every field of it was admitted then."""
        lease_id = LeaseId(lease.digest)
        if lease_id in self._open:
            raise Replayed("this lease is open already")
        if self.peer.journal.find(records.lease_key(lease_id)) is not None:
            return True
        terms = self.wares.terms
        house = House(
            network=self.peer.ground.network_id, provider=self.peer.key, offer=self._signed.message,
            leases_open=len(self._open), leases_of_requester=Counter(self._open.values())[lease.signer],
            leases_max=terms.leases_max, leases_max_of_requester=terms.leases_max_of_requester,
        )
        bid = self.bidding.bid(self.peer.now_ns(), lease.message.bid, lease.signer)
        admit(lease.message, lease.signer, bid, house)
        return False
