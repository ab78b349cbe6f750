"""Verification: what a requester believes of an offer and of a bid.

Purity: pure. Spec: docs/spec/scheduling.md, rule SCH-7; docs/spec/auction.md, rule AUC-4.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from cocoon.core.errors import wrong
from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.limits import BID_BINDS_NS, OFFER_TTL_S
from cocoon.core.units import unit_of
from cocoon.core.values import Value, replace
from cocoon.scheduler.selection import RUNS, Measure, Quote
from cocoon.wire.market import Bid, BidReply, Call
from cocoon.wire.messages import SUITE_MLKEM768_X25519, KeyBundle, Offer, OfferReply, Profile, WarmModels
from cocoon.wire.schema import Message, digest, pack, packed_digest, unpack
from cocoon.wire.signing import Signed, open_signed

M = TypeVar("M", bound=Message)


class Opener(Protocol):
    """Reads a signed message; ``wire.signing.open_signed`` is one."""

    def __call__(self, data: bytes, cls: type[M], *, signer: PeerKey | None = None) -> Signed[M]: ...


def verify_offer(reply: OfferReply, network: NetworkId, peer: PeerKey, opened: Opener = open_signed) -> Quote:
    """Check signatures, digests and ranges of an offer with its bodies.

    Raises:
        BadSignature, Malformed, WrongField: what does not fit.
    """
    offer = opened(reply.offer, Offer, signer=peer)
    keys = opened(reply.keys, KeyBundle, signer=peer)
    profile = unpack(reply.profile, Profile)
    if offer.message.network != network or keys.message.network != network:
        raise wrong("network_id", "the offer is for another network")
    if keys.digest != offer.message.keys_digest:
        raise wrong("keys", "the key bundle is not the one that the offer names")
    if keys.message.suite != SUITE_MLKEM768_X25519:
        raise wrong("keys", f"sealing suite {keys.message.suite} is not spoken here")
    if keys.message.boot_id != offer.message.boot_id:
        raise wrong("boot", "offer and key bundle are from different starts of the provider")
    if packed_digest(reply.profile) != offer.message.profile_digest:
        raise wrong("profile", "the execution profile is not the one that the offer names")
    if reply.warm and packed_digest(reply.warm) != offer.message.warm:
        raise wrong("warm", "the list of models is not the one that the offer names")
    if not 1 <= offer.message.ttl_s <= OFFER_TTL_S:
        raise wrong("ttl", f"{offer.message.ttl_s} s is outside 1 to {OFFER_TTL_S} s")
    bundle = keys.message
    warm = unpack(reply.warm, WarmModels).models if reply.warm else ()
    return Quote(
        peer, offer.digest, offer.message, bundle.public, bundle.payout, bundle.provider_key, profile, warm_models=warm
    )


class Called(Value):
    """A call, its digest, by which bids name it, and its bytes."""

    call: Call
    id: bytes
    packed: bytes
    #: Of the task that calls; no bidder is told of it.
    measure: Measure = RUNS

    @classmethod
    def of(cls, call: Call, measure: Measure = RUNS) -> Called:
        """Once for all who are called."""
        return cls(call, digest(call), pack(call), measure)


def verify_bid(reply: BidReply, called: Called, quote: Quote, called_ns: int, opened: Opener = open_signed) -> Quote:
    """Check a bid against its call and the verified offer beside it.

    Args:
        quote: The offer of the same reply, verified.
        called_ns: When the call was made; the bid binds its provider from then on.

    Raises:
        BadSignature, Malformed, WrongField: what does not fit; above all a bid above its own ask (``wrong_price``).
    """
    bid = opened(reply.bid, Bid, signer=quote.provider)
    said, call = bid.message, called.call
    if said.network != call.network:
        raise wrong("network_id", "the bid is for another network")
    if said.call != called.id:
        raise wrong("call", "the bid is for another call")
    if said.offer != quote.digest:
        raise wrong("offer", "the bid names another offer than the one beside it")
    if call.kind not in quote.offer.kinds:
        raise wrong("kind", f"called for {call.kind!r}, the offer sells {', '.join(quote.offer.kinds)}")
    asks = {unit: ask for unit, ask in quote.offer.prices if unit == unit_of(call.kind)}
    if said.setup_nanoton > quote.offer.setup_nanoton or [unit for unit, _ in said.prices] != list(asks):
        raise wrong("price", "the bid has a higher set-up price than the offer, or prices of other units")
    if any(price > asks[unit] for unit, price in said.prices):
        raise wrong("price", "the bid is above the offer's own ask")
    return replace(
        quote, digest=bid.digest, bid=said, binds_until_ns=called_ns + BID_BINDS_NS, measure=called.measure
    )
