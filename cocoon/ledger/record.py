"""Receipt records: everything that a third party needs to check a receipt offline.

A ``ReceiptRecord`` holds one whole tranche. A ``RunProof`` holds one run of it
with its Merkle path, so that a result can be shown without the others. Both
have one spelling; what they say is checked in ``ledger.verify``, not here.

Purity: pure. Spec: docs/spec/receipts.md, rules REC-20 to REC-24.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import Malformed, NotFound, UnknownVersion, UsageError
from cocoon.core.limits import RECORD_BYTES, TRANCHE_RUNS
from cocoon.core.values import Value
from cocoon.wire import merkle
from cocoon.wire.codec import decode, encode, pack_plain
from cocoon.wire.judged import STATEMENT_BYTES, VOUCHER_BYTES, Statement
from cocoon.wire.messages import Lease, LeaseAccept, Receipt
from cocoon.wire.signing import Signed
from cocoon.wire.widths import SIGNATURE_BYTES

VERSION = 1
_RECORD, _PROOF = "receipt", "run"
#: A path in a tree of TRANCHE_RUNS leaves.
_PATH_HASHES = (TRANCHE_RUNS - 1).bit_length()


class Countersigned(Value):
    """The signed words of a settled tranche, packed as they travelled."""

    #: ``Signed[Lease]`` by the requester.
    lease: bytes
    #: ``Signed[LeaseAccept]`` by the provider.
    accept: bytes
    #: ``Signed[Receipt]`` by the provider.
    receipt: bytes
    #: Data bytes of the voucher's cell.
    voucher: bytes
    #: Of the voucher's cell hash, by the lease's voucher key.
    signature: bytes

    @classmethod
    def of(
        cls, lease: Signed[Lease], accept: Signed[LeaseAccept], receipt: Signed[Receipt],
        voucher: bytes, signature: bytes,
    ) -> Countersigned:
        """Pack the parts."""
        return cls(lease.pack(), accept.pack(), receipt.pack(), voucher, signature)

    def items(self) -> list[bytes]:
        """The five parts, in the order of the fields."""
        return [self.lease, self.accept, self.receipt, self.voucher, self.signature]


class ReceiptRecord(Value):
    """One receipt with all its statements, by rising run number."""

    words: Countersigned
    statements: tuple[Statement, ...]

    def pack(self) -> bytes:
        """Canonical bytes, at most ``RECORD_BYTES``."""
        if not 1 <= len(self.statements) <= TRANCHE_RUNS:
            raise UsageError(f"a record holds 1 to {TRANCHE_RUNS} statements, not {len(self.statements)}")
        return pack_plain([_RECORD, VERSION, *self.words.items(), [s.pack() for s in self.statements]])

    def proof(self, number: int) -> RunProof:
        """The proof of run ``number`` alone.

        Raises:
            NotFound: the receipt does not cover this run.
        """
        for index, statement in enumerate(self.statements):
            if statement.number == number:
                path = merkle.path([s.hash() for s in self.statements], index)
                return RunProof(self.words, statement, index, tuple(path))
        raise NotFound(f"the receipt has no run {number}")


class RunProof(Value):
    """One run of a receipt: its statement, its place in the tree, and the path to the root."""

    words: Countersigned
    statement: Statement
    index: int
    path: tuple[bytes, ...]

    def pack(self) -> bytes:
        """Canonical bytes, about 1.5 KiB."""
        place = [self.statement.pack(), self.index, list(self.path)]
        return encode([_PROOF, VERSION, *self.words.items(), *place])


def unpack_record(data: bytes) -> ReceiptRecord:
    """Read ``ReceiptRecord.pack``; nothing is verified yet.

    Raises:
        Malformed: no record in its one spelling.
    """
    match _opened(data, _RECORD):
        case [*words, list(statements)] if 1 <= len(statements) <= TRANCHE_RUNS:
            return ReceiptRecord(_words(words), tuple(_statement(item) for item in statements))
    raise Malformed("a receipt record has another form")


def unpack_proof(data: bytes) -> RunProof:
    """Read ``RunProof.pack``; nothing is verified yet.

    Raises:
        Malformed: no proof in its one spelling.
    """
    match _opened(data, _PROOF):
        case [*words, statement, int(index), list(path)] if len(path) <= _PATH_HASHES and type(index) is int:
            hashes = tuple(_sized(item, 32) for item in path)
            return RunProof(_words(words), _statement(statement), index, hashes)
    raise Malformed("a run proof has another form")


def _opened(data: bytes, kind: str) -> list[Any]:
    """The items behind kind and version."""
    match decode(data, max_bytes=RECORD_BYTES):
        case [str(found), int(version), *items] if found == kind:
            if type(version) is not int or version != VERSION:
                raise UnknownVersion(f"a {kind} record in version {version}; version {VERSION} is known")
            return items
    raise Malformed(f"this is no {kind} record")


def _words(items: list[Any]) -> Countersigned:
    match items:
        case [bytes(lease), bytes(accept), bytes(receipt), voucher, signature]:
            return Countersigned(
                lease, accept, receipt, _sized(voucher, VOUCHER_BYTES), _sized(signature, SIGNATURE_BYTES)
            )
    raise Malformed("a record needs lease, accept, receipt, voucher and signature")


def _statement(item: Any) -> Statement:
    return Statement.unpack(_sized(item, STATEMENT_BYTES))


def _sized(item: Any, size: int) -> bytes:
    if not isinstance(item, bytes) or len(item) != size:
        raise Malformed(f"a record holds something where {size} bytes are due")
    return item
