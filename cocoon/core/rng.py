"""Counter-based random streams for jitter and exploration, one per (seed, peer, purpose).

Never for keys, nonces, salts or ids: those come from the operating system
through the shell, as events.

Purity: pure. Spec: docs/spec/machines.md, rule MAC-5.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

_WORDS = 8
_UNPACKED = struct.Struct(f">{_WORDS}Q").unpack


@dataclass(slots=True)
class Stream:
    """Deterministic draws: number n is word n mod 8 of block n div 8, BLAKE2b(key = seed | peer | purpose, n div 8)."""

    key: bytes
    counter: int = 0
    #: Of the block that the last draw was from.
    _words: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)

    def bits64(self) -> int:
        """The next 64 uniform bits."""
        place = self.counter % _WORDS
        if not place or not self._words:
            self._words = _block(self.key, self.counter // _WORDS)
        self.counter += 1
        return self._words[place]

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), without modulo bias; ``bound`` in [1, 2**63]."""
        limit = (1 << 64) - (1 << 64) % bound
        while (draw := self.bits64()) >= limit:
            pass
        return draw % bound


def _block(key: bytes, number: int) -> tuple[int, ...]:
    """Eight draws at the price of one and a half."""
    return _UNPACKED(hashlib.blake2b(number.to_bytes(8, "big"), key=key).digest())


def stream(seed: int, peer: bytes, purpose: str) -> Stream:
    """Open the stream of one (seed, peer, purpose); equal arguments give equal draws."""
    material = seed.to_bytes(32, "big", signed=True) + len(peer).to_bytes(2, "big") + peer + purpose.encode()
    return Stream(hashlib.blake2b(material, digest_size=32, person=b"cocoon-rng").digest())
