"""One peer's part in the gossip: who is told what, who is believed, who is dropped (GOS-1 to GOS-14)."""

from __future__ import annotations

from itertools import pairwise

from cocoon.core.ids import NetworkId
from cocoon.core.limits import (
    GOSSIP_CALM_NS,
    GOSSIP_DELTA_OFFERS,
    GOSSIP_DIGEST_OFFERS,
    GOSSIP_FANOUT,
    GOSSIP_INTERVAL_NS,
    GOSSIP_PARTS,
    GOSSIP_PUSH_NS,
    GOSSIP_SHUN_NS,
    GOSSIP_SHUNNED,
    OFFER_TTL_S,
)
from cocoon.core.machine import DeadlinePassed, Effect
from cocoon.core.units import SECOND_NS
from cocoon.scheduler.gossip import (
    CheckOffers,
    DigestHeard,
    DropNeighbour,
    Gossip,
    InterestHeard,
    NeighbourFaulted,
    NeighbourJoined,
    NeighbourLeft,
    OfferPublished,
    OffersHeard,
    OffersVerified,
    ReportProvider,
    SendGossip,
    SummaryHeard,
    WantHeard,
)
from cocoon.scheduler.table import Claim, part_keys
from cocoon.wire.gossip import Interest, OfferDelta, OfferDigest, OfferSummary, OfferWant
from tests.unit.scheduler.gossip_world import BOOT, KINDS, claim, gossip, key

A, B = key(1), key(2)
EVERYTHING = Interest(kinds=tuple(KINDS))
ALL_KEYS = {"first": bytes(32), "last": bytes([255]) * 32}
NOTHING = OfferSummary(sums=(0,) * GOSSIP_PARTS)
#: A provider in the middle of each part of the keys.
MIDDLES = [(8 * part + 4) << 248 for part in range(GOSSIP_PARTS)]


def join(machine: Gossip, *numbers: int, kinds: Interest = EVERYTHING) -> list[Effect]:
    effects: list[Effect] = []
    for number in numbers:
        effects += machine.handle(0, NeighbourJoined(key(number), f"block {number}", BOOT))
        effects += machine.handle(0, InterestHeard(key(number), kinds))
    return effects


def learn(machine: Gossip, now_ns: int, number: int, *claims: Claim) -> list[Effect]:
    """A neighbour sends offers, all of them good."""
    effects = machine.handle(now_ns, OffersHeard(key(number), claims))
    checks = [effect for effect in effects if isinstance(effect, CheckOffers)]
    for check in checks:
        effects += machine.handle(now_ns, OffersVerified(key(number), check.claims, check.claims, None))
    return effects


def sent(effects: list[Effect], kind: type) -> list[tuple[int, object]]:
    return [
        (int.from_bytes(effect.peer, "big"), effect.message)
        for effect in effects if isinstance(effect, SendGossip) and isinstance(effect.message, kind)
    ]


def carried(effects: list[Effect]) -> list[tuple[int, list[bytes]]]:
    """(to whom, packed offers) of each delta."""
    return [
        (to, [packed for _, packed in message.offers])
        for to, message in sent(effects, OfferDelta) if isinstance(message, OfferDelta)
    ]


def test_both_sides_say_their_interest_first_and_then_what_they_hold() -> None:
    machine = gossip()
    effects = machine.handle(0, NeighbourJoined(A, "block", BOOT))
    assert effects == [SendGossip(A, Interest(kinds=("infer",)))]
    assert machine.handle(0, InterestHeard(A, EVERYTHING)) == [SendGossip(A, OfferDigest(**ALL_KEYS, held=()))]
    assert machine.handle(0, InterestHeard(A, EVERYTHING)) == [], "one digest for a greeting, not for each word"


def test_what_is_new_goes_to_a_few_neighbours_at_once_but_not_back() -> None:
    machine = gossip()
    join(machine, *range(1, 21))
    effects = learn(machine, 1, 1, claim(99))
    pushed = carried(effects)
    assert len(pushed) == len({to for to, _ in pushed} - {1}) == GOSSIP_FANOUT
    assert {tuple(offers) for _, offers in pushed} == {(claim(99).packed,)}
    assert [effect for effect in effects if isinstance(effect, ReportProvider)] == [ReportProvider(key(99), A)]


def test_what_comes_within_the_pause_after_a_push_travels_in_one_frame() -> None:
    machine = gossip()
    join(machine, 1, 2)
    assert carried(learn(machine, 0, 1, claim(99))) == [(2, [claim(99).packed])]
    assert carried(learn(machine, 1, 1, claim(98)) + learn(machine, 2, 1, claim(97))) == []
    assert machine.deadline_ns() == GOSSIP_PUSH_NS
    assert carried(machine.handle(GOSSIP_PUSH_NS, DeadlinePassed())) == [(2, [claim(98).packed, claim(97).packed])]


