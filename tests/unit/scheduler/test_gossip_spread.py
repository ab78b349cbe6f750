"""How far an offer gets, and how fast: 1,000 machines on a heap of events (GOS-12, GOS-13)."""

from __future__ import annotations

import pytest

from cocoon.core.ids import PeerKey
from cocoon.core.limits import GOSSIP_DELTA_OFFERS, GOSSIP_INTERVAL_NS, PEERS_WANTED
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from tests.unit.scheduler.gossip_world import World, claim, key

PEERS = 1_000


def town(seed: int, peers: int, dials: int = PEERS_WANTED, loss_ppm: int = 0) -> World:
    """Peers that each dialled some others, by lot; frames take 10 to 165 ms one way."""
    world = World(seed, loss_ppm)
    for number in range(peers):
        world.add(number)
    for number in range(peers):
        for _ in range(dials):
            if (other := world.draws.below(peers)) != number:
                world.connect(number, other)
    world.run(2 * SECOND_NS)
    return world


def spread(world: World, provider: int, seq: int) -> list[int]:
    """Milliseconds until each peer had a new offer, ascending."""
    began_ns = world.now_ns
    had: dict[PeerKey, int] = {}

    def watch(peer: PeerKey) -> None:
        if peer not in had and world.holds(peer, provider) == seq:
            had[peer] = (world.now_ns - began_ns) // MILLISECOND_NS

    world.watch = watch
    world.publish(claim(provider, seq))
    world.run(began_ns + 10 * SECOND_NS)
    return sorted(had.values())


@pytest.mark.parametrize(("seed", "loss_ppm"), [(1, 0), (2, 0), (3, 20_000)])
def test_a_thousand_peers_have_an_offer_within_two_seconds_but_for_one_in_a_hundred(seed: int, loss_ppm: int) -> None:
    world = town(seed, PEERS, loss_ppm=loss_ppm)
    took = spread(world, 17, 1)
    assert len(took) == PEERS, "somebody never heard of it"
    assert took[PEERS * 99 // 100] <= 2_000
    assert world.dropped == []


def test_each_peer_checks_a_signature_once_however_often_it_hears_of_the_offer() -> None:
    world = town(4, 200)
    assert len(spread(world, 17, 1)) == 200
    assert world.checks == 199


def test_a_newcomer_has_nearly_every_offer_after_as_many_digests_as_it_takes_frames_and_then_the_rest() -> None:
    world = town(5, 4, dials=2)
    providers = range(1_000, 1_400)
    for made in map(claim, providers):
        world.offers[made.packed] = (made.provider, made.offer)
        for peer in world.peers.values():
            peer.table.take(world.now_ns, made, "elsewhere")
    world.add(9)
    for number in range(4):
        world.connect(9, number)
    rounds = len(providers) // GOSSIP_DELTA_OFFERS
    world.run(world.now_ns + rounds * GOSSIP_INTERVAL_NS + SECOND_NS)
    assert sum(world.holds(key(9), number) is None for number in providers) < len(providers) // 10
    world.run(world.now_ns + 10 * GOSSIP_INTERVAL_NS)
    assert [number for number in providers if world.holds(key(9), number) is None] == []
