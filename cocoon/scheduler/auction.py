"""An auction: a requester calls for bids, once, and takes the best.

Sealed and first-price: each bidder is asked by itself, answers once, and the
winner gets what it bid. With the buyer as auctioneer a second price could be
forged by a shill; a first price cannot. It is a round (``round.py``) whose
patience follows from its bidders; who is taken is in ``award.py``.

Purity: pure. Spec: docs/spec/auction.md, rules AUC-1 to AUC-3.
"""

from __future__ import annotations

from collections.abc import Sequence

from cocoon.core.ids import PeerKey
from cocoon.core.limits import AUCTION_MOST_NS, AUCTION_SOONEST_NS, PROVIDERS_ASKED, ROUND_TRIP_UNKNOWN_NS
from cocoon.core.values import Value
from cocoon.scheduler.round import RoundBegan
from cocoon.scheduler.selection import Terms, expected_cost_nanoton


class Bidder(Value):
    """Who is called.

    Attributes:
        round_trip_ns: The last one that was measured, None if none was.
        offer: The last one that it gave, if any.
    """

    peer: PeerKey
    round_trip_ns: int | None
    offer: Terms | None = None


def call_for_bids(bidders: Sequence[Bidder], runs: int) -> RoundBegan:
    """The round of one auction among the first ``PROVIDERS_ASKED`` of ``bidders``; may be empty.

    It waits twice the slowest round trip, within bounds: so one far bidder costs no more than it costs itself.
    Nobody is waited for beyond ``AUCTION_SOONEST_NS`` who is far, as measured, and asks no less than a bid.
    """
    called = {bidder.peer: bidder for bidder in bidders[:PROVIDERS_ASKED]}
    slowest_ns = max((
        ROUND_TRIP_UNKNOWN_NS if bidder.round_trip_ns is None else bidder.round_trip_ns for bidder in called.values()
    ), default=0)
    patience_ns = min(max(2 * slowest_ns, AUCTION_SOONEST_NS), AUCTION_MOST_NS)
    asks = {
        peer: expected_cost_nanoton(bidder.offer, runs) for peer, bidder in called.items()
        if bidder.offer is not None and bidder.round_trip_ns is not None
    }
    return RoundBegan(tuple(called), patience_ns, AUCTION_MOST_NS, AUCTION_SOONEST_NS, runs, asks)
