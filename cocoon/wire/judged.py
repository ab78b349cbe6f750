"""Judged messages: what a contract may have to judge, each one TVM cell without references.

A statement is the account of one run and a leaf of a receipt's tree. A voucher
is the requester's cumulative promise, and by naming a receipt's hash also its
countersignature. Both begin with a 32-bit domain tag of their own; signatures
cover the cell's representation hash.

Purity: pure. Spec: docs/spec/judged.md, rules JUD-2 to JUD-6.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.values import Value, astuple
from cocoon.wire import ed25519
from cocoon.wire.cells import Cell, CellBuilder, CellReader, plain_hash
from cocoon.wire.commitment import ALG_BLAKE3, ALG_SHA256
from cocoon.wire.widths import HASH_BYTES
from cocoon.wire.widths import STATEMENT_BYTES as STATEMENT_BYTES
from cocoon.wire.widths import VOUCHER_BYTES as VOUCHER_BYTES

if TYPE_CHECKING:
    from cocoon.wire.signing import Signer

VOUCHER_TAG = 0x0C0C7A01
STATEMENT_TAG = 0x0C0C7A05
VOUCHER_BITS = 715
STATEMENT_BITS = 1_016
#: Each field of a statement is whole bytes, so that it needs no bit by bit: there are thousands a second.
_STATEMENT = struct.Struct(">I32sIB32s32sIQIIBB")
#: What stands behind the address of a voucher, whose bits begin inside a byte.
_VOUCHER_END = struct.Struct(">IIQ32s")
#: Cells of the newest words, half a kilobyte each.
_CELLS_AT_HAND = 1_024
_ALGS = (ALG_SHA256, ALG_BLAKE3)
#: Where a statement keeps its spelling and hash; functools.cached_property takes a lock (Python 3.11).
_WORDS = "words"
#: Escrow of leases that no contract covers (price 0).
NO_ESCROW = bytes(32)


class Voucher(Value):
    """A requester's cumulative promise on one lane: "you have earned ``total_nanoton`` so far"."""

    #: First 32 bits of the network id (``core.ids.network_tag``).
    network_tag: int
    #: Hash part of the escrow's workchain-0 address; ``NO_ESCROW`` on price-0 leases.
    escrow: bytes
    lane: int
    #: Number of the receipt that this voucher countersigns.
    seq: int
    total_nanoton: int
    #: Hash of that receipt, 32 bytes.
    head: bytes

    def cell(self) -> Cell:
        """The cell that is signed.

        Raises:
            UsageError: a field is out of its bits.
        """
        return _voucher_cell(self)

    def pack(self) -> bytes:
        """Data bytes of the cell, ``VOUCHER_BYTES`` long."""
        return self.cell().data()

    def hash(self) -> bytes:
        """Representation hash, 32 bytes."""
        return self.cell().hash()

    @classmethod
    def unpack(cls, data: bytes) -> Voucher:
        """Read the data bytes of a voucher's cell.

        Raises:
            Malformed: another tag, length, padding or form of address.
        """
        reader = CellReader(data, VOUCHER_BITS)
        tag, network_tag = divmod(reader.uint(64), 1 << 32)
        _check_tag(tag, VOUCHER_TAG, "voucher")
        escrow = reader.address()
        return cls(network_tag, escrow, *_VOUCHER_END.unpack(reader.blob(_VOUCHER_END.size)))


