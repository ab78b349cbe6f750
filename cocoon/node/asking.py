"""Asking around: choose sellers known by gossip or found in the DHT, ask each for its offer, verify the answers.

Purity: shell. Spec: docs/spec/scheduling.md, rules SCH-6 and SCH-7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import trio

from cocoon.core.clock import Clock
from cocoon.core.errors import CocoonError, Unreachable, from_peer, wrong
from cocoon.core.groups import single_error
from cocoon.core.ids import NetworkId, PeerKey, kind_key
from cocoon.core.limits import OFFER_NS, OFFERS_ENOUGH, PROVIDERS_ASKED
from cocoon.core.machine import Effect
from cocoon.core.units import PPM, SECOND_NS
from cocoon.core.values import Value, replace
from cocoon.node.counter import OFFER_PROTOCOL
from cocoon.node.driver import Driver
from cocoon.node.gossip import OfferGossip
from cocoon.p2p.service import Mesh
from cocoon.scheduler.round import AskPeer, QuoteMissed, QuoteReceived, Round, RoundBegan, RoundEnded
from cocoon.scheduler.selection import Demand, Missed, Quote
from cocoon.scheduler.verification import verify_offer
from cocoon.wire.messages import OfferReply, OfferRequest, Refusal
from cocoon.wire.schema import pack, unpack


class Directory(Value):
    """Where sellers are found: the table of gossiped offers, and the DHT."""

    mesh: Mesh
    network: NetworkId
    #: None asks the DHT alone.
    gossip: OfferGossip | None = None

    async def ask(
        self, demand: Demand, without: Collection[PeerKey], reliability_ppm: Callable[[PeerKey], int],
        ask: Callable[[Sequence[PeerKey]], Awaitable[RoundEnded]],
    ) -> RoundEnded:
        """Ask the sellers that are shortlisted for ``demand``; others only if those are few or all silent (SCH-6).

        Args:
            without: Passed over.
            reliability_ppm: Above 0.
            ask: Asks these peers, which are connected if they can be.
        """
        named = [] if self.gossip is None else self.gossip.shortlist(demand, without, reliability_ppm)
        key = kind_key(self.network, demand.kind)
        if len(named) < OFFERS_ENOUGH:
            return await ask(await self._few(key, named, without))
        known = await ask(await self.mesh.meet(named))
        if known.quotes:
            return known
        # Whoever fills the table with providers that do not answer must not hide the others.
        found = await ask(await self.mesh.find_providers(key, PROVIDERS_ASKED, {*without, *named}))
        return RoundEnded(found.quotes, (*known.missed, *found.missed))

    async def _few(self, key: bytes, named: Sequence[PeerKey], without: Collection[PeerKey]) -> list[PeerKey]:
        """Sellers known and sellers found, in the time of one look-up: a known one that is gone delays nobody."""
        met: list[PeerKey] = []

        async def meet() -> None:
            met.extend(await self.mesh.meet(named))

        with single_error():
            async with trio.open_nursery() as nursery:
                if named:
                    nursery.start_soon(meet)
                found = await self.mesh.find_providers(key, PROVIDERS_ASKED, without)
        return [*met, *found]


async def hold_round(began: RoundBegan, clock: Clock, ask: Callable[[PeerKey], Awaitable[Quote]]) -> RoundEnded:
    """Ask all at once; who has not answered when the round ends is cancelled.

    Args:
        ask: Asks one peer; its ``CocoonError`` says why there is no quote.
    """
    ended: list[RoundEnded] = []
    async with trio.open_nursery() as nursery:

        async def asked(peer: PeerKey) -> None:
            try:
                quote = await ask(peer)
            except CocoonError as error:
                await driver.post(QuoteMissed(Missed(peer, error.code, error.text)))
            else:
                await driver.post(QuoteReceived(quote))

        async def perform(effect: Effect) -> None:
            match effect:
                case AskPeer(peer):
                    nursery.start_soon(asked, peer)
                case RoundEnded():
                    ended.append(effect)
                    driver.stop()

        driver = Driver(Round(), clock, perform)
        await driver.post(began)
        await driver.run()
        nursery.cancel_scope.cancel()
    return ended[0]


async def gather_offers(
    directory: Directory, clock: Clock, demand: Demand, reliability_ppm: Callable[[PeerKey], int] = lambda _: PPM,
) -> RoundEnded:
    """One round: find sellers for ``demand``, ask at most ``PROVIDERS_ASKED``, wait ``OFFER_NS`` at most."""

    async def ask(peer: PeerKey) -> Quote:
        quote = await ask_offer(directory.mesh, directory.network, demand.kind, peer)
        return replace(quote, measure=demand.measure)

    async def hold(sellers: Sequence[PeerKey]) -> RoundEnded:
        return await hold_round(RoundBegan(tuple(sellers), OFFER_NS, OFFER_NS), clock, ask)

    return await directory.ask(demand, (), reliability_ppm, hold)


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
