"""Rounds: who is asked, and how a gathering of offers ends (SCH-6); the rounds of auctions are in test_auction.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey
from cocoon.core.limits import OFFER_NS, PROVIDERS_ASKED
from cocoon.core.machine import DeadlinePassed
from cocoon.scheduler.round import AskPeer, QuoteMissed, QuoteReceived, Round, RoundBegan, RoundEnded
from cocoon.scheduler.selection import Missed
from tests.unit.scheduler.builders import quote

PEERS = tuple(PeerKey(bytes([n]) * 32) for n in range(1, 20))


def gathering(*peers: PeerKey) -> RoundBegan:
    return RoundBegan(peers, OFFER_NS, OFFER_NS)


def test_at_most_eight_sellers_are_asked_each_once() -> None:
    assert Round().handle(0, gathering(*PEERS, *PEERS)) == [AskPeer(peer) for peer in PEERS[:PROVIDERS_ASKED]]


def test_without_sellers_it_ends_at_once() -> None:
    assert Round().handle(0, gathering()) == [RoundEnded((), ())]


def test_silent_sellers_are_missed_at_the_end_of_its_patience() -> None:
    asked = Round()
    asked.handle(0, gathering(*PEERS[:2]))
    assert asked.handle(5, QuoteReceived(quote(PEERS[0]))) == [] and asked.deadline_ns() == OFFER_NS
    assert asked.handle(OFFER_NS - 1, DeadlinePassed()) == []
    assert asked.handle(OFFER_NS, DeadlinePassed()) == [
        RoundEnded((quote(PEERS[0]),), (Missed(PEERS[1], "unreachable"),))
    ]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_it_ends_exactly_once_whatever_arrives_twice_or_unasked(script: list[tuple[bool, int]]) -> None:
    asked, ended = Round(), 0
    asked.handle(0, gathering(*PEERS[:6]))
    for arrived, who in script:
        event = QuoteReceived(quote(PEERS[who])) if arrived else QuoteMissed(Missed(PEERS[who], "unreachable"))
        ended += len(asked.handle(1, event))
    ended += len(asked.handle(OFFER_NS, DeadlinePassed()))
    ended += len(asked.handle(OFFER_NS, DeadlinePassed()))
    assert ended == 1
    assert asked.deadline_ns() is None
