"""What the signer lets out of the wallet in an hour and in a day (WAL-9, WAL-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import CapExceeded, ClockSkewed, Corrupt, UsageError
from cocoon.core.limits import SIGNATURE_LIFE_S, SIGNATURES_PER_DAY
from cocoon.ledger.signer.caps import (
    DAY_S,
    FILE_BYTES,
    HOUR_S,
    Caps,
    Entry,
    Spent,
    pack_spent,
    unpack_spent,
)

CAPS = Caps(hour_nanoton=100, day_nanoton=250)
NOW = 1_800_000_000
LIFE = 120


def entry(seqno: int, value: int, now_s: int = NOW, life_s: int = LIFE) -> Entry:
    return Entry(1, seqno, value, now_s + life_s)


def test_the_cap_of_the_hour_may_be_reached_and_not_passed():
    spent = Spent().add(CAPS, NOW, entry(0, 60)).add(CAPS, NOW, entry(1, 40))
    with pytest.raises(CapExceeded, match="wallet_hour_nanoton"):
        spent.add(CAPS, NOW, entry(2, 1))


def test_the_cap_of_the_day_holds_over_many_hours():
    spent = Spent()
    for hour in range(2):
        now = NOW + hour * 2 * HOUR_S
        spent = spent.add(CAPS, now, entry(hour, 100, now))
    now = NOW + 4 * HOUR_S
    with pytest.raises(CapExceeded, match="wallet_day_nanoton"):
        spent.add(CAPS, now, entry(2, 51, now))
    later = NOW + DAY_S + LIFE
    assert spent.add(CAPS, later, entry(2, 100, later)).within(later, DAY_S) == 200


def test_a_signature_counts_until_its_valid_until_is_an_hour_ago():
    """It may be executed at its last second; an hour's cap must hold for the hour after that."""
    spent = Spent().add(CAPS, NOW, entry(0, 100))
    now = NOW + LIFE + HOUR_S
    with pytest.raises(CapExceeded):
        spent.add(CAPS, now - 1, entry(1, 1, now - 1))
    assert spent.add(CAPS, now, entry(1, 100, now)).within(now, HOUR_S) == 100


def test_of_one_sequence_number_only_the_larger_amount_counts():
    spent = Spent().add(CAPS, NOW, entry(0, 30)).add(CAPS, NOW, entry(0, 80)).add(CAPS, NOW, entry(0, 10))
    assert spent.within(NOW, HOUR_S) == 80
    assert len(spent.entries) == 1


def test_one_sequence_number_of_two_wallets_counts_twice():
    spent = Spent().add(CAPS, NOW, Entry(1, 0, 60, NOW + 1))
    with pytest.raises(CapExceeded):
        spent.add(CAPS, NOW, Entry(2, 0, 60, NOW + 1))


@pytest.mark.parametrize("life_s", [0, -5, SIGNATURE_LIFE_S + 1, 10**9])
def test_no_signature_outlives_its_bound(life_s):
    with pytest.raises(ClockSkewed, match=str(life_s)):
        Spent().add(CAPS, NOW, entry(0, 1, life_s=life_s))


def test_a_clock_that_goes_back_frees_nothing():
    spent = Spent().add(CAPS, NOW, entry(0, 100))
    past = NOW - 10 * DAY_S
    with pytest.raises(ClockSkewed):  # its valid-until is past by the newest time ever seen
        spent.add(CAPS, past, entry(1, 100, past))
    with pytest.raises(CapExceeded):
        spent.add(CAPS, past, entry(1, 100, NOW))


def test_too_many_signatures_are_refused_before_they_fill_the_file():
    spent = Spent(tuple(Entry(1, n, 0, NOW + 1) for n in range(SIGNATURES_PER_DAY)), NOW)
    with pytest.raises(CapExceeded, match=str(SIGNATURES_PER_DAY)):
        spent.add(CAPS, NOW, entry(SIGNATURES_PER_DAY, 0))
    full = Spent(tuple(Entry(2**32 - 1, n, 2**63, 2**32 - 1) for n in range(SIGNATURES_PER_DAY)), NOW)
    assert len(pack_spent(full)) <= FILE_BYTES


def test_a_day_below_its_hour_is_no_pair_of_caps():
    with pytest.raises(UsageError):
        Caps(2, 1)


requests = st.tuples(st.integers(0, 5), st.integers(0, 120), st.integers(0, 4_000), st.integers(1, 600))
u32 = st.integers(0, 2**32 - 1)


@given(st.lists(requests, max_size=40))
def test_no_hour_ever_sees_more_than_its_cap_whatever_is_asked_and_whenever_it_is_executed(asked):
    """Execution is chosen by an enemy: any time from signature to valid-until, each number once."""
    spent, now, signed = Spent(), NOW, {}
    for seqno, value, passes_s, life_s in asked:
        now += passes_s
        try:
            spent = spent.add(CAPS, now, Entry(1, seqno, value, now + life_s))
        except CapExceeded:
            continue
        signed.setdefault(seqno, []).append((value, now, now + life_s))
    ends = [until for runs in signed.values() for _, _, until in runs]
    for end in ends:
        worst = 0
        for runs in signed.values():
            inside = [value for value, begun, until in runs if begun <= end and until > end - HOUR_S]
            worst += max(inside, default=0)
        assert worst <= CAPS.hour_nanoton


@given(st.lists(st.builds(Entry, u32, u32, st.integers(0, 2**63), u32), max_size=5))
def test_what_was_spent_reads_back(entries):
    spent = Spent(tuple(entries), NOW)
    assert unpack_spent(pack_spent(spent)) == spent


@given(st.data())
def test_a_damaged_account_is_refused(data):
    packed = pack_spent(Spent((entry(0, 5),), NOW))
    at = data.draw(st.integers(0, len(packed) - 1))
    flipped = packed[:at] + bytes((packed[at] ^ data.draw(st.integers(1, 255)),)) + packed[at + 1 :]
    for bad in (flipped, packed[:at], b""):
        with pytest.raises(Corrupt):
            unpack_spent(bad)