class Statement(Value, dict=True):
    """The provider's account of one run."""

    #: Lease id, 32 bytes.
    lease: bytes
    #: Number of the run within the lease.
    number: int
    #: Commitment to the inputs (``wire.commitment``): algorithm and 32 bytes.
    input_alg: int
    input: bytes
    output_alg: int
    output: bytes
    #: Units of the kind that the lease prices.
    units: int
    price_nanoton: int
    #: Time in the provider's queue and time in the model, microseconds.
    queued_us: int
    ran_us: int
    #: Runs that were executed together, this one among them; and its position there, from 0. With as many statements
    #: before this one on its lease it is told which they were.
    joined: int = 1
    place: int = 0

    def cell(self) -> Cell:
        """The cell whose hash is the leaf.

        Raises:
            UsageError: a field is out of its bits, or an algorithm does not exist.
        """
        return Cell(int.from_bytes(self.pack(), "big"), STATEMENT_BITS)

    def pack(self) -> bytes:
        """Data bytes of the cell, ``STATEMENT_BYTES`` long; raises as ``cell``."""
        return (self.__dict__.get(_WORDS) or self._words())[0]

    def hash(self) -> bytes:
        """Representation hash, 32 bytes: a leaf of the receipt's tree; raises as ``cell``."""
        return (self.__dict__.get(_WORDS) or self._words())[1]

    @classmethod
    def unpack(cls, data: bytes) -> Statement:
        """Read the data bytes of a statement's cell.

        Raises:
            Malformed: another tag or length, or an algorithm that does not exist.
        """
        if len(data) != STATEMENT_BYTES:
            raise Malformed(f"{len(data)} bytes where a statement has {STATEMENT_BYTES}")
        tag, lease, number, algs, *fields = _STATEMENT.unpack(data)
        _check_tag(tag, STATEMENT_TAG, "statement")
        inputs, outputs, *rest = fields
        found = cls(lease, number, algs >> 4, inputs, algs & 0x0F, outputs, *rest)
        if (flaw := found._flaw()) is not None:
            raise Malformed(flaw)
        found.__dict__[_WORDS] = data, plain_hash(data)         # there is one spelling only
        return found

    def _words(self) -> tuple[bytes, bytes]:
        """Data bytes and representation hash: journalled, sent, shown and signed, a dozen times together."""
        if (flaw := self._flaw()) is not None:
            raise UsageError(flaw)
        lease, number, input_alg, inputs, output_alg, outputs, *rest = astuple(self)
        if not len(lease) == len(inputs) == len(outputs) == HASH_BYTES:     # struct would fill them up, or cut them
            raise UsageError(f"a statement's lease, input and output have {HASH_BYTES} bytes each")
        try:
            data = _STATEMENT.pack(STATEMENT_TAG, lease, number, input_alg << 4 | output_alg, inputs, outputs, *rest)
        except struct.error as error:
            raise UsageError(f"no statement: {error}") from None
        words = self.__dict__[_WORDS] = data, plain_hash(data)
        return words

    def _flaw(self) -> str | None:
        if self.input_alg not in _ALGS or self.output_alg not in _ALGS:
            return f"no commitment algorithm {self.input_alg} or {self.output_alg}"
        if not 0 <= self.place < self.joined:
            return f"position {self.place} among {self.joined} runs"
        return None


# A cell is asked for by whoever packs, hashes, journals, signs and checks the same words, one soon after the other.
@lru_cache(_CELLS_AT_HAND)
def _voucher_cell(voucher: Voucher) -> Cell:
    if len(voucher.head) != HASH_BYTES:                 # struct would fill it up, or cut it
        raise UsageError(f"the head of a voucher has {HASH_BYTES} bytes, not {len(voucher.head)}")
    builder = CellBuilder().uint(VOUCHER_TAG, 32).uint(voucher.network_tag, 32).address(voucher.escrow)
    try:
        end = _VOUCHER_END.pack(voucher.lane, voucher.seq, voucher.total_nanoton, voucher.head)
    except struct.error as error:
        raise UsageError(f"no voucher: {error}") from None
    return builder.blob(end, _VOUCHER_END.size).end()


def sign_cell(cell_hash: bytes, signer: Signer) -> bytes:
    """Ed25519 signature of a cell's 32-byte hash, as the TVM's CHKSIGNU checks it."""
    if len(cell_hash) != 32:
        raise UsageError(f"a cell hash has 32 bytes, not {len(cell_hash)}")
    return signer.sign(cell_hash)


def verify_cell(cell_hash: bytes, key: bytes, signature: bytes) -> None:
    """Return if ``signature`` (64 bytes) of a cell's hash was made by ``key``.

    Raises:
        BadSignature: it was not.
    """
    ed25519.verify(key, cell_hash, signature)


def _check_tag(found: int, tag: int, name: str) -> None:
    if found != tag:
        raise Malformed(f"tag 0x{found:08x} is not a {name}'s")
