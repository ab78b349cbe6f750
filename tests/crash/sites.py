"""Names of the places where a peer may die: rows of its journal by kind and fact, effects by what they send.

The root kills by these names, the tests read a dead peer's journal by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cocoon.core.errors import PeerFault
from cocoon.ledger import rows
from cocoon.ledger.journal import unpack_event
from cocoon.ledger.lanes import BOOK_FACTS
from cocoon.ledger.rows import EndedRow, QueuedRow, SignedRow
from cocoon.ledger.till import TILL_FACTS
from cocoon.node import records
from cocoon.store.chain import Entry
from cocoon.store.writer import Row
from cocoon.wire.market import BidReply, Call
from cocoon.wire.messages import CloseAgree, CloseAsk, LeaseAccept, LeaseOpen
from cocoon.wire.schema import Message, unpack
from cocoon.wire.signing import open_signed


@dataclass(slots=True)
class Names:
    """Names rows in the order of the journal; an outbox row is named by the intention of its place."""

    _intentions: dict[int, str] = field(default_factory=dict)

    def of(self, row: Row | Entry) -> str:
        """``kind``, or ``kind:what`` where a kind has several facts."""
        match row.kind:
            case records.LANE_FACT:
                return f"{row.kind}:{type(BOOK_FACTS.unpack(row.body)).__name__}"
            case records.TILL_FACT:
                return f"{row.kind}:{type(TILL_FACTS.unpack(row.body)).__name__}"
            case records.RECEIPT_FACT:
                return f"{row.kind}:{type(unpack_event(records.unpack_facts(row.body)[1][0])).__name__}"
            case rows.OUTBOX_QUEUED:
                queued = QueuedRow.unpack(row.body)
                self._intentions[queued.place] = intention(queued.key)
                return f"{row.kind}:{intention(queued.key)}"
            case rows.OUTBOX_SIGNED:
                return f"{row.kind}:{self._intentions.get(SignedRow.unpack(row.body).place)}"
            case rows.OUTBOX_ENDED:
                return f"{row.kind}:{intention(EndedRow.unpack(row.body).key)}"
        return row.kind


def intention(key: bytes) -> str:
    """The word before the colon in the name of a message of the wallet: ``order``, ``claim``, ``anchor``, ``prune``."""
    return key.partition(b":")[0].decode()


def counted(entries: Iterable[Entry], after: int = 0) -> Counter[str]:
    """How often each name stands in a journal behind record number ``after``."""
    names = Names()
    named = [(entry.seq, names.of(entry)) for entry in entries]
    return Counter(name for seq, name in named if seq > after)


def spoken(payload: bytes) -> Iterator[str]:
    """The message of a call, a lease or a close inside one open frame, by its class; nothing if it is another."""
    for kind in (Call, BidReply, LeaseOpen, CloseAsk, CloseAgree):
        if _reads(payload, kind):
            yield kind.__name__
    try:
        open_signed(payload, LeaseAccept)
    except PeerFault:
        return
    yield LeaseAccept.__name__


def _reads(payload: bytes, kind: type[Message]) -> bool:
    try:
        unpack(payload, kind)
    except PeerFault:
        return False
    return True
