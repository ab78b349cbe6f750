"""What is remembered of providers, and how it fades (SCH-21, SCH-22)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import from_code, from_peer, wrong
from cocoon.core.ids import PeerKey
from cocoon.core.limits import REPUTATION_HALF_LIFE_NS, REPUTATIONS
from cocoon.core.units import PPM
from cocoon.scheduler.reputation import Outcome, OutcomeSeen, Reputation, Standing, outcome_of
from cocoon.scheduler.selection import AllAboveCeiling, Demand, Ranked, rank
from tests.unit.scheduler.builders import quote

ONE, TWO = (PeerKey(bytes([number]) * 32) for number in (1, 2))
DAY_NS = REPUTATION_HALF_LIFE_NS // 7
events = st.lists(st.tuples(st.integers(0, 3 * DAY_NS), st.sampled_from(Outcome)), max_size=30)


def seen(*outcomes: Outcome, provider: PeerKey = ONE, at_ns: int = 0) -> Reputation:
    made = Reputation()
    for outcome in outcomes:
        made.handle(at_ns, OutcomeSeen(provider, outcome, "" if outcome is Outcome.KEPT else "provider_lost"))
    return made


def reliability(*outcomes: Outcome) -> int:
    return seen(*outcomes).standing(0, ONE).reliability_ppm


def test_a_stranger_has_the_benefit_of_the_doubt_and_no_record() -> None:
    stranger = Reputation().standing(0, ONE)
    assert stranger.reliability_ppm == 9 * PPM // 10
    assert stranger.reason() == "nothing known lately"


def test_kept_leases_help_lost_ones_hurt_and_a_lie_hurts_most() -> None:
    assert reliability(Outcome.KEPT) > reliability() > reliability(Outcome.LOST) > reliability(Outcome.LIED)
    assert reliability(*[Outcome.LOST] * 7) > reliability(Outcome.LIED) > reliability(*[Outcome.LOST] * 9)


def test_what_was_seen_can_be_read() -> None:
    made = seen(Outcome.KEPT, Outcome.KEPT, Outcome.LOST)
    standing = made.standing(5, ONE)
    assert standing.reason() == "2 kept, 1 lost, last by provider_lost" and standing.last_age_ns == 5


def test_after_a_half_life_half_of_it_is_left_and_in_the_end_nothing() -> None:
    made = seen(*[Outcome.LOST] * 8)
    assert made.standing(0, ONE).lost == 8
    assert made.standing(REPUTATION_HALF_LIFE_NS, ONE).lost in (3, 4)
    forgotten = made.standing(40 * REPUTATION_HALF_LIFE_NS, ONE)
    assert (forgotten.lost, forgotten.reliability_ppm) == (0, Reputation().standing(0, TWO).reliability_ppm)


def test_what_an_earlier_life_saw_weighs_as_if_it_were_remembered_all_the_time() -> None:
    """Its facts lie before this process began, at times below zero."""
    now_ns = 3 * DAY_NS
    lived = seen(Outcome.LOST, Outcome.KEPT)
    restored = seen(Outcome.LOST, Outcome.KEPT, at_ns=-now_ns)
    assert restored.standing(0, ONE) == lived.standing(now_ns, ONE)


@given(events)
def test_only_its_own_outcomes_move_a_provider(history: list[tuple[int, Outcome]]) -> None:
    made, now_ns = Reputation(), 0
    before = made.standing(0, TWO)
    for step_ns, outcome in history:
        now_ns += step_ns
        last = made.standing(now_ns, ONE).reliability_ppm
        made.handle(now_ns, OutcomeSeen(ONE, outcome, "x"))
        after = made.standing(now_ns, ONE).reliability_ppm
        assert 0 < after <= PPM
        assert after >= last if outcome is Outcome.KEPT else after < last
    assert made.standing(now_ns, TWO) == before


def test_the_table_is_bounded_and_forgets_whom_least_is_known_of() -> None:
    made = seen(Outcome.LIED)
    for number in range(2, REPUTATIONS + 2):
        provider = PeerKey(number.to_bytes(32, "big"))
        for _ in range(2):
            made.handle(number, OutcomeSeen(provider, Outcome.KEPT, ""))
    assert made.standing(REPUTATIONS + 2, ONE).lied == 0, "one lie is less than two leases"
    newest = PeerKey((REPUTATIONS + 2).to_bytes(32, "big"))
    made.handle(REPUTATIONS + 3, OutcomeSeen(newest, Outcome.LOST, "x"))
    assert made.standing(REPUTATIONS + 3, newest).lost == 1


# --- what it is for ----------------------------------------------------------


def ranked(standing: dict[PeerKey, int], one: int, two: int, ceiling: int = 1_000) -> list[PeerKey]:
    verdict = rank(
        [quote(ONE, setup_nanoton=one), quote(TWO, setup_nanoton=two)],
        Demand(kind="infer", model_bytes=10, runs=1, ceiling_nanoton=ceiling), lambda who: standing.get(who, PPM),
    )
    assert isinstance(verdict, Ranked)
    return [one.provider for one in verdict.quotes]


def test_an_unreliable_seller_is_taken_only_if_it_is_cheaper_by_as_much() -> None:
    half = {ONE: PPM // 2}
    assert ranked(half, one=100, two=199) == [TWO, ONE]
    assert ranked(half, one=100, two=201) == [ONE, TWO]
    assert ranked(half, one=0, two=0) == [TWO, ONE], "also where nobody asks anything"


def test_the_ceiling_is_for_what_is_paid() -> None:
    assert ranked({ONE: 1}, one=100, two=101, ceiling=100) == [ONE]
    verdict = rank([quote(ONE, setup_nanoton=101)], Demand("infer", 10, 1, 100), lambda _: 1)
    assert verdict == AllAboveCeiling(101, 100)


def test_a_standing_without_a_fault_names_none() -> None:
    assert Standing(PPM, kept=3).reason() == "3 kept"


def test_bids_that_were_not_kept_weigh_a_quarter_of_a_lost_lease() -> None:
    four, lost = seen(*[Outcome.REFUSED] * 4), seen(Outcome.LOST)
    assert four.standing(0, ONE).reliability_ppm == lost.standing(0, ONE).reliability_ppm
    assert seen(Outcome.REFUSED).standing(0, ONE).reliability_ppm > lost.standing(0, ONE).reliability_ppm
    assert four.standing(0, ONE).reason() == "4 bids refused, last by provider_lost"


@pytest.mark.parametrize(("code", "outcome"), [
    ("provider_lost", Outcome.LOST), ("worker_lost", Outcome.LOST), ("receipt_missing", Outcome.LOST),
    ("bad_signature", Outcome.LIED), ("out_of_order", Outcome.LIED), ("busy", None), ("chain_unreachable", None),
    ("released", None), ("unreachable", None),
])
def test_what_an_error_says_of_a_provider(code: str, outcome: Outcome | None) -> None:
    assert outcome_of(from_code(code, "")) is outcome
    assert outcome_of(wrong("price", "")) is Outcome.LIED


def test_a_provider_that_missed_our_countersignature_is_no_liar() -> None:
    """A cut shorter than the heartbeats' patience kept it back; the simulator found it (seed 3 of all_faults)."""
    assert outcome_of(from_peer("receipt_unsettled", "8 runs wait for a countersignature")) is None
