"""How much the wallet may send in an hour and in a day.

A signature counts from when it is made until its valid-until is an hour (a day)
ago, because until then it may have been executed within the last hour (day). Of
two signatures over one sequence number only one can be executed: the larger counts.

Purity: pure. Spec: docs/spec/wallet.md, rules WAL-9 and WAL-10.
"""

from __future__ import annotations

import hashlib

from cocoon.core.errors import CapExceeded, ClockSkewed, CocoonError, Corrupt, UsageError
from cocoon.core.limits import SIGNATURE_LIFE_S, SIGNATURES_PER_DAY
from cocoon.core.units import format_nanoton
from cocoon.core.values import Value, replace
from cocoon.wire.codec import decode, encode

HOUR_S = 3_600
DAY_S = 86_400
FILE_BYTES = SIGNATURES_PER_DAY * 32 + 64
_MAGIC = b"cocoon-caps-1\n"
_CHECK_BYTES = 8


class Caps(Value):
    """Most that may leave the wallet, nanoton; fees come on top."""

    hour_nanoton: int
    day_nanoton: int

    def __post_init__(self) -> None:
        if not 0 <= self.hour_nanoton <= self.day_nanoton:
            raise UsageError(f"the cap of an hour ({self.hour_nanoton}) is at most that of a day ({self.day_nanoton})")


class Entry(Value):
    """What one sequence number of one wallet may send, and until when."""

    wallet_id: int
    seqno: int
    value_nanoton: int
    valid_until_s: int


class Spent(Value):
    """The signatures of the last day, oldest first, and the newest time the signer has seen."""

    entries: tuple[Entry, ...] = ()
    seen_s: int = 0

    def within(self, now_s: int, window_s: int) -> int:
        """Nanoton that may have left in the ``window_s`` before now."""
        return sum(e.value_nanoton for e in self.entries if e.valid_until_s > now_s - window_s)

    def add(self, caps: Caps, now_s: int, wanted: Entry) -> Spent:
        """What is spent if ``wanted`` is signed now.

        Args:
            now_s: Wall clock; one that went back counts as the newest time ever seen.

        Raises:
            CapExceeded: names the cap; nothing may be signed.
            ClockSkewed: valid-until is past, or too far ahead.
        """
        now_s = max(now_s, self.seen_s)
        if not now_s < wanted.valid_until_s <= now_s + SIGNATURE_LIFE_S:
            ahead = wanted.valid_until_s - now_s
            raise ClockSkewed(f"a signature valid for {ahead} s, where 1 to {SIGNATURE_LIFE_S} are allowed")
        same = [e for e in self.entries if (e.wallet_id, e.seqno) == (wanted.wallet_id, wanted.seqno)]
        kept = tuple(e for e in self.entries if e not in same and e.valid_until_s > now_s - DAY_S)
        for entry in same:
            value = max(wanted.value_nanoton, entry.value_nanoton)
            until = max(wanted.valid_until_s, entry.valid_until_s)
            wanted = replace(wanted, value_nanoton=value, valid_until_s=until)
        if len(kept) >= SIGNATURES_PER_DAY:
            raise CapExceeded(f"{SIGNATURES_PER_DAY} signatures were made within a day")
        after = Spent((*kept, wanted), now_s)
        for name, cap, window_s in (("hour", caps.hour_nanoton, HOUR_S), ("day", caps.day_nanoton, DAY_S)):
            if (total := after.within(now_s, window_s)) > cap:
                raise CapExceeded(
                    f"{format_nanoton(total)} would leave the wallet within one {name}; "
                    f"wallet_{name}_nanoton allows {format_nanoton(cap)}"
                )
        return after


def pack_spent(spent: Spent) -> bytes:
    """Content of ``keys/wallet.spent``: magic, canonical msgpack, 8 bytes of check."""
    rows = [[e.wallet_id, e.seqno, e.value_nanoton, e.valid_until_s] for e in spent.entries]
    body = _MAGIC + encode([spent.seen_s, rows])
    return body + hashlib.sha256(body).digest()[:_CHECK_BYTES]


def unpack_spent(data: bytes) -> Spent:
    """Read what ``pack_spent`` wrote.

    Raises:
        Corrupt: it did not.
    """
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if body.startswith(_MAGIC) and hashlib.sha256(body).digest()[:_CHECK_BYTES] == check:
        try:
            seen_s, rows = decode(body[len(_MAGIC) :], max_bytes=FILE_BYTES)
            return Spent(tuple(Entry(*row) for row in rows), seen_s)
        except (CocoonError, TypeError, ValueError):
            pass
    raise Corrupt("keys/wallet.spent is damaged: the signer no longer knows what it spent")
