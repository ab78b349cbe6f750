"""Standing offers (SCH-4, SCH-5)."""

from __future__ import annotations

from cocoon.core.limits import OFFER_REFRESH_NS, OFFER_SPACING_NS
from cocoon.scheduler.offers import GiveOffer, OfferAsked, SignOffer, StandingOffer


def test_a_standing_offer_is_signed_once_and_given_until_it_is_due_for_refresh() -> None:
    standing = StandingOffer()
    assert standing.handle(0, OfferAsked(queue=0)) == [SignOffer(1, 0)]
    assert standing.handle(OFFER_REFRESH_NS - 1, OfferAsked(queue=0)) == [GiveOffer(1)]
    assert standing.handle(OFFER_REFRESH_NS, OfferAsked(queue=0)) == [SignOffer(2, 0)]


def test_a_changed_queue_makes_a_new_offer_but_not_one_after_the_other() -> None:
    standing = StandingOffer()
    standing.handle(0, OfferAsked(queue=0))
    assert standing.handle(OFFER_SPACING_NS - 1, OfferAsked(queue=1)) == [GiveOffer(1)]
    assert standing.handle(OFFER_SPACING_NS, OfferAsked(queue=1)) == [SignOffer(2, 1)]
    assert standing.handle(OFFER_SPACING_NS + 1, OfferAsked(queue=2)) == [GiveOffer(2)]
