"""The bid desk: a provider's answers to calls.

Purity: shell. Protocol ``/cocoon/call/1``. Spec: docs/spec/auction.md, rules AUC-8 to AUC-12.
"""

from __future__ import annotations

from collections.abc import Callable

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, LicenceRefused, StreamClosed, wrong
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import ERROR_TEXT_CHARS
from cocoon.core.machine import DeadlinePassed
from cocoon.identity.keys import Identity
from cocoon.node.counter import OfferCounter
from cocoon.node.shelf import ModelShelf
from cocoon.p2p.service import Mesh
from cocoon.p2p.streams import PeerStream
from cocoon.scheduler.bidding import (
    Bidding,
    BidSigned,
    BidTaken,
    CallHeard,
    CallSeen,
    DeclineCall,
    MakeBid,
    ResultHeard,
    StandingBid,
)
from cocoon.scheduler.hindsight import WhatIf, what_if
from cocoon.scheduler.pace import Pace
from cocoon.scheduler.strategy import Strategy
from cocoon.telemetry.log import get_logger
from cocoon.wire.manifest import Manifest
from cocoon.wire.market import NO_MODEL, Bid, BidReply, Call, CallResult, Decline
from cocoon.wire.messages import Offer, refusal
from cocoon.wire.schema import digest, pack, unpack
from cocoon.wire.signing import Signed, sign
from cocoon.wire.types import line

CALL_PROTOCOL = "/cocoon/call/1"


class BidDesk:
    """Answers calls, and recognises the bids that leases name."""

    def __init__(
        self, identity: Identity, counter: OfferCounter, shelf: ModelShelf, strategy: Strategy, clock: Clock,
        leases_max: int,
    ) -> None:
        self.pace = Pace()
        self._identity = identity
        self._counter = counter
        self._shelf = shelf
        self._clock = clock
        self._leases_max = leases_max
        self._log = get_logger("sell")
        self._strategy = strategy
        self._machine = Bidding(strategy)
        self._closed: Callable[[], CocoonError | None]

    def serve(self, mesh: Mesh, closed: Callable[[], CocoonError | None]) -> None:
        """Take calls from ``mesh``; ``closed`` says why no lease is taken now, None if one is."""
        self._closed = closed
        mesh.serve(CALL_PROTOCOL, self._answer_all)

    def bid(self, bid_digest: bytes, requester: PeerKey) -> StandingBid | None:
        """The bid that a lease of ``requester`` may name now."""
        return self._machine.bid(self._clock.now_ns(), bid_digest, requester)

    def licence_refusal(self, manifest: Manifest) -> CocoonError | None:
        """Why a model of this manifest is not run here, as far as its licence goes; None if it is (MOD-13)."""
        text = self._strategy.licence_refusal(manifest)
        return None if text is None else LicenceRefused(text)

    def taken(self, bid_digest: bytes) -> None:
        """A lease under this bid is countersigned: there is no second one."""
        self._machine.handle(self._clock.now_ns(), BidTaken(bid_digest))

    def seen(self) -> list[CallSeen]:
        """The calls of late, oldest first."""
        return self._machine.seen()

    def what_if(self, ask_nanoton: int) -> WhatIf:
        """What another price of 1,000 runs would have changed in the calls of late (AUC-17)."""
        return what_if(self.seen(), self._clock.now_ns(), ask_nanoton)

    async def _answer_all(self, stream: PeerStream) -> None:
        """Calls and results, one after the other, until the requester hangs up."""
        while True:
            try:
                message = unpack(await stream.receive(), Call, CallResult)
                if isinstance(message, CallResult):
                    self._machine.handle(self._clock.now_ns(), ResultHeard(stream.peer, message))
                    continue
                answer = pack(self._answer(stream.peer, message))
            except StreamClosed:
                return
            except CocoonError as error:
                self._log.info("call_refused", peer=stream.peer, code=error.code, text=error.text)
                await stream.send(pack(refusal(error)))
                return
            await stream.send(answer)

    def _answer(self, requester: PeerKey, call: Call) -> BidReply | Decline:
        offer = self._counter.current()
        if call.network != offer.message.network:
            raise wrong("network_id", "the call is for another network")
        now_ns, call_id, closed = self._clock.now_ns(), digest(call), self._closed()
        self._machine.handle(now_ns, DeadlinePassed())
        held = None if call.model == NO_MODEL else self._shelf.find(ModelId(call.model))
        if held is not None:                            # of another model the licence is not known before its lease
            closed = closed or self.licence_refusal(held.manifest)
        heard = CallHeard(
            call_id, requester, call, self._counter.capacity.leases_open, self._leases_max,
            start_ms=self.pace.load_us(call.model) // 1_000, run_us=self.pace.run_us(call.model), warm=held is not None,
            closed=None if closed is None else (closed.code, closed.text), unit_ns=self.pace.unit_ns(call.model),
        )
        (effect,) = self._machine.handle(now_ns, heard)
        match effect:
            case MakeBid():
                return self._bid(now_ns, effect, offer)
            case DeclineCall(_, code, text):
                self._log.info("call_declined", peer=requester, code=code)
                return Decline(call=call_id, code=code, text=line(text, ERROR_TEXT_CHARS))
        raise AssertionError(effect)

    def _bid(self, now_ns: int, made: MakeBid, offer: Signed[Offer]) -> BidReply:
        bid = sign(
            Bid(
                network=offer.message.network, call=made.id, offer=offer.digest, setup_nanoton=made.setup_nanoton,
                prices=made.prices, start_ms=made.start_ms, run_us=made.run_us, warm=made.warm,
            ),
            self._identity,
        )
        self._machine.handle(now_ns, BidSigned(made.id, bid.digest))
        said = self._counter.reply(offer)
        return BidReply(call=made.id, bid=bid.pack(), offer=said.offer, keys=said.keys, profile=said.profile)
