"""Messages of the market: call, bid, decline, result.

One stream `/cocoon/call/1` carries any number of calls from one requester to
one provider; every answer names the digest of its call. The award is the lease
itself, which names the digest of the bid.

Purity: pure. Spec: docs/spec/messages.md, rule MSG-12; auction.md.
"""

from __future__ import annotations

from cocoon.core.limits import BID_BYTES
from cocoon.wire.messages import CODE, HASH, KIND, PRICES, TEXT, KeyBundle, Offer, Profile, prices_flaw
from cocoon.wire.schema import Message, field, message
from cocoon.wire.types import U8, U32, U64, Exactly, Flag, UpTo
from cocoon.wire.widths import LEASE_NONCE_BYTES

#: A private model is not named to those who only bid.
NO_MODEL = bytes(32)


@message(kind=70, version=1, name="call")
class Call(Message):
    """What do you bid for this? Never the ceiling: in a first-price auction it would tell every bidder what to ask."""

    network: bytes = field(1, HASH)
    nonce: bytes = field(2, Exactly(LEASE_NONCE_BYTES))
    kind: str = field(3, KIND)
    model: bytes = field(4, HASH)
    model_bytes: int = field(5, U64)
    units: int = field(6, U32)
    deadline_ms: int = field(7, U32)
    tier: int = field(8, U8)

    def flaw(self) -> str | None:
        """A call is for something."""
        return None if self.units and self.deadline_ms else "a call for nothing, or for a time that is over"


@message(kind=71, version=1, name="bid", signed_by="provider", max_body_bytes=BID_BYTES)
class Bid(Message):
    """The prices that a lease would have, and when its runs would be done: as measured, not as hoped.

    ``start_ms`` is from the award to the first run, ``run_us`` a unit after that; 0 was never measured.
    """

    network: bytes = field(1, HASH)
    call: bytes = field(2, HASH)
    offer: bytes = field(3, HASH)
    setup_nanoton: int = field(4, U64)
    prices: tuple[tuple[int, int], ...] = field(5, PRICES)
    start_ms: int = field(6, U32)
    run_us: int = field(7, U64)
    warm: bool = field(8, Flag())

    def flaw(self) -> str | None:
        """Prices have one order."""
        return prices_flaw(self.prices)


@message(kind=72, version=1, name="bid_reply")
class BidReply(Message):
    """A signed bid for the call of this digest, with the offer that it names and the bodies that the offer names."""

    call: bytes = field(1, HASH)
    bid: bytes = field(2, UpTo(Bid.shape.max_bytes))
    offer: bytes = field(3, UpTo(Offer.shape.max_bytes))
    keys: bytes = field(4, UpTo(KeyBundle.shape.max_bytes))
    profile: bytes = field(5, UpTo(Profile.shape.max_bytes))


@message(kind=73, version=1, name="decline")
class Decline(Message):
    """No bid for the call of this digest."""

    call: bytes = field(1, HASH)
    code: str = field(2, CODE)
    text: str = field(3, TEXT)


@message(kind=74, version=1, name="call_result")
class CallResult(Message):
    """Why this bid did not win, in bands, so that nobody reads a rival's bid.

    ``dearer_percent`` is 0 for a bid that was no dearer than the best, else the band that it fell into: up to 5, 10,
    25 or 50 per cent, or 100 for more. The flags say what else counted against it.
    """

    call: bytes = field(1, HASH)
    dearer_percent: int = field(2, U8)
    cold: bool = field(3, Flag())
    slower: bool = field(4, Flag())
    less_reliable: bool = field(5, Flag())
