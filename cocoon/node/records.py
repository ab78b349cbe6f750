"""What the node writes into the journal: kinds, unique keys and bodies.

A unique key makes "at most once" a property of the database: a second run of
one number, or a second acceptance of one unit, cannot be recorded at all.

Purity: pure. Spec: docs/spec/store.md, rules STO-13 and STO-14.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cocoon.core.errors import Corrupt
from cocoon.core.ids import LeaseId, PeerKey, ReceiptHash, TaskId
from cocoon.core.limits import JOURNAL_ROW_BYTES
from cocoon.core.values import Value, astuple
from cocoon.ledger.events import StatementMade
from cocoon.ledger.journal import unpack_event
from cocoon.wire.codec import decode, encode, pack_plain

LEASE_SOLD = "lease_sold"
RUNS_RESERVED = "runs_reserved"
RECEIPT_FACT = "receipt_fact"
RECEIPT_ISSUED = "receipt_issued"
RECEIPT_SETTLED = "receipt_settled"
LEASE_BOUGHT = "lease_bought"
UNIT_ACCEPTED = "unit_accepted"
RECEIPT_ACCEPTED = "receipt_accepted"
#: What the requester's book of lanes was told (``ledger.lanes.BOOK_FACTS``).
LANE_FACT = "lane_fact"
#: What the provider's till, its credit book and its anchor were told (``ledger.lanes.TILL_FACTS`` and others).
TILL_FACT = "till_fact"
CREDIT_FACT = "credit_fact"
ANCHOR_FACT = "anchor_fact"

#: How a lease ended on its provider's side, as this requester saw it.
OUTCOME_SEEN = "outcome_seen"

_SETTLED = b"settled:"
_DIGEST_BYTES = 32


def lease_key(lease: LeaseId) -> bytes:
    """Unique key of a lease that this peer signed, on either side."""
    return b"lease:" + lease


def runs_key(lease: LeaseId, through: int) -> bytes:
    """Unique key of the word that runs up to this number may have been begun (LEA-3)."""
    return runs_of(lease) + through.to_bytes(4, "big")


def runs_of(lease: LeaseId) -> bytes:
    """What these keys of a lease begin with; they rise with the number."""
    return b"run:" + lease


def fact_key(lease: LeaseId, index: int) -> bytes:
    """Unique key of the ``index``-th row of facts that the receipt machine of a lease took."""
    return facts_of(lease) + index.to_bytes(4, "big")


def facts_of(lease: LeaseId) -> bytes:
    """What the unique keys of all receipt facts of a lease begin with; they rise in order."""
    return b"fact:" + lease


def receipt_key(digest: bytes) -> bytes:
    """Unique key of a receipt in each of its states; ``digest`` is that of the signed receipt."""
    return b"receipt:" + digest


def settled_key(digest: bytes) -> bytes:
    """Unique key of a countersigned receipt on the provider's side."""
    return _SETTLED + digest


def settled_digest(key: bytes | None) -> ReceiptHash:
    """The digest in a ``settled_key``.

    Raises:
        Corrupt: ``key`` is none.
    """
    if key is None or not key.startswith(_SETTLED) or len(key) != len(_SETTLED) + _DIGEST_BYTES:
        raise Corrupt("a settled receipt of the journal has no key that names it")
    return ReceiptHash(key.removeprefix(_SETTLED))


def anchor_key(seq: int, root: bytes) -> bytes:
    """Unique key of a batch of receipts that was ordered anchored."""
    return b"anchor:" + seq.to_bytes(4, "big") + root


def unit_key(task: TaskId, unit: int, slot: int) -> bytes:
    """Unique key of what is payable: (task, unit, slot)."""
    return b"unit:" + task + unit.to_bytes(4, "big") + slot.to_bytes(1, "big")


class UnitAccepted(Value):
    """The requester owes this unit to this provider, and to nobody else."""

    task: TaskId
    unit: int
    slot: int
    provider: PeerKey
    lease: LeaseId
    number: int
    price_nanoton: int
    salt: bytes
    statement: bytes

    def pack(self) -> bytes:
        """Canonical body of the journal entry."""
        return pack_plain(astuple(self))

    @classmethod
    def unpack(cls, body: bytes) -> UnitAccepted:
        """Read a body that ``pack`` wrote."""
        return cls(*decode(body, max_bytes=1_024))


class OutcomeRow(Value):
    """What this peer saw of a provider at a wall time (seconds since 1970); ``outcome`` is a ``reputation.Outcome``."""

    at_s: int
    provider: PeerKey
    outcome: str
    code: str

    def pack(self) -> bytes:
        """Body of the journal entry."""
        return encode([self.at_s, self.provider, self.outcome, self.code])

    @classmethod
    def unpack(cls, body: bytes) -> OutcomeRow:
        """Read a body that ``pack`` wrote."""
        return cls(*decode(body, max_bytes=1_024))


def pack_runs(lease: LeaseId, through: int) -> bytes:
    """Body of ``RUNS_RESERVED``."""
    return encode([lease, through])


def unpack_runs(body: bytes) -> tuple[LeaseId, int]:
    """Read a body of ``RUNS_RESERVED``."""
    lease, through = decode(body, max_bytes=128)
    return LeaseId(lease), through


def pack_facts(lease: LeaseId, facts: Sequence[bytes]) -> bytes:
    """Body of ``RECEIPT_FACT``: what the receipt machine of a lease was told, on either side (``ledger.journal``)."""
    return pack_plain([lease, *facts])


def unpack_facts(body: bytes) -> tuple[LeaseId, list[bytes]]:
    """Read a body of ``RECEIPT_FACT``."""
    lease, *facts = decode(body, max_bytes=JOURNAL_ROW_BYTES)
    return LeaseId(lease), facts


def facts_in(bodies: Iterable[bytes]) -> list[bytes]:
    """The facts of all these bodies, one after the other."""
    return [fact for body in bodies for fact in unpack_facts(body)[1]]


def last_stated(bodies: Iterable[bytes]) -> int:
    """Number of the last run that a provider has stated, from all its ``RECEIPT_FACT`` bodies of a lease; 0 if none."""
    made = [fact for fact in map(unpack_event, facts_in(bodies)) if isinstance(fact, StatementMade)]
    return made[-1].statement.number if made else 0
