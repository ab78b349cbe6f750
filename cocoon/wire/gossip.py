"""The messages of ``/cocoon/gossip/1``: offers that travel from neighbour to neighbour, many in one frame.

A summary says in a few hundred bytes whether two neighbours hold the same. Where
they do not, a digest lists *everything* that its sender holds between two keys, so
that its receiver knows as well what is missing there. A delta carries offers, each
with the age that everybody who passed it on has added to.

Purity: pure. Spec: docs/spec/gossip.md, rules GOS-1 to GOS-4.
"""

from __future__ import annotations

from cocoon.core.limits import GOSSIP_DELTA_OFFERS, GOSSIP_DIGEST_OFFERS, GOSSIP_KINDS, GOSSIP_PARTS
from cocoon.wire.messages import BOOT_ID, KEY, KIND, Offer
from cocoon.wire.schema import Message, field, message
from cocoon.wire.types import U32, U64, Each, Row, UpTo


@message(kind=60, version=1, name="interest")
class Interest(Message):
    """First frame in either direction: the kinds of tasks whose offers the sender wants."""

    kinds: tuple[str, ...] = field(1, Each(KIND, most=GOSSIP_KINDS))

    def flaw(self) -> str | None:
        """Kinds are a set, so they have one order."""
        if list(self.kinds) != sorted(set(self.kinds)):
            return "kinds are not in ascending order, each once"
        return None


@message(kind=61, version=1, name="offer_digest")
class OfferDigest(Message):
    """All that the sender holds of providers from key ``first`` to ``last``, as far as the receiver wants it."""

    first: bytes = field(1, KEY)
    last: bytes = field(2, KEY)
    #: (provider, boot id, seq, age in ms), ascending by provider.
    held: tuple[tuple[bytes, bytes, int, int], ...] = field(
        3, Each(Row(KEY, BOOT_ID, U64, U32), most=GOSSIP_DIGEST_OFFERS)
    )

    def flaw(self) -> str | None:
        """The lines ascend, and stand between the ends."""
        providers = [line[0] for line in self.held]
        if providers != sorted(set(providers)):
            return "providers are not in ascending order, each once"
        if self.first > self.last or (providers and not self.first <= providers[0] <= providers[-1] <= self.last):
            return "a provider is not between the first and the last key"
        return None


@message(kind=62, version=1, name="offer_delta")
class OfferDelta(Message):
    """Offers that the receiver may not have: (age in ms, signed offer)."""

    offers: tuple[tuple[int, bytes], ...] = field(
        1, Each(Row(U32, UpTo(Offer.shape.max_bytes)), most=GOSSIP_DELTA_OFFERS, least=1)
    )


@message(kind=63, version=1, name="offer_want")
class OfferWant(Message):
    """Answer to a digest: send me your offers of these providers."""

    providers: tuple[bytes, ...] = field(1, Each(KEY, most=GOSSIP_DELTA_OFFERS, least=1))


@message(kind=64, version=1, name="offer_summary")
class OfferSummary(Message):
    """What the sender holds, as far as the receiver wants it, in one sum for each part of the keys (GOS-17)."""

    sums: tuple[int, ...] = field(1, Each(U64, most=GOSSIP_PARTS, least=GOSSIP_PARTS))
