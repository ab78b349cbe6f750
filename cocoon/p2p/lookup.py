"""One iterative Kademlia look-up: whom to ask next, and when it is over.

The library's own look-up forgets what it found when its time is up, and it
answers from its cache of 48 hours. This one keeps every partial answer, asks
each peer at most once and never stops at the local store.

Purity: pure. Spec: docs/spec/p2p.md, rule P2P-4; Maymounkov and Mazieres 2002, section 2.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from cocoon.core.ids import PeerKey
from cocoon.core.limits import ADDRESSES_PER_PEER, DHT_CLOSEST, DHT_PARALLEL, DHT_SEEN
from cocoon.p2p.addresses import Address

# Identity multihash of a libp2p Ed25519 key, as in core.ids: this form is hashed into the key space.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")


def node_key(peer: PeerKey) -> bytes:
    """The key to which ``peer`` itself is the nearest node."""
    return _PEER_ID_PREFIX + peer


def distance(key: bytes, peer: PeerKey) -> int:
    """XOR distance of SHA-256(key) and SHA-256(peer id), as every libp2p node computes it."""
    here = hashlib.sha256(node_key(peer)).digest()
    return int.from_bytes(hashlib.sha256(key).digest(), "big") ^ int.from_bytes(here, "big")


@dataclass(slots=True)
class Lookup:
    """Peers near ``key``, nearest first; ``self_key`` is never asked nor returned."""

    key: bytes
    self_key: PeerKey
    asked: set[PeerKey] = field(default_factory=set)
    answered: set[PeerKey] = field(default_factory=set)
    in_flight: set[PeerKey] = field(default_factory=set)
    hints: dict[PeerKey, tuple[Address, ...]] = field(default_factory=dict)
    providers: dict[PeerKey, tuple[Address, ...]] = field(default_factory=dict)

    def learn(self, peers: Iterable[tuple[PeerKey, tuple[Address, ...]]]) -> None:
        """Add candidates, at most ``DHT_SEEN`` in all; new addresses replace old ones unless empty."""
        for peer, addresses in peers:
            if peer == self.self_key or (peer not in self.hints and len(self.hints) >= DHT_SEEN):
                continue
            if addresses or peer not in self.hints:
                self.hints[peer] = addresses

    def found(self, providers: Iterable[tuple[PeerKey, tuple[Address, ...]]]) -> list[PeerKey]:
        """Record providers; return those worth dialling: not seen before, or at an address not seen before.

        The library names some twice, and a liar may have named one first, at a false address.
        """
        new: list[PeerKey] = []
        for peer, addresses in providers:
            had = self.providers.get(peer)
            if peer == self.self_key or (had is None and len(self.providers) >= DHT_SEEN):
                continue
            self.providers[peer] = tuple(dict.fromkeys([*(had or ()), *addresses]))[:ADDRESSES_PER_PEER]
            if (had is None or self.providers[peer] != had) and peer not in new:
                new.append(peer)
        return new

    def next_peers(self) -> list[PeerKey]:
        """Peers to ask now, nearest first, so that at most ``DHT_PARALLEL`` questions are open."""
        room = DHT_PARALLEL - len(self.in_flight)
        chosen = [p for p in self.nearest() if p not in self.asked][: max(room, 0)]
        self.asked.update(chosen)
        self.in_flight.update(chosen)
        return chosen

    def answer(self, peer: PeerKey) -> None:
        """``peer`` replied."""
        self.in_flight.discard(peer)
        self.answered.add(peer)

    def silence(self, peer: PeerKey) -> None:
        """``peer`` could not be asked, or did not reply: it makes room for the next nearest."""
        self.in_flight.discard(peer)

    def nearest(self) -> list[PeerKey]:
        """The ``DHT_CLOSEST`` nearest peers that have not failed."""
        live = [p for p in self.hints if p not in self.asked or p in self.in_flight or p in self.answered]
        return sorted(live, key=lambda p: distance(self.key, p))[:DHT_CLOSEST]

    def done(self) -> bool:
        """Nobody is left to ask, and no question is open."""
        return not self.in_flight and all(p in self.asked for p in self.nearest())
