"""Exports: a receipt with its place under an anchored root, for somebody who has nothing else.

An export holds the whole record, so that all of ``verify_record`` applies, the
birth of the anchor, so that its address is known, and the Merkle path from the
receipt to the root. Whether that root is on chain is the one thing that bytes
cannot say: the reader brings the root, or looks at the address that comes out.

Purity: pure. Spec: docs/spec/anchoring.md, rules BAT-18 to BAT-21.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.errors import Malformed, UnknownVersion, wrong
from cocoon.core.limits import EXPORT_BYTES, EXPORT_PATH_HASHES
from cocoon.core.values import Value
from cocoon.ledger.anchor import AnchorBirth
from cocoon.ledger.anchoring import AnchorProof
from cocoon.ledger.record import unpack_record
from cocoon.ledger.terms import terms_of
from cocoon.ledger.verify import ReceiptFacts, verify_record
from cocoon.wire.codec import decode, encode
from cocoon.wire.messages import Lease
from cocoon.wire.signing import open_signed

VERSION = 1
_EXPORT = "anchored"


class AnchoredRecord(Value):
    """A packed receipt record and its proof under a root of an anchor."""

    record: bytes
    anchor: AnchorBirth
    proof: AnchorProof

    def pack(self) -> bytes:
        """Canonical bytes, at most ``EXPORT_BYTES``."""
        birth = [self.anchor.owner, self.anchor.peer, self.anchor.network_tag]
        place = [self.proof.seq, self.proof.root, self.proof.count, self.proof.index, list(self.proof.path)]
        return encode([_EXPORT, VERSION, self.record, birth, place])


class ExportFacts(Value):
    """What a checked export proves."""

    receipt: ReceiptFacts
    #: Where the root can be seen on chain; None for a record without an anchor.
    anchor: bytes | None
    seq: int
    root: bytes


def unpack_export(data: bytes) -> AnchoredRecord:
    """Read ``AnchoredRecord.pack``; nothing is verified yet.

    Raises:
        Malformed: no export in its one spelling.
    """
    match decode(data, max_bytes=EXPORT_BYTES):
        case [str(kind), int(version), bytes(record), [*birth], [*place]] if kind == _EXPORT:
            if type(version) is not int or version != VERSION:
                raise UnknownVersion(f"an export in version {version}; version {VERSION} is known")
            return AnchoredRecord(record, _birth(birth), _place(place))
    raise Malformed("this is no anchored record")


def verify_export(data: bytes, root: bytes | None = None) -> ExportFacts:
    """Check an export, or a plain record, offline.

    Args:
        root: 32 bytes that the reader trusts, say read from the chain; None: the root in the export is shown.

    Raises:
        Malformed: bytes that are neither.
        BadSignature, WrongField: as ``verify_record``; ``wrong_root`` (not under this root),
            ``wrong_provider`` (another peer's anchor), ``wrong_network_id`` (another chain's).
    """
    if _kind(data) != _EXPORT:
        if root is not None:
            raise wrong("root", "the record comes without a proof that it is under a root")
        return ExportFacts(verify_record(data), None, 0, b"")
    export = unpack_export(data)
    facts, proof = verify_record(export.record), export.proof
    if root is not None and proof.root != root:
        raise wrong("root", f"the proof leads to root {proof.root.hex()[:16]}, not to {root.hex()[:16]}")
    if not proof.holds(facts.receipt):
        raise wrong("root", "the receipt is not under the root of the export")
    if export.anchor.peer not in (facts.provider, facts.requester):
        raise wrong("provider", "the anchor belongs to neither peer of the lease")
    terms = terms_of(open_signed(unpack_record(export.record).words.lease, Lease))
    if terms.lane and terms.network_tag != export.anchor.network_tag:
        raise wrong("network_id", "the anchor is on another chain than the lease's escrow")
    return ExportFacts(facts, export.anchor.address(), proof.seq, proof.root)


def _kind(data: bytes) -> str:
    match decode(data, max_bytes=EXPORT_BYTES):
        case [str(kind), *_]:
            return kind
    raise Malformed("this is no record")


def _birth(items: list[Any]) -> AnchorBirth:
    match items:
        case [bytes(owner), bytes(peer), int(tag)] if len(owner) == len(peer) == 32 and _is_u32(tag):
            return AnchorBirth(owner, peer, tag)
    raise Malformed("an export names its anchor by owner, peer and network")


def _place(items: list[Any]) -> AnchorProof:
    match items:
        case [int(seq), bytes(root), int(count), int(index), list(path)] if len(path) <= EXPORT_PATH_HASHES:
            hashes = all(isinstance(item, bytes) and len(item) == 32 for item in (root, *path))
            if hashes and all(map(_is_u32, (seq, count, index))):
                return AnchorProof(seq, root, count, index, tuple(path))
    raise Malformed("an export's place under the root has another form")


def _is_u32(value: int) -> bool:
    return type(value) is int and 0 <= value < 1 << 32
