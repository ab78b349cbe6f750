"""The table of offers: order, life, replays and room (GOS-5 to GOS-11)."""

from __future__ import annotations

from collections import Counter

import pytest

from cocoon.core.limits import (
    GOSSIP_BOOT_SILENCE_NS,
    GOSSIP_BOOTS,
    GOSSIP_HOP_NS,
    GOSSIP_MEMORY_NS,
    GOSSIP_OFFERS,
    OFFER_REFRESH_NS,
    OFFER_TTL_S,
)
from cocoon.core.rng import stream
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.scheduler import table as under_test
from cocoon.scheduler.table import Claim, OfferTable, Worth
from tests.unit.scheduler.gossip_world import BOOT, claim, key

HERE = "192.0.2.0/24"
OTHER, THIRD = bytes([2]) * 8, bytes([3]) * 8


def held(table: OfferTable, now_ns: int, provider: int = 1) -> tuple[bytes, int] | None:
    found = table.find(now_ns, key(provider))
    return None if found is None else (found.offer.boot_id, found.offer.seq)


def test_the_higher_number_of_one_boot_replaces_the_lower_and_never_the_other_way() -> None:
    table = OfferTable()
    assert table.take(0, claim(1, seq=5), HERE)
    assert not table.take(1, claim(1, seq=4), HERE)
    assert not table.take(1, claim(1, seq=5), HERE)
    assert held(table, 1) == (BOOT, 5)
    assert table.take(2, claim(1, seq=6), HERE)
    assert held(table, 2) == (BOOT, 6)


def test_an_offer_ends_at_its_time_to_live_counted_from_its_signing() -> None:
    table = OfferTable()
    table.take(0, claim(1, age_ms=5_000, ttl_s=20), HERE)
    last_ns = 15 * SECOND_NS - GOSSIP_HOP_NS
    assert held(table, last_ns - 1) is not None
    assert held(table, last_ns) is None and list(table.live(last_ns)) == []


def test_an_age_grows_by_the_time_here_and_by_the_way_and_is_not_made_younger_by_hearing_it_again() -> None:
    table = OfferTable()
    table.take(0, claim(1, age_ms=5_000), HERE)
    assert not table.take(SECOND_NS, claim(1, age_ms=0), HERE)
    found = table.find(SECOND_NS, key(1))
    assert found is not None and found.age_ms == 6_000 + GOSSIP_HOP_NS // MILLISECOND_NS


def test_an_offer_with_less_than_a_third_of_its_life_is_not_taken_so_a_lie_about_its_age_hides_nothing() -> None:
    table = OfferTable()
    assert not table.take(0, claim(1, seq=2, age_ms=OFFER_TTL_S * 667), HERE)
    assert table.take(0, claim(1, seq=2, age_ms=OFFER_TTL_S * 666), HERE), "the lie left no trace"


def test_an_expired_offer_is_not_brought_back_by_a_replay_until_it_is_forgotten() -> None:
    table = OfferTable()
    table.take(0, claim(1, seq=5), HERE)
    table.expire(200 * SECOND_NS)
    assert held(table, 200 * SECOND_NS) is None and len(table) == 1
    assert not table.take(201 * SECOND_NS, claim(1, seq=5), HERE)
    assert table.take(202 * SECOND_NS, claim(1, seq=6), HERE), "its provider is back"
    table.expire(500 * SECOND_NS + GOSSIP_MEMORY_NS)
    assert len(table) == 0


def test_an_offer_of_an_old_boot_does_not_push_out_that_of_a_living_one() -> None:
    table = OfferTable()
    for step in range(5):
        now_ns = step * OFFER_REFRESH_NS
        assert table.take(now_ns, claim(1, seq=step), HERE)
        assert not table.take(now_ns + OFFER_REFRESH_NS - 1, claim(1, seq=900 + step, boot=OTHER), HERE)
    assert held(table, 4 * OFFER_REFRESH_NS) == (BOOT, 4)


def test_another_boot_takes_over_when_the_present_one_fell_silent_and_the_old_one_is_remembered() -> None:
    table = OfferTable()
    table.take(0, claim(1, seq=7), HERE)
    assert table.take(GOSSIP_BOOT_SILENCE_NS, claim(1, seq=1, boot=OTHER), HERE)
    later_ns = 2 * GOSSIP_BOOT_SILENCE_NS
    assert not table.take(later_ns, claim(1, seq=7), HERE), "what was seen of it before is over"
    assert table.take(later_ns, claim(1, seq=8), HERE), "it was not over: the other one was the replay"
    assert not table.take(3 * GOSSIP_BOOT_SILENCE_NS, claim(1, seq=1, boot=OTHER), HERE)


