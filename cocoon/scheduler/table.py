"""The table of offers: the newest offer of each provider, as far as anybody can know without a clock in common.

Within one boot the sequence number orders a provider's offers. Between boots
nothing does, and old offers stay validly signed for ever; so another boot
takes the place of the present one only if the provider itself names it, as a
neighbour, or if the present one fell silent. A living provider never does.

Invariants
    Of one boot, a provider's offer is replaced by one with a higher number only.
    No offer is given out at an age of its time to live or more.
    An offer's age is counted from its first hearing; no later one makes it younger, and none older.
    There are at most ``GOSSIP_OFFERS`` providers; whose neighbours brought most of them loses one first.

Purity: pure. Spec: docs/spec/gossip.md, rules GOS-5 to GOS-11.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cocoon.core.ids import PeerKey
from cocoon.core.limits import (
    GOSSIP_BOOT_SILENCE_NS,
    GOSSIP_BOOTS,
    GOSSIP_HOP_NS,
    GOSSIP_MEMORY_NS,
    GOSSIP_OFFERS,
    GOSSIP_PARTS,
    OFFER_TTL_S,
)
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.core.values import Value
from cocoon.wire.messages import Offer

FIRST_KEY, LAST_KEY = bytes(32), bytes([0xFF]) * 32


class Claim(Value):
    """An offer as a frame brought it: whose it says it is, how old, and the bytes to pass on."""

    provider: PeerKey
    offer: Offer
    age_ms: int
    packed: bytes

    @property
    def name(self) -> tuple[PeerKey, bytes, int]:
        """What no two offers of an honest provider share."""
        return self.provider, self.offer.boot_id, self.offer.seq


class Worth(Enum):
    """What an offer is worth to a table."""

    NEW = "new"
    #: Known, older than what is known, too old, or of another boot while the present one lives.
    STALE = "stale"
    #: The table is full, and who brings it has his share.
    NO_ROOM = "no_room"


@dataclass(slots=True)
class _Entry:
    """One provider: its present boot with its newest number, and the offer itself while that lives."""

    #: Addresses of the neighbour that brought the provider; None for the own offer.
    block: str | None
    known_ns: int
    boot: bytes
    seq: int
    risen_ns: int
    born_ns: int
    dies_ns: int
    claim: Claim | None
    #: What the offer adds to the sum of its part.
    mark: int = 0
    #: Highest numbers of earlier boots, the latest last.
    past: dict[bytes, int] = field(default_factory=dict)


def worth_passing(age_ms: int, ttl_s: int) -> bool:
    """Whether a third of its life is left.

    By then a provider that still lives has made the next one. So whoever lies
    about an age hides no offer before its successor comes (GOS-7).
    """
    return 3 * age_ms <= 2_000 * ttl_s


@dataclass(slots=True)
class OfferTable:
    """Newest offers by provider."""

    _entries: dict[PeerKey, _Entry] = field(default_factory=dict)
    _ascending: list[PeerKey] = field(default_factory=list)
    #: Boot ids that neighbours said of themselves, over their authenticated connections.
    _said: dict[PeerKey, bytes] = field(default_factory=dict)
    #: Providers by who brought them; the own offer is not counted.
    _shares: Counter[str] = field(default_factory=Counter)
    #: Of these, providers that are only remembered.
    _dead: Counter[str] = field(default_factory=Counter)
    _sums: list[int] = field(default_factory=lambda: [0] * GOSSIP_PARTS)
    #: Nothing expires sooner.
    _expires_ns: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def knows(self, provider: PeerKey) -> bool:
        """Whether an offer of ``provider`` was taken, though it may be over."""
        return provider in self._entries

    def introduce(self, peer: PeerKey, boot: bytes) -> None:
        """A neighbour said which boot it is of."""
        self._said[peer] = boot

    def part(self, peer: PeerKey) -> None:
        """A neighbour left; whoever knows its boot from hearsay only goes by silence."""
        self._said.pop(peer, None)

    def weigh(
        self, now_ns: int, name: tuple[PeerKey, bytes, int], age_ms: int, block: str, ttl_s: int = OFFER_TTL_S
    ) -> Worth:
        """What the offer of this (provider, boot, seq) would be worth now.

        Args:
            block: Addresses of the neighbour that has it.
        """
        provider, boot, seq = name
        entry = self._entries.get(provider)
        if entry is not None and entry.boot == boot and seq <= entry.seq:
            return Worth.STALE                          # as most are: each comes from several neighbours
        if not worth_passing(age_ms, ttl_s) or self._said.get(provider, boot) != boot:
            return Worth.STALE
        if entry is None:
            return Worth.NEW if self._room(block) else Worth.NO_ROOM
        if entry.boot == boot:
            return Worth.NEW
        if seq <= entry.past.get(boot, -1):
            return Worth.STALE
        silent = now_ns - entry.risen_ns >= GOSSIP_BOOT_SILENCE_NS
        return Worth.NEW if silent or provider in self._said else Worth.STALE

    def take(self, now_ns: int, claim: Claim, block: str | None) -> bool:
        """Take a verified offer; False if it is worth nothing any more.

        Args:
            block: As in ``weigh``; None for this peer's own offer, which always has room.
        """
        offer = claim.offer
        ours = block is None
        if not ours and self.weigh(now_ns, claim.name, claim.age_ms, block or "", offer.ttl_s) is not Worth.NEW:
            return False
        born_ns = now_ns - claim.age_ms * MILLISECOND_NS - (0 if ours else GOSSIP_HOP_NS)
        fresh = _Entry(
            block, now_ns, offer.boot_id, offer.seq, now_ns, born_ns, born_ns + offer.ttl_s * SECOND_NS, claim,
            _mark(claim),
        )
        old = self._entries.get(claim.provider)
        if old is None:
            self._make_room(block)
            insort(self._ascending, claim.provider)
            self._shares.update([] if block is None else [block])
        else:
            self._leave(old)
            self._count_dead(old, -1)
            fresh.block, fresh.known_ns, fresh.past = old.block, old.known_ns, old.past
            if old.boot != offer.boot_id:
                _remember(fresh.past, old.boot, old.seq)
        self._entries[claim.provider] = fresh
        self._expires_ns = min(self._expires_ns, fresh.dies_ns)
        _add(self._sums, claim.provider, fresh.mark)
        return True

    def providers(self, first: bytes = FIRST_KEY, last: bytes = LAST_KEY) -> Sequence[PeerKey]:
        """All that are known or remembered, from ``first`` to ``last``, ascending."""
        return self._ascending[bisect_left(self._ascending, first) : bisect_right(self._ascending, last)]

    def live(self, now_ns: int, first: bytes = FIRST_KEY, last: bytes = LAST_KEY) -> list[Claim]:
        """Every offer that lives, of the providers from ``first`` to ``last``, ascending, with its age now."""
        entries = [self._entries[provider] for provider in self.providers(first, last)]
        return [
            _aged(entry.claim, now_ns - entry.born_ns)
            for entry in entries if entry.claim is not None and now_ns < entry.dies_ns
        ]

    def find(self, now_ns: int, provider: PeerKey) -> Claim | None:
        """The living offer of ``provider``, with its age now."""
        entry = self._entries.get(provider)
        if entry is None or entry.claim is None or now_ns >= entry.dies_ns:
            return None
        return _aged(entry.claim, now_ns - entry.born_ns)

    def expire(self, now_ns: int) -> None:
        """Drop offers whose life is over, and providers that were remembered for long enough."""
        if now_ns < self._expires_ns:
            return
        for provider, entry in list(self._entries.items()):
            if entry.claim is not None and now_ns >= entry.dies_ns:
                self._leave(entry)
                entry.claim = None
                self._count_dead(entry, 1)
            if now_ns >= entry.dies_ns + GOSSIP_MEMORY_NS:
                self._drop(provider)
        self._expires_ns = min((
            entry.dies_ns + (GOSSIP_MEMORY_NS if entry.claim is None else 0) for entry in self._entries.values()
        ), default=now_ns)

    def sums(self, counts: Callable[[Offer], bool] | None = None) -> tuple[int, ...]:
        """One sum for each of ``GOSSIP_PARTS`` equal parts of the keys, over the offers that ``counts`` takes, or all.

        Two tables with the same offers have the same sums, whatever the ages.
        """
        if counts is None:
            return tuple(self._sums)
        sums = [0] * GOSSIP_PARTS
        for provider, entry in self._entries.items():
            if entry.claim is not None and counts(entry.claim.offer):
                _add(sums, provider, entry.mark)
        return tuple(sums)

    # --- room --------------------------------------------------------------

    def _room(self, block: str) -> bool:
        """Whether a new provider from ``block`` could stay: another block has more, or it has a dead one to give."""
        return len(self._entries) < GOSSIP_OFFERS or self._largest(block) != block or self._dead[block] > 0

    def _largest(self, block: str | None) -> str:
        """The block that brought most providers, with a new one of ``block`` counted; of equal ones that one."""
        shares = self._shares + Counter([] if block is None else [block])
        return max(shares, key=lambda one: (shares[one], one == block, one))

    def _make_room(self, block: str | None) -> None:
        """In a full table one provider of the largest block goes.

        First one that is only remembered, then whoever came last. New identities
        cost nothing, so they push out neither older ones of their own block nor
        those that fewer were brought with (GOS-10).
        """
        if len(self._entries) < GOSSIP_OFFERS:
            return
        largest = self._largest(block)
        theirs = [(peer, entry) for peer, entry in self._entries.items() if entry.block == largest]
        dead = [(peer, entry) for peer, entry in theirs if entry.claim is None]
        if dead:
            self._drop(min(dead, key=lambda item: (item[1].dies_ns, item[0]))[0])
        else:
            self._drop(max(theirs, key=lambda item: (item[1].known_ns, item[0]))[0])

    def _drop(self, provider: PeerKey) -> None:
        entry = self._entries.pop(provider)
        self._leave(entry)
        del self._ascending[bisect_left(self._ascending, provider)]
        self._count_dead(entry, -1)
        if entry.block is not None:
            self._shares[entry.block] -= 1
            self._shares += Counter()       # forgets a block without providers

    def _leave(self, entry: _Entry) -> None:
        if entry.claim is not None:
            _add(self._sums, entry.claim.provider, -entry.mark)

    def _count_dead(self, entry: _Entry, by: int) -> None:
        if entry.claim is None and entry.block is not None:
            self._dead[entry.block] += by
            self._dead += Counter()


def part_keys(first: int, last: int) -> tuple[bytes, bytes]:
    """The lowest and the highest key of the parts from ``first`` to ``last``."""
    width = 256 // GOSSIP_PARTS
    return bytes([first * width]) + bytes(31), bytes([last * width + width - 1]) + bytes([0xFF]) * 31


def _mark(claim: Claim) -> int:
    provider, boot, seq = claim.name
    return int.from_bytes(hashlib.blake2b(provider + boot + seq.to_bytes(8, "big"), digest_size=8).digest(), "big")


def _add(sums: list[int], provider: bytes, mark: int) -> None:
    part = provider[0] * GOSSIP_PARTS >> 8
    sums[part] = (sums[part] + mark) % (1 << 64)


def _aged(claim: Claim, age_ns: int) -> Claim:
    age_ms = -(-age_ns // MILLISECOND_NS)               # ``ceil_div`` written out: for each offer of each comparison
    return Claim(claim.provider, claim.offer, age_ms, claim.packed)


def _remember(past: dict[bytes, int], boot: bytes, seq: int) -> None:
    """Keep the highest number of a boot that is over; of more than ``GOSSIP_BOOTS`` the oldest is forgotten."""
    past[boot] = max(seq, past.pop(boot, -1))
    while len(past) > GOSSIP_BOOTS:
        del past[next(iter(past))]
