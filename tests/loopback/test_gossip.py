"""A requester knows what is sold because its neighbours told it, not because it asked (GOS-1, SCH-29)."""

from __future__ import annotations

import json
import signal

import cocoon
from cocoon.core.ids import peer_key
from tests.loopback.paid import until
from tests.loopback.town import Peer, Town


def test_an_offer_comes_by_the_bootstrap_alone_and_its_provider_is_listed(empty_town: Town) -> None:
    """While the requester starts, the provider is stopped: nobody but the bootstrap can have told of it."""
    bootstrap, provider = empty_town.bootstrap(), empty_town.provider()
    founder, seller = name_in_log(bootstrap), name_in_log(provider)
    until(lambda: learned(bootstrap) == [(seller, seller)], "the provider's offer at the bootstrap")
    provider.signal(signal.SIGSTOP)
    try:
        requester = empty_town.requester()
        until(lambda: learned(requester) == [(seller, founder)], "the provider's offer, by the bootstrap")
        assert cocoon.connect(requester.home).status()["gossip"] == {"neighbours": 1, "offers": 1}
    finally:
        provider.signal(signal.SIGCONT)
    listed = until(lambda: cocoon.connect(requester.home).offers(), "the provider's own word")
    assert [peer_key(offer["provider"]).hex()[:12] for offer in listed] == [seller]


def lines(peer: Peer, event: str) -> list[dict[str, str]]:
    """What a peer's log says under one name."""
    records = (json.loads(line) for line in peer.log().splitlines())
    return [record for record in records if record["event"] == event]


def name_in_log(peer: Peer) -> str:
    """A peer as logs name it."""
    return lines(peer, "ready")[0]["peer"]


def learned(peer: Peer) -> list[tuple[str, str]]:
    """(provider, by whom) of each provider that ``peer`` did not know before."""
    return [(line["provider"], line["peer"]) for line in lines(peer, "offer_learned")]