def test_nobody_gets_offers_of_kinds_that_he_did_not_name() -> None:
    machine = gossip(kinds=("embed", "infer"))
    join(machine, 1, 2, kinds=Interest(kinds=("embed",)))
    machine.handle(0, NeighbourJoined(key(3), "block", BOOT))
    both, one = claim(99, kinds=("embed", "infer")), claim(98)
    assert carried(learn(machine, 1, 1, both, one)) == [(2, [both.packed])]
    digest = machine.handle(SECOND_NS, DigestHeard(B, OfferDigest(**ALL_KEYS, held=())))
    assert carried(digest) == [(2, [both.packed])]


def test_offers_of_kinds_that_are_not_wanted_here_are_not_checked() -> None:
    machine = gossip()
    join(machine, 1)
    assert machine.handle(0, OffersHeard(A, (claim(99, kinds=("embed",)),))) == []


def test_what_is_known_already_is_not_checked_again_nor_twice_at_a_time() -> None:
    machine = gossip()
    join(machine, 1, 2)
    check = machine.handle(0, OffersHeard(A, (claim(99), claim(99))))
    assert check == [CheckOffers(A, (claim(99),))]
    assert machine.handle(0, OffersHeard(B, (claim(99),))) == [], "it is being checked"
    machine.handle(0, OffersVerified(A, (claim(99),), (claim(99),), None))
    assert machine.handle(1, OffersHeard(B, (claim(99, seq=0), claim(99)))) == []


def test_a_check_that_was_given_up_may_be_made_again() -> None:
    machine = gossip()
    join(machine, 1, 2)
    machine.handle(0, OffersHeard(A, (claim(99),)))
    machine.handle(0, OffersVerified(A, (claim(99),), (), None))
    assert machine.handle(0, OffersHeard(B, (claim(99),))) == [CheckOffers(B, (claim(99),))]


def test_a_neighbour_is_dropped_and_shunned_for_what_no_honest_peer_passes_on() -> None:
    faults = (
        ("wrong_network_id", OffersHeard(A, (claim(99, network=NetworkId(bytes(32))),))),
        ("wrong_ttl", OffersHeard(A, (claim(99, ttl_s=OFFER_TTL_S + 1),))),
        ("wrong_ttl", OffersHeard(A, (claim(99, ttl_s=0),))),
        ("bad_signature", OffersVerified(A, (claim(99),), (), "bad_signature")),
        ("malformed", NeighbourFaulted(A, "malformed")),
    )
    for code, event in faults:
        machine = gossip()
        join(machine, 1)
        assert machine.handle(5, event) == [DropNeighbour(A, code)]
        assert machine.handle(6, OffersHeard(A, (claim(99),))) == [], "nothing more is heard of it"
        assert machine.shuns(4 + GOSSIP_SHUN_NS, A) and not machine.shuns(5 + GOSSIP_SHUN_NS, A)
        assert machine.handle(7, NeighbourJoined(A, "block", BOOT)) == [DropNeighbour(A, "shunned")]


def test_of_many_who_are_at_fault_the_first_is_forgotten() -> None:
    machine = gossip()
    for number in range(1, GOSSIP_SHUNNED + 2):
        join(machine, number)
        machine.handle(0, NeighbourFaulted(key(number), "malformed"))
    assert not machine.shuns(1, key(1))
    assert all(machine.shuns(1, key(number)) for number in range(2, GOSSIP_SHUNNED + 2))


def test_what_was_good_before_the_bad_one_is_kept() -> None:
    machine = gossip()
    join(machine, 1, 2)
    good, bad = claim(98), claim(99)
    machine.handle(0, OffersHeard(A, (good, bad)))
    effects = machine.handle(0, OffersVerified(A, (good, bad), (good,), "bad_signature"))
    assert DropNeighbour(A, "bad_signature") in effects and carried(effects) == [(2, [good.packed])]


def test_stale_and_own_offers_cost_their_sender_nothing() -> None:
    machine = gossip()
    join(machine, 1)
    learn(machine, 0, 1, claim(99, seq=5))
    for stale in (claim(99, seq=4), claim(99, seq=6, age_ms=179_000), claim(0, seq=9)):
        assert machine.handle(1, OffersHeard(A, (stale,))) == []


def summary_of(machine: Gossip, now_ns: int) -> OfferSummary:
    """What the machine says of itself in the round that is due."""
    (_, summary), = sent(machine.handle(now_ns, DeadlinePassed()), OfferSummary)
    assert isinstance(summary, OfferSummary)
    return summary


