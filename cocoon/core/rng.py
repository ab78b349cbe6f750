"""Counter-based random streams for jitter and exploration, one per (seed, peer, purpose).

Never for keys, nonces, salts or ids: those come from the operating system
through the shell, as events.

Purity: pure. Spec: docs/spec/machines.md, rule MAC-5.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

#: A block holds eight draws.
_BLOCK = struct.Struct(">8Q")


@dataclass(slots=True)
class Stream:
    """Deterministic draws: block n is BLAKE2b(key = seed | peer | purpose, n), 64 bytes."""

    key: bytes
    #: Of the next block.
    counter: int = 0
    #: Of the last one, what is not drawn yet.
    _left: list[int] = field(default_factory=list)

    def bits64(self) -> int:
        """The next 64 uniform bits."""
        if not self._left:
            block = _keyed(self.key).copy()
            block.update(self.counter.to_bytes(8, "big"))
            self.counter += 1
            self._left += _BLOCK.unpack(block.digest())
        return self._left.pop()

    def below(self, bound: int) -> int:
        """A uniform integer in [0, bound), without modulo bias; ``bound`` in [1, 2**63]."""
        limit = (1 << 64) - (1 << 64) % bound
        while (draw := self.bits64()) >= limit:
            pass
        return draw % bound


@lru_cache(maxsize=4_096)
def _keyed(key: bytes) -> Any:
    """A hash that knows the key: a copy of it costs less than to begin anew. Not in the stream, which is plain data."""
    return hashlib.blake2b(key=key, digest_size=_BLOCK.size)


def stream(seed: int, peer: bytes, purpose: str) -> Stream:
    """Open the stream of one (seed, peer, purpose); equal arguments give equal draws."""
    material = seed.to_bytes(32, "big", signed=True) + len(peer).to_bytes(2, "big") + peer + purpose.encode()
    return Stream(hashlib.blake2b(material, digest_size=32, person=b"cocoon-rng").digest())