def test_a_neighbour_s_own_word_decides_between_its_boots_at_once() -> None:
    table = OfferTable()
    table.take(0, claim(1, seq=7), HERE)
    table.introduce(key(1), OTHER)
    assert not table.take(1, claim(1, seq=8), HERE)
    assert table.take(1, claim(1, seq=1, boot=OTHER), HERE)
    table.part(key(1))
    assert not table.take(2, claim(1, seq=8), HERE), "its word stands while its present boot does"


def test_only_the_last_boots_are_remembered() -> None:
    table = OfferTable()
    for number in range(20):
        assert table.take(number * GOSSIP_BOOT_SILENCE_NS, claim(1, boot=bytes([number]) * 8), HERE)
    assert len(table._entries[key(1)].past) == GOSSIP_BOOTS


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """A table of twelve."""
    monkeypatch.setattr(under_test, "GOSSIP_OFFERS", 12)
    assert GOSSIP_OFFERS > 12
    return 12


def fill(table: OfferTable, now_ns: int, block: str, first: int, count: int) -> list[bool]:
    return [table.take(now_ns, claim(first + i), block) for i in range(count)]


def live(table: OfferTable, now_ns: int) -> set[int]:
    return {int.from_bytes(one.provider, "big") for one in table.live(now_ns)}


def test_who_brings_most_gets_no_more_in_when_the_table_is_full(room: int) -> None:
    table = OfferTable()
    fill(table, 0, "theirs", 100, 3)
    assert fill(table, 1, "liar", 1_000, 50) == [True] * 9 + [False] * 41
    assert table.weigh(1, claim(2_000).name, 0, "liar") is Worth.NO_ROOM
    assert table.weigh(1, claim(2_000).name, 0, "theirs") is Worth.NEW
    assert fill(table, 2, "theirs", 200, 3) == [True] * 3
    assert live(table, 2) == {100, 101, 102, 200, 201, 202, 1_000, 1_001, 1_002, 1_003, 1_004, 1_005}
    assert fill(table, 3, "theirs", 300, 1) == [False], "half is theirs now"
    assert fill(table, 3, "new", 400, 1) == [True]
    assert len(table) == room


def test_the_own_offer_has_room_in_a_full_table_and_keeps_it(room: int) -> None:
    table = OfferTable()
    fill(table, 0, "liar", 1_000, 50)
    assert table.take(1, claim(1), None)
    fill(table, 2, "other", 2_000, 50)
    assert held(table, 2) is not None and len(table) == room


def test_who_is_only_remembered_goes_first(room: int) -> None:
    table = OfferTable()
    fill(table, 0, HERE, 100, 6)
    fill(table, 100 * SECOND_NS, HERE, 200, 6)
    table.expire(181 * SECOND_NS)
    assert fill(table, 181 * SECOND_NS, HERE, 300, 7) == [True] * 6 + [False]
    assert live(table, 181 * SECOND_NS) == {*range(200, 206), *range(300, 306)}


@pytest.mark.parametrize("seed", range(3))
def test_in_a_table_that_is_always_full_the_books_are_right_and_a_new_block_finds_room(seed: int, room: int) -> None:
    """Blocks of one, two and many identities; the one that brings least always finds room."""
    table, draws = OfferTable(), stream(seed, b"", "table")
    table.take(0, claim(0), None)
    now_ns = 0
    for _ in range(3_000):
        now_ns += draws.below(20 * SECOND_NS)
        block = ("one", "two", "many", "many", "many")[draws.below(5)]
        number = {"one": 1, "two": 10 + draws.below(2), "many": 100 + draws.below(50)}[block]
        table.take(now_ns, claim(number, seq=draws.below(1_000), ttl_s=1 + draws.below(180)), block)
        if draws.below(3) == 0:
            table.expire(now_ns)
        entries = table._entries
        blocks = Counter(entry.block for entry in entries.values() if entry.block is not None)
        dead = Counter(entry.block for entry in entries.values() if entry.claim is None and entry.block is not None)
        assert len(entries) <= room and list(table.providers()) == sorted(entries)
        assert (table._shares, table._dead) == (blocks, dead)
        assert table.weigh(now_ns, claim(999).name, 0, "nobody yet") is Worth.NEW


def test_two_claims_of_one_name_are_one_offer() -> None:
    assert claim(1, age_ms=1).name == claim(1, age_ms=2).name != claim(1, seq=2).name
    assert isinstance(claim(1), Claim)