def test_neighbours_that_hold_the_same_have_the_same_sums_and_nothing_more_to_say() -> None:
    one, other = gossip(), gossip(7)
    claims = [claim(number, seq=3) for number in MIDDLES]
    for machine, order in ((one, claims), (other, claims[::-1])):
        join(machine, 1)
        learn(machine, 0, 1, *(claim(number, seq=2) for number in MIDDLES[:5]))
        learn(machine, 1, 1, *order)
    said = summary_of(one, 2 * GOSSIP_INTERVAL_NS)
    assert said != NOTHING and other.handle(2 * GOSSIP_INTERVAL_NS, SummaryHeard(A, said)) == []


def test_sums_that_differ_are_answered_with_a_digest_of_one_run_of_such_parts() -> None:
    machine, other = gossip(), gossip(7)
    for one in (machine, other):
        join(one, 1)
        learn(one, 0, 1, *(claim(number) for number in MIDDLES))
    learn(other, 1, 1, *(claim(MIDDLES[part], seq=2) for part in (4, 5, 20)))
    said = summary_of(other, 2 * GOSSIP_INTERVAL_NS)
    ranges = set()
    for turn in range(2, 12):
        now_ns = turn * GOSSIP_INTERVAL_NS
        (_, digest), = sent(machine.handle(now_ns, SummaryHeard(A, said)), OfferDigest)
        assert isinstance(digest, OfferDigest)
        assert machine.handle(now_ns + 1, SummaryHeard(A, said)) == [], "one answer per half interval"
        ranges.add((digest.first, digest.last))
        assert len(digest.held) == {part_keys(4, 5): 2, part_keys(20, 20): 1}[digest.first, digest.last]
    assert len(ranges) == 2, "each run gets its turn"


