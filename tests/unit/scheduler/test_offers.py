"""Standing offers and their gathering (SCH-4 to SCH-7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.ids import PeerKey
from cocoon.core.limits import OFFER_NS, OFFER_REFRESH_NS, PROVIDERS_ASKED
from cocoon.core.machine import DeadlinePassed
from cocoon.scheduler.offers import (
    AskOffer,
    Gathering,
    GatheringEnded,
    GiveOffer,
    OfferAsked,
    OfferMissed,
    OfferReceived,
    SellersFound,
    SignOffer,
    StandingOffer,
)
from cocoon.scheduler.selection import Missed
from tests.unit.scheduler.builders import quote

PEERS = tuple(PeerKey(bytes([n]) * 32) for n in range(1, 20))


def test_a_standing_offer_is_signed_once_and_given_until_it_is_due_for_refresh() -> None:
    standing = StandingOffer()
    assert standing.handle(0, OfferAsked(queue=0)) == [SignOffer(1, 0)]
    assert standing.handle(OFFER_REFRESH_NS - 1, OfferAsked(queue=0)) == [GiveOffer(1)]
    assert standing.handle(OFFER_REFRESH_NS, OfferAsked(queue=0)) == [SignOffer(2, 0)]


def test_a_changed_queue_makes_a_new_offer() -> None:
    standing = StandingOffer()
    standing.handle(0, OfferAsked(queue=0))
    assert standing.handle(1, OfferAsked(queue=1)) == [SignOffer(2, 1)]


def test_at_most_eight_sellers_are_asked_each_once() -> None:
    effects = Gathering().handle(0, SellersFound((*PEERS, *PEERS)))
    assert effects == [AskOffer(peer) for peer in PEERS[:PROVIDERS_ASKED]]


def test_without_sellers_the_gathering_ends_at_once() -> None:
    assert Gathering().handle(0, SellersFound(())) == [GatheringEnded((), ())]


def test_silent_sellers_are_missed_at_the_deadline() -> None:
    gathering = Gathering()
    gathering.handle(0, SellersFound(PEERS[:2]))
    gathering.handle(5, OfferReceived(quote(PEERS[0])))
    assert gathering.handle(OFFER_NS - 1, DeadlinePassed()) == []
    assert gathering.handle(OFFER_NS, DeadlinePassed()) == [
        GatheringEnded((quote(PEERS[0]),), (Missed(PEERS[1], "unreachable"),))
    ]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_a_gathering_ends_exactly_once_whatever_arrives_twice_or_unasked(script: list[tuple[bool, int]]) -> None:
    gathering, ended = Gathering(), 0
    gathering.handle(0, SellersFound(PEERS[:6]))
    for arrived, who in script:
        event = OfferReceived(quote(PEERS[who])) if arrived else OfferMissed(Missed(PEERS[who], "unreachable"))
        ended += len(gathering.handle(1, event))
    ended += len(gathering.handle(OFFER_NS, DeadlinePassed()))
    ended += len(gathering.handle(OFFER_NS, DeadlinePassed()))
    assert ended == 1
    assert gathering.deadline_ns() is None
