"""Asking around: choose sellers known by gossip or found in the DHT, ask each for its offer, verify the answers.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-6 and SCH-7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, Unreachable, from_peer, wrong
from cocoon.core.groups import single_error
from cocoon.core.ids import NetworkId, PeerKey, kind_key
from cocoon.core.limits import OFFER_NS, OFFER_TTL_S, OFFERS_ENOUGH, PROVIDERS_ASKED
from cocoon.core.machine import Effect
from cocoon.core.units import PPM, SECOND_NS
from cocoon.node.counter import OFFER_PROTOCOL
from cocoon.node.driver import Driver
from cocoon.node.gossip import OfferGossip
from cocoon.p2p.service import Mesh
from cocoon.scheduler.offers import AskOffer, Gathering, GatheringEnded, OfferMissed, OfferReceived, SellersFound
from cocoon.scheduler.selection import Demand, Quote
from cocoon.wire.messages import SUITE_MLKEM768_X25519, KeyBundle, Offer, OfferReply, OfferRequest, Profile, Refusal
from cocoon.wire.schema import pack, packed_digest, unpack
from cocoon.wire.signing import open_signed


async def gather_offers(
    mesh: Mesh, network: NetworkId, kind: str, clock: Clock, without: Collection[PeerKey] = (), *,
    gossip: OfferGossip | None = None, demand: Demand | None = None,
    reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM,
) -> GatheringEnded:
    """One round: find sellers of ``kind``, ask at most ``PROVIDERS_ASKED``, wait for all or the deadline (SCH-6).

    Args:
        without: Passed over.
        gossip: Whose table names sellers without a look-up; None asks the DHT alone.
        demand: What the offers are for; None if for nothing in particular.
    """
    demand = demand or Demand(kind, model_bytes=0, runs=1, ceiling_nanoton=0)
    named = [] if gossip is None else gossip.shortlist(demand, without, reliability_ppm)
    if len(named) < OFFERS_ENOUGH:
        return await _ask_all(mesh, network, kind, clock, await _few(mesh, kind_key(network, kind), named, without))
    first = await _ask_all(mesh, network, kind, clock, await mesh.meet(named))
    if first.quotes:
        return first
    # Whoever fills the table with providers that do not answer must not hide the others.
    found = await mesh.find_providers(kind_key(network, kind), PROVIDERS_ASKED, {*without, *named})
    second = await _ask_all(mesh, network, kind, clock, found)
    return GatheringEnded(second.quotes, (*first.missed, *second.missed))


async def _few(mesh: Mesh, key: bytes, named: Sequence[PeerKey], without: Collection[PeerKey]) -> list[PeerKey]:
    """Sellers known and sellers found, in the time of one look-up: a known one that is gone delays nobody."""
    met: list[PeerKey] = []

    async def meet() -> None:
        met.extend(await mesh.meet(named))

    with single_error():
        async with trio.open_nursery() as nursery:
            if named:
                nursery.start_soon(meet)
            found = await mesh.find_providers(key, PROVIDERS_ASKED, without)
    return [*met, *found]


async def _ask_all(
    mesh: Mesh, network: NetworkId, kind: str, clock: Clock, sellers: Sequence[PeerKey]
) -> GatheringEnded:
    verdict: list[GatheringEnded] = []
    async with trio.open_nursery() as nursery:

        async def ask(peer: PeerKey) -> None:
            try:
                quote = await ask_offer(mesh, network, kind, peer)
            except CocoonError as error:
                await driver.post(OfferMissed(peer, error.code))
            else:
                await driver.post(OfferReceived(quote))

        async def perform(effect: Effect) -> None:
            match effect:
                case AskOffer(peer):
                    nursery.start_soon(ask, peer)
                case GatheringEnded():
                    verdict.append(effect)
                    driver.stop()

        driver = Driver(Gathering(), clock, perform)
        await driver.post(SellersFound(tuple(sellers)))
        await driver.run()
        nursery.cancel_scope.cancel()
    return verdict[0]


async def ask_offer(mesh: Mesh, network: NetworkId, kind: str, peer: PeerKey) -> Quote:
    """Ask one seller and verify what it says.

    Raises:
        Unavailable, PeerFault, PolicyRefusal: no usable offer, and why.
    """
    stream = await mesh.open_stream(peer, OFFER_PROTOCOL)
    reply = None
    try:
        with trio.move_on_after(OFFER_NS / SECOND_NS):
            await stream.send(pack(OfferRequest(network=network, kind=kind)))
            reply = unpack(await stream.receive(), OfferReply, Refusal)
    finally:
        await stream.close()
    if reply is None:
        raise Unreachable(f"the peer gave no offer within {OFFER_NS // SECOND_NS} s")
    if isinstance(reply, Refusal):
        raise from_peer(reply.code, reply.text)
    quote = verify_offer(reply, network, peer)
    if kind not in quote.offer.kinds:
        raise wrong("kind", f"asked for {kind!r}, the offer sells {', '.join(quote.offer.kinds)}")
    return quote


def verify_offer(reply: OfferReply, network: NetworkId, peer: PeerKey) -> Quote:
    """Check signatures, digests and ranges of an offer with its bodies.

    Raises:
        BadSignature, Malformed, WrongField: what does not fit.
    """
    offer = open_signed(reply.offer, Offer, signer=peer)
    keys = open_signed(reply.keys, KeyBundle, signer=peer)
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
    if not 1 <= offer.message.ttl_s <= OFFER_TTL_S:
        raise wrong("ttl", f"{offer.message.ttl_s} s is outside 1 to {OFFER_TTL_S} s")
    bundle = keys.message
    return Quote(
        peer, offer.digest, offer.message, bundle.public, bundle.payout, bundle.provider_key, profile
    )
