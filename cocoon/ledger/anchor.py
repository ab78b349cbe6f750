"""The anchor contract as peers see it: address, state and message bodies.

A provider's anchor keeps a hash chain over all roots it ever took and the last
``ANCHOR_RING`` of them whole. A root is that of ``wire.merkle`` over the digests
of a batch of receipts.

Purity: pure. Spec: docs/spec/anchor.md, rules ANC-1 to ANC-7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import ANCHOR_RING
from cocoon.core.values import Value
from cocoon.ledger import bytecode
from cocoon.wire import merkle
from cocoon.wire.cells import Cell, CellBuilder, CellReader, state_init
from cocoon.wire.dictionary import read_dictionary

OP_ANCHOR, OP_PROVE, OP_PROVEN = 0x0C0C0101, 0x0C0C0102, 0x0C0C0103
CODE_HASH = bytecode.ANCHOR_CODE_HASH
#: What an anchor keeps for storage; once it has twice as much, the surplus returns (ANC-5).
RESERVE_NANOTON = 20_000_000
#: Upper bounds of gas, measured: anchoring, and checking a proof with so many steps.
GAS_ANCHOR = 8_500
GAS_PROVE, GAS_PROVE_STEP = 4_000, 650
_STEPS_PER_CELL = 3


class AnchorBirth(Value):
    """All that an anchor's address depends on, besides the known code."""

    #: Hash part of the only address that may anchor.
    owner: bytes
    #: Key of the peer whose receipts are anchored.
    peer: bytes
    network_tag: int

    def data(self) -> Cell:
        """The canonical initial data: nothing anchored yet."""
        builder = CellBuilder().address(self.owner).blob(self.peer, 32).uint(self.network_tag, 32)
        return builder.uint(0, 32).blob(bytes(32), 32).maybe(None).end()

    def state_init(self) -> Cell:
        """What deploys the anchor."""
        return state_init(bytecode.anchor_code(), self.data())

    def address(self) -> bytes:
        """Hash part of the anchor's workchain-0 address, 32 bytes."""
        return self.state_init().hash()


class AnchoredRoot(Value):
    """One batch: its number (from 1), the root over its receipts, how many, and when."""

    seq: int
    root: bytes
    count: int
    at_s: int


class AnchorState(Value):
    """What an anchor's data say. ``seq`` is the newest root's number; ``ring`` holds the last ones, oldest first."""

    birth: AnchorBirth
    seq: int
    chain: bytes
    ring: tuple[AnchoredRoot, ...]

    @property
    def owner(self) -> bytes:
        """Who alone may anchor."""
        return self.birth.owner


def read_anchor(data: Cell) -> AnchorState:
    """Read an anchor's data.

    Raises:
        Malformed: they are not an anchor's.
    """
    reader = CellReader.of(data)
    birth = AnchorBirth(reader.address(), reader.blob(32), reader.uint(32))
    seq, chain, root = reader.uint(32), reader.blob(32), reader.maybe()
    reader.end()
    ring = sorted(
        (_read_root(entry) for entry in read_dictionary(root, 4, ANCHOR_RING).values()), key=lambda one: one.seq
    )
    if [one.seq for one in ring] != list(range(max(1, seq - ANCHOR_RING + 1), seq + 1)):
        raise Malformed(f"an anchor with {seq} roots keeps numbers {[one.seq for one in ring]}")
    return AnchorState(birth, seq, chain, tuple(ring))


def _read_root(reader: CellReader) -> AnchoredRoot:
    seq, root, count, at_s = reader.uint(32), reader.blob(32), reader.uint(32), reader.uint(32)
    reader.end()
    return AnchoredRoot(seq, root, count, at_s)


def chained(chain: bytes, seq: int, root: bytes, count: int) -> bytes:
    """The hash chain after one more root; it begins with 32 zero bytes."""
    data = chain + seq.to_bytes(4, "big") + root + count.to_bytes(4, "big")
    return hashlib.sha256(data).digest()


def anchor_body(query_id: int, seq: int, root: bytes, count: int) -> Cell:
    """By the owner: anchor root number ``seq`` (the newest plus one) over ``count`` receipts."""
    builder = CellBuilder().uint(OP_ANCHOR, 32).uint(query_id, 64).uint(seq, 32)
    return builder.blob(root, 32).uint(count, 32).end()


def prove_body(query_id: int, seq: int, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> Cell:
    """By anybody: ask whether ``leaf`` is under root ``seq``; the answer is ``proven_body``.

    Args:
        leaf: SHA-256 of the receipt, 32 bytes: leaf data, not a leaf hash.
        index, count, path: as ``wire.merkle.verify`` takes them.

    Raises:
        UsageError: ``path`` is not as long as ``index`` and ``count`` imply.
    """
    builder = CellBuilder().uint(OP_PROVE, 32).uint(query_id, 64).uint(seq, 32)
    return builder.blob(leaf, 32).ref(_path(merkle.sides(index, count), path)).end()


def proven_body(query_id: int, seq: int, leaf: bytes) -> Cell:
    """The anchor's answer to a proof that holds; one that does not bounces."""
    return CellBuilder().uint(OP_PROVEN, 32).uint(query_id, 64).uint(seq, 32).blob(leaf, 32).end()


def _path(sides: Sequence[bool], path: Sequence[bytes]) -> Cell:
    """A chain of cells with up to three neighbours each, the leaf's first; a 1 says that it is on the left."""
    if len(sides) != len(path):
        raise UsageError(f"a path of {len(path)} hashes where {len(sides)} are due")
    steps = list(zip(sides, path, strict=True))
    rest: Cell | None = None
    for start in reversed(range(0, max(1, len(steps)), _STEPS_PER_CELL)):
        builder = CellBuilder()
        for left, neighbour in steps[start : start + _STEPS_PER_CELL]:
            builder.uint(left, 1).blob(neighbour, 32)
        if rest is not None:
            builder.ref(rest)
        rest = builder.end()
    assert rest is not None
    return rest
