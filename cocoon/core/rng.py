"""Counter-based random streams for jitter and exploration, one per (seed, peer, purpose).

Never for keys, nonces, salts or ids: those come from the operating system
through the shell, as events.

Purity: pure. Spec: docs/spec/machines.md, rule MAC-5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(slots=True)
class Stream:
    """Deterministic draws: block n is BLAKE2b(key = seed | peer | purpose, n)."""

    key: bytes
    counter: int = 0

    def bits64(self) -> int:
        """The next 64 uniform bits."""
        block = _keyed(self.key).copy()
        block.update(self.counter.to_bytes(8, "big"))
        self.counter += 1
        return int.from_bytes(block.digest(), "big")

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), without modulo bias; ``bound`` in [1, 2**63]."""
        limit = (1 << 64) - (1 << 64) % bound
        while (draw := self.bits64()) >= limit:
            pass
        return draw % bound


@lru_cache(maxsize=4_096)
def _keyed(key: bytes) -> Any:
    """A hash that knows the key: a copy of it costs less than to begin anew. Not in the stream, which is plain data."""
    return hashlib.blake2b(key=key, digest_size=8)


def stream(seed: int, peer: bytes, purpose: str) -> Stream:
    """Open the stream of one (seed, peer, purpose); equal arguments give equal draws."""
    material = seed.to_bytes(32, "big", signed=True) + len(peer).to_bytes(2, "big") + peer + purpose.encode()
    return Stream(hashlib.blake2b(material, digest_size=32, person=b"cocoon-rng").digest())