def round_times(machine: Gossip, rounds: int) -> list[int]:
    """When its next rounds are due, in intervals since the one before."""
    waits, before_ns = [], machine.deadline_ns()
    for _ in range(rounds):
        assert before_ns is not None
        machine.handle(before_ns, DeadlinePassed())
        after_ns = machine.deadline_ns()
        assert after_ns is not None
        waits.append((after_ns - before_ns) // GOSSIP_INTERVAL_NS)
        before_ns = after_ns
    return waits


def test_rounds_are_rarer_while_comparing_finds_nothing_and_as_often_as_at_first_once_it_does() -> None:
    machine, other = gossip(), gossip(7)
    for one in (machine, other):
        join(one, 1)
    assert round_times(machine, 5) == [1, 2, 4, 4, 4] and GOSSIP_CALM_NS == 4 * GOSSIP_INTERVAL_NS
    now_ns = machine.deadline_ns()
    assert now_ns is not None
    machine.handle(now_ns, SummaryHeard(A, summary_of(other, 2 * GOSSIP_INTERVAL_NS)))
    assert round_times(machine, 3) == [4, 4, 4], "equal sums stirred it"
    learn(other, 0, 1, claim(MIDDLES[0]))
    now_ns = machine.deadline_ns() or 0
    machine.handle(now_ns - GOSSIP_CALM_NS, SummaryHeard(A, summary_of(other, 4 * GOSSIP_INTERVAL_NS)))
    assert machine.deadline_ns() == now_ns - GOSSIP_CALM_NS + GOSSIP_INTERVAL_NS, "what is there is told soon"
    assert round_times(machine, 4) == [1, 2, 4, 4]


def test_who_wants_other_kinds_is_told_sums_of_what_he_wants() -> None:
    machine = gossip(kinds=("embed", "infer"))
    join(machine, 1, kinds=Interest(kinds=("embed",)))
    learn(machine, 0, 1, claim(MIDDLES[3]))
    assert summary_of(machine, 2 * GOSSIP_INTERVAL_NS) == NOTHING
    learn(machine, 0, 1, claim(MIDDLES[3], seq=2, kinds=("embed",)))
    said = summary_of(machine, 4 * GOSSIP_INTERVAL_NS)
    assert [part for part, value in enumerate(said.sums) if value] == [3]


def test_what_expired_is_in_no_sum() -> None:
    machine = gossip()
    join(machine, 1)
    learn(machine, 0, 1, *(claim(number, seq=seq) for number in MIDDLES for seq in (1, 2)))
    assert summary_of(machine, GOSSIP_INTERVAL_NS) != NOTHING
    assert summary_of(machine, OFFER_TTL_S * SECOND_NS) == NOTHING


def test_the_parts_cover_all_keys_and_do_not_overlap() -> None:
    ends = [part_keys(part, part) for part in range(GOSSIP_PARTS)]
    assert (ends[0][0], ends[-1][1]) == (ALL_KEYS["first"], ALL_KEYS["last"])
    for (_, last), (first, _) in pairwise(ends):
        assert int.from_bytes(last, "big") + 1 == int.from_bytes(first, "big")


def test_a_digest_is_answered_with_what_is_missing_there_and_what_is_wanted_here() -> None:
    machine = gossip()
    join(machine, 1)
    learn(machine, 0, 1, claim(50, seq=2), claim(60, seq=2), claim(70, seq=2), claim(80, seq=2))
    held = ((50, 1), (60, 2), (70, 3), (90, 1))
    lines = tuple((bytes(key(number)), BOOT, seq, 10) for number, seq in held)
    answer = machine.handle(SECOND_NS, DigestHeard(A, OfferDigest(**ALL_KEYS, held=lines)))
    assert carried(answer) == [(1, [claim(50, seq=2).packed, claim(80, seq=2).packed])]
    assert sent(answer, OfferWant) == [(1, OfferWant(providers=(bytes(key(70)), bytes(key(90)))))]


def test_a_digest_of_a_stretch_says_nothing_of_other_keys() -> None:
    machine = gossip()
    join(machine, 1)
    learn(machine, 0, 1, *(claim(number) for number in (50, 60, 70)))
    digest = OfferDigest(first=bytes(key(55)), last=bytes(key(65)), held=())
    assert carried(machine.handle(SECOND_NS, DigestHeard(A, digest))) == [(1, [claim(60).packed])]


def test_digests_in_a_row_are_answered_once_per_half_interval() -> None:
    machine = gossip()
    join(machine, 1)
    learn(machine, 0, 1, claim(50))
    asked = DigestHeard(A, OfferDigest(**ALL_KEYS, held=()))
    assert machine.handle(SECOND_NS, asked) != []
    assert machine.handle(SECOND_NS + 1, asked) == []
    assert machine.handle(SECOND_NS + GOSSIP_INTERVAL_NS // 2, asked) != []


def test_a_want_is_served_once_for_each_digest() -> None:
    machine = gossip()
    learned = gossip()
    for one in (machine, learned):
        join(one, 1)
    learn(machine, 0, 1, claim(50))
    want = WantHeard(A, OfferWant(providers=(bytes(key(50)), bytes(key(51)), bytes(key(50)))))
    assert carried(machine.handle(1, want)) == [(1, [claim(50).packed])]
    assert machine.handle(2, want) == []


def test_a_large_table_is_told_in_stretches_and_each_line_is_within_the_ends() -> None:
    machine = gossip()
    join(machine, 1, 2)
    providers = range(1_000, 1_000 + 2 * GOSSIP_DIGEST_OFFERS)
    for first in range(0, len(providers), GOSSIP_DELTA_OFFERS):
        learn(machine, 0, 1, *(claim(number) for number in providers[first : first + GOSSIP_DELTA_OFFERS]))
    told: set[bytes] = set()
    now_ns = 0
    for _ in range(60):
        now_ns += GOSSIP_INTERVAL_NS
        for _, digest in sent(machine.handle(now_ns, SummaryHeard(A, NOTHING)), OfferDigest):
            assert isinstance(digest, OfferDigest) and digest.flaw() is None
            told |= {line[0] for line in digest.held}
    assert told == {bytes(key(number)) for number in providers}


def test_the_own_offer_is_published_and_no_echo_of_it_is_believed() -> None:
    machine = gossip(7)
    join(machine, 1)
    assert carried(machine.handle(0, OfferPublished(claim(7, seq=2)))) == [(1, [claim(7, seq=2).packed])]
    assert machine.handle(1, OffersHeard(A, (claim(7, seq=3),))) == []


def test_a_stranger_s_words_and_an_early_deadline_change_nothing() -> None:
    machine = gossip()
    assert machine.deadline_ns() is None
    for event in (
        InterestHeard(A, EVERYTHING), OffersHeard(A, (claim(9),)), NeighbourFaulted(A, "malformed"),
        DigestHeard(A, OfferDigest(**ALL_KEYS, held=())), WantHeard(A, OfferWant(providers=(bytes(32),))),
        SummaryHeard(A, OfferSummary(sums=(1,) * GOSSIP_PARTS)),
        OffersVerified(A, (claim(9),), (claim(9),), None), DeadlinePassed(), NeighbourLeft(A),
    ):
        assert machine.handle(0, event) == []
    join(machine, 1)
    due_ns = machine.deadline_ns()
    assert due_ns is not None and machine.handle(due_ns - 1, DeadlinePassed()) == []
    assert machine.handle(due_ns, DeadlinePassed()) == [SendGossip(A, NOTHING)]
    machine.handle(due_ns, NeighbourLeft(A))
    assert machine.deadline_ns() is None


def test_the_draws_follow_from_the_seed() -> None:
    def pushes(seed: int) -> list[int]:
        machine = gossip(seed=seed)
        join(machine, *range(1, 21))
        return [to for to, _ in carried(machine.handle(0, OfferPublished(claim(0))))]

    assert pushes(1) == pushes(1) != pushes(2)
    assert len(set(pushes(3))) == GOSSIP_FANOUT
