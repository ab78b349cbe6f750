"""The counter: a provider's signed offer, given to whoever asks.

Purity: shell. Protocol ``/cocoon/offer/1``. Spec: docs/spec/scheduling.md, rules SCH-4 to SCH-5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, Draining, KindRefused, ProviderBusy, wrong
from cocoon.core.ids import NetworkId
from cocoon.core.limits import OFFER_TTL_S
from cocoon.core.values import replace
from cocoon.identity.keys import Identity
from cocoon.node.stock import Terms
from cocoon.p2p.service import Mesh
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import public_bytes
from cocoon.scheduler.offers import GiveOffer, OfferAsked, SignOffer, StandingOffer
from cocoon.telemetry.log import get_logger
from cocoon.wire.messages import (
    SUITE_MLKEM768_X25519,
    KeyBundle,
    Offer,
    OfferReply,
    OfferRequest,
    Profile,
    WarmModels,
    refusal,
)
from cocoon.wire.schema import digest, pack, unpack
from cocoon.wire.signing import Signed, sign

OFFER_PROTOCOL = "/cocoon/offer/1"


@dataclass(slots=True)
class Capacity:
    """What changes while a provider sells."""

    leases_open: int = 0
    draining: bool = False
    #: The owner wants no new lease for now.
    paused: bool = False
    #: Other programs need the machine.
    yields: bool = False
    #: Whether the owner sells at this hour.
    in_hours: Callable[[], bool] = lambda: True

    def closed(self) -> CocoonError | None:
        """Why nothing new is sold now; None if it is."""
        if self.draining:
            return Draining("this provider is shutting down")
        if self.paused:
            return ProviderBusy("this provider is paused by its owner")
        if self.yields:
            return ProviderBusy("this provider rests while other programs use its machine")
        return None if self.in_hours() else ProviderBusy("this provider does not sell at this hour")


class OfferCounter:
    """Answers offer requests."""

    def __init__(
        self, load_identity: Callable[[], Identity], network: NetworkId, boot_id: bytes, terms: Terms,
        profile: Profile, clock: Clock, free_memory_bytes: Callable[[], int] = lambda: 0,
        warm_models: Callable[[], Sequence[tuple[bytes, int, int]]] = tuple,
    ) -> None:
        """All three callables are asked anew for every offer; ``load_identity`` reads the keys of today."""
        self.capacity = Capacity()
        #: HPKE seeds that a box may be sealed to: today's, and yesterday's for offers still held.
        self.sealing_seeds: tuple[bytes, ...] = ()
        self._load_identity = load_identity
        self._identity = identity = load_identity()
        self._terms = terms
        self._clock = clock
        self._free_memory_bytes = free_memory_bytes
        self._warm_models = warm_models
        self._warm = b""
        self._log = get_logger("sell")
        self._keys = b""
        self._profile = pack(profile)
        self._standing = StandingOffer()
        self._offer = Offer(
            network=network, boot_id=boot_id, seq=0, ttl_s=OFFER_TTL_S, keys_digest=bytes(32),
            profile_digest=digest(profile), kinds=terms.kinds, setup_nanoton=terms.setup_nanoton, prices=terms.prices,
            max_model_bytes=terms.max_model_bytes, max_memory_bytes=terms.max_memory_bytes,
            max_run_ms=terms.max_run_ms, max_payload_bytes=terms.max_payload_bytes, queue=0,
            free_memory_bytes=free_memory_bytes(), warm=bytes(32),
        )
        self._take_keys(identity)
        self._signed: Signed[Offer] = sign(self._offer, identity)

    def serve(self, mesh: Mesh) -> None:
        """Take offer requests from ``mesh``."""
        mesh.serve(OFFER_PROTOCOL, self._answer)

    @property
    def offer(self) -> Offer:
        """The body of the newest offer."""
        return self._signed.message

    def standing(self) -> Signed[Offer] | None:
        """The offer that holds now, signed anew if that is due; None while nothing is sold."""
        return None if self.capacity.closed() else self.current()

    async def _answer(self, stream: PeerStream) -> None:
        try:
            request = unpack(await stream.receive(), OfferRequest)
            reply = pack(self._reply(request))
        except CocoonError as error:
            self._log.info("offer_refused", peer=stream.peer, code=error.code, text=error.text)
            reply = pack(refusal(error))
        await stream.send(reply)

    def _reply(self, request: OfferRequest) -> OfferReply:
        if request.network != self._offer.network:
            raise wrong("network_id", "the request is for another network")
        if request.kind not in self._offer.kinds:
            raise KindRefused(f"{request.kind!r} is not sold here")
        if (closed := self.capacity.closed()) is not None:
            raise closed
        return self.reply(self.current())

    def reply(self, offer: Signed[Offer]) -> OfferReply:
        """An offer of this counter with its bodies."""
        return OfferReply(offer=offer.pack(), keys=self._keys, profile=self._profile, warm=self._warm)

    def current(self) -> Signed[Offer]:
        """The standing offer, signed anew if it is due."""
        now_ns = self._clock.now_ns()
        for effect in self._standing.handle(now_ns, OfferAsked(self.capacity.leases_open)):
            match effect:
                case SignOffer(seq, queue):
                    self._take_keys(self._load_identity())
                    measured = replace(
                        self._offer, seq=seq, queue=queue, free_memory_bytes=self._free_memory_bytes(),
                        warm=self._told(),
                    )
                    self._signed = sign(measured, self._identity)
                case GiveOffer():
                    pass
        return self._signed

    def _told(self) -> bytes:
        """What the next offer says of warm models: the digest of their list, which is kept to be given beside it."""
        models = tuple(self._warm_models())
        told = WarmModels(models=models) if models else None
        self._warm = b"" if told is None else pack(told)
        return bytes(32) if told is None else digest(told)

    def _take_keys(self, identity: Identity) -> None:
        """Offer the HPKE key of ``identity``, and keep the one before for boxes that are on their way."""
        if identity.hpke in self.sealing_seeds[:1]:
            return
        self.sealing_seeds = (identity.hpke, *self.sealing_seeds[:1])
        offer = self._offer
        bundle = KeyBundle(
            network=offer.network, boot_id=offer.boot_id, suite=SUITE_MLKEM768_X25519,
            public=public_bytes(identity.hpke), payout=self._terms.payout, provider_key=self._terms.provider_key,
        )
        self._keys = sign(bundle, identity).pack()
        self._offer = replace(offer, keys_digest=digest(bundle))
