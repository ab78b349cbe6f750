"""Laws of the gossip: loss, repetition, replays and any order; the newest offer wins and nothing outlives its time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cocoon.core.limits import (
    GOSSIP_BOOT_SILENCE_NS,
    GOSSIP_DELTA_OFFERS,
    GOSSIP_DIGEST_OFFERS,
    GOSSIP_HOP_NS,
    GOSSIP_INTERVAL_NS,
    OFFER_REFRESH_NS,
    OFFER_TTL_S,
)
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.scheduler.gossip import (
    CheckOffers,
    InterestHeard,
    NeighbourJoined,
    NeighbourLeft,
    OffersHeard,
    OffersVerified,
    SendGossip,
)
from cocoon.scheduler.table import Claim
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest
from tests.unit.scheduler.gossip_world import BOOT, World, claim, gossip, key

PROVIDERS, NEIGHBOURS = st.integers(100, 103), st.integers(1, 4)
BOOTS = st.sampled_from([bytes([number]) * 8 for number in (1, 2, 3)])


class TableInAnyWeather(RuleBasedStateMachine):
    """One peer, and neighbours that bring any offers ever signed, at any age that they care to claim."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.machine = gossip()
        #: By (provider, boot): the highest number taken, and when each name was first taken and at which age.
        self.highest: dict[tuple[bytes, bytes], int] = {}
        self.first: dict[tuple[bytes, bytes, int], tuple[int, int]] = {}
        self.present: dict[bytes, tuple[bytes, int]] = {}

    @rule(neighbour=NEIGHBOURS)
    def joins(self, neighbour: int) -> None:
        self.act(self.machine.handle(self.now_ns, NeighbourJoined(key(neighbour), f"block {neighbour}", BOOT)))
        self.act(self.machine.handle(self.now_ns, InterestHeard(key(neighbour), Interest(kinds=("infer",)))))

    @rule(neighbour=NEIGHBOURS)
    def leaves(self, neighbour: int) -> None:
        self.act(self.machine.handle(self.now_ns, NeighbourLeft(key(neighbour))))

    @rule(
        neighbour=NEIGHBOURS,
        rows=st.lists(st.tuples(PROVIDERS, st.integers(0, 6), st.integers(0, 200_000), BOOTS), max_size=6),
        ttl_s=st.sampled_from([30, OFFER_TTL_S]),
    )
    def brings(self, neighbour: int, rows: list[tuple[int, int, int, bytes]], ttl_s: int) -> None:
        claims = tuple(claim(number, seq, age_ms, boot, ttl_s=ttl_s) for number, seq, age_ms, boot in rows)
        self.act(self.machine.handle(self.now_ns, OffersHeard(key(neighbour), claims)))

    @rule(step_ns=st.integers(0, 40 * SECOND_NS))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns
        self.act(self.machine.handle(self.now_ns, DeadlinePassed()))

    def act(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case CheckOffers(peer, claims):
                    self.act(self.machine.handle(self.now_ns, OffersVerified(peer, claims, claims, None)))
                case SendGossip(message=OfferDelta(offers=offers)):
                    assert 0 < len(offers) <= GOSSIP_DELTA_OFFERS
                    assert all(age_ms < OFFER_TTL_S * 1_000 for age_ms, _ in offers)
                case SendGossip(message=OfferDigest(held=held)):
                    assert len(held) <= GOSSIP_DIGEST_OFFERS
        self.look()

    def look(self) -> None:
        """What is given out changed lawfully."""
        for one in self.machine.table.live(self.now_ns):
            provider, boot, seq = one.name
            if self.present.get(provider) == (boot, seq):
                continue
            assert seq > self.highest.get((provider, boot), -1), "an older number came back"
            self.highest[provider, boot] = seq
            self.present[provider] = (boot, seq)
            self.first[one.name] = (self.now_ns, one.age_ms)

    @invariant()
    def nothing_lives_beyond_its_time(self) -> None:
        for one in self.machine.table.live(self.now_ns):
            assert one.age_ms < one.offer.ttl_s * 1_000 + 1
            heard_ns, age_ms = self.first[one.name]
            assert one.age_ms >= age_ms, "an offer became younger"
            assert self.now_ns - heard_ns < one.offer.ttl_s * SECOND_NS
            assert one.age_ms * MILLISECOND_NS >= self.now_ns - heard_ns + GOSSIP_HOP_NS

    @invariant()
    def nothing_is_remembered_without_end(self) -> None:
        sums = self.machine.table.sums()
        assert sums == self.machine.table.sums(lambda _: True), "the sums at hand are not those of what is held"
        assert len(self.machine.table) <= 4 and len(self.machine._checking) == 0 and len(self.machine._fresh) <= 4


class TownInAnyWeather(RuleBasedStateMachine):
    """Six peers in a ring; frames get lost, providers sign anew, liars replay what they have."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(seed=1, loss_ppm=300_000)
        self.newest: dict[int, Claim] = {}
        self.signed_ns: dict[int, int] = {}
        self.started_ns: dict[int, int] = {}
        self.signed: list[Claim] = []
        for number in range(6):
            self.world.add(number)
        for number in range(6):
            self.world.connect(number, (number + 1) % 6)

    @rule(provider=st.integers(0, 5))
    def signs(self, provider: int) -> None:
        last = self.newest.get(provider)
        made = claim(provider) if last is None else claim(provider, last.offer.seq + 1, boot=last.offer.boot_id)
        self._publish(provider, made)

    @rule(liar=st.integers(0, 5), other=st.integers(0, 5), which=st.integers(0, 1_000))
    @precondition(lambda self: self.signed)
    def replays(self, liar: int, other: int, which: int) -> None:
        old = self.signed[which % len(self.signed)]
        self.world.tell(key(other), OffersHeard(key(liar), (Claim(old.provider, old.offer, 0, old.packed),)))

    @rule(step_s=st.integers(0, 70))
    def time_passes(self, step_s: int) -> None:
        for _ in range(step_s):
            self.world.run(self.world.now_ns + SECOND_NS)
            for provider, at_ns in list(self.signed_ns.items()):
                if self.world.now_ns - at_ns >= OFFER_REFRESH_NS:
                    self.signs(provider)

    def _publish(self, provider: int, made: Claim) -> None:
        self.newest[provider], self.signed_ns[provider] = made, self.world.now_ns
        self.signed.append(made)
        self.world.publish(made)

    @invariant()
    def no_peer_holds_more_than_there_is(self) -> None:
        assert all(len(peer.table) <= len(self.newest) for peer in self.world.peers.values())
        assert self.world.dropped == []

    def teardown(self) -> None:
        """Whatever happened: when the weather clears, everybody has the newest."""
        self.world.loss_ppm = 0
        self.world.run(self.world.now_ns + 12 * GOSSIP_INTERVAL_NS)
        for provider, made in self.newest.items():
            for peer in self.world.peers:
                assert self.world.holds(peer, provider) == made.offer.seq


def test_a_provider_that_starts_again_is_believed_everywhere_though_its_old_offers_are_replayed() -> None:
    """Neighbours know from its Hello; all others when its old boot has been silent for long enough."""
    world = World(seed=2)
    for number in range(12):
        world.add(number)
    for number in range(12):
        world.connect(number, (number + 1) % 12)
    old = [claim(0, seq) for seq in range(1, 4)]
    for made in old:
        world.publish(made)
        world.run(world.now_ns + SECOND_NS)
    again = bytes([9]) * 8
    restarted_ns = world.now_ns
    world.peers[key(0)] = gossip(0)
    for neighbour in (1, 11):
        world.tell(key(neighbour), NeighbourLeft(key(0)))
        world.tell(key(neighbour), NeighbourJoined(key(0), "block 0", again))
        world.tell(key(0), NeighbourJoined(key(neighbour), f"block {neighbour}", BOOT))
    seq = 0
    while world.now_ns < restarted_ns + GOSSIP_BOOT_SILENCE_NS + 15 * SECOND_NS:
        if world.now_ns >= restarted_ns + seq * OFFER_REFRESH_NS:
            seq += 1
            world.publish(claim(0, seq, boot=again))
        for made in old:
            world.tell(key(6), OffersHeard(key(5), (made,)))
        world.run(world.now_ns + SECOND_NS)
    assert {world.holds(peer, 0) for peer in world.peers} == {seq}
    found = [peer.table.find(world.now_ns, key(0)) for peer in world.peers.values()]
    assert {one.offer.boot_id for one in found if one is not None} == {again}


TestTableInAnyWeather = TableInAnyWeather.TestCase
TestTownInAnyWeather = TownInAnyWeather.TestCase
TestTownInAnyWeather.settings = settings(max_examples=25, stateful_step_count=20)
