"""What a peer's journal says of its money, read beside the peer, whether it lives or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cocoon.ledger.till import TILL_FACTS, VoucherKept
from cocoon.ledger.verify import ReceiptFacts, verify_record
from cocoon.node import records
from cocoon.store.reader import Reader, open_reader
from cocoon.store.service import JOURNAL_FILE
from cocoon.wire.judged import Voucher

#: Escrow and number of a lane.
LaneKey = tuple[bytes, int]


@contextmanager
def journal(home: Path) -> Iterator[Reader]:
    """The journal of a home."""
    with open_reader(home / JOURNAL_FILE) as reader:
        yield reader


def receipts(home: Path, kind: str = records.RECEIPT_ACCEPTED) -> list[ReceiptFacts]:
    """The countersigned receipts, each checked; a provider's are ``RECEIPT_SETTLED``."""
    with journal(home) as reader:
        return [verify_record(entry.body) for entry in reader.entries(kind)]


def accepted(home: Path) -> list[records.UnitAccepted]:
    """The units that a requester accepted."""
    with journal(home) as reader:
        return [records.UnitAccepted.unpack(entry.body) for entry in reader.entries(records.UNIT_ACCEPTED)]


def kept(home: Path) -> dict[LaneKey, int]:
    """Total of the newest voucher by lane in a provider's till: what a claim would show."""
    totals: dict[LaneKey, int] = {}
    with journal(home) as reader:
        for entry in reader.entries(records.TILL_FACT):
            fact = TILL_FACTS.unpack(entry.body)
            if isinstance(fact, VoucherKept):
                totals[fact.escrow, fact.lane] = Voucher.unpack(fact.voucher).total_nanoton
    return totals
