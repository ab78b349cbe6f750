"""The hash chain of the journal: every record covers all records before it.

It notices torn, edited, lost and reordered rows. It is no signature: who can
write the file can also recompute the chain.

Purity: pure. Spec: docs/spec/store.md, rules STO-3 and STO-4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from cocoon.core.errors import Corrupt
from cocoon.core.values import Value

#: Hash before the first record, 32 zero bytes.
GENESIS = bytes(32)

_NONE = b"\x00"
_SOME = b"\x01"
#: Kinds of records whose spelling is at hand; a peer writes some twenty.
_KINDS = 64


class Entry(Value):
    """One durable record.

    ``seq`` counts from 1 without gaps. ``unique`` is None or a key that no
    other record has. ``hash`` is the head of the chain after this record,
    32 bytes. ``at_ns`` is wall time in nanoseconds since 1970, for people
    only: it is not under the hash and no machine may read it.
    """

    seq: int
    kind: str
    body: bytes
    unique: bytes | None
    hash: bytes
    at_ns: int = 0


def link(previous: bytes, seq: int, kind: str, unique: bytes | None, body: bytes) -> bytes:
    """Hash of one record: SHA-256(previous | seq | kind | unique | body).

    Args:
        previous: Hash of the record before, ``GENESIS`` for the first; 32 bytes.
        seq: Position, from 1.

    Every variable part carries its u64 length and ``unique`` a byte that says
    whether it is there, so no two records share an encoding (STO-3).
    """
    key = _NONE if unique is None else _SOME + len(unique).to_bytes(8, "big") + unique
    size = len(body).to_bytes(8, "big")
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + _name(kind) + key + size + body).digest()


def check(previous: bytes, entry: Entry) -> None:
    """Refuse a record whose hash does not follow from ``previous``.

    Raises:
        Corrupt: names the sequence number.
    """
    if link(previous, entry.seq, entry.kind, entry.unique, entry.body) != entry.hash:
        raise Corrupt(f"journal record {entry.seq} does not fit its hash; it was torn or edited")


def check_all(entries: Iterable[Entry]) -> tuple[int, bytes]:
    """Walk a whole chain from its first record.

    Returns:
        Number of records and the hash of the last (``GENESIS`` if there is none).

    Raises:
        Corrupt: names the first sequence number that is missing or wrong.
    """
    count, head = 0, GENESIS
    for entry in entries:
        if entry.seq != count + 1:
            raise Corrupt(f"journal record {count + 1} is missing; the next one is {entry.seq}")
        check(head, entry)
        count, head = entry.seq, entry.hash
    return count, head


@lru_cache(_KINDS)
def _name(kind: str) -> bytes:
    name = kind.encode("utf-8")
    return len(name).to_bytes(8, "big") + name
