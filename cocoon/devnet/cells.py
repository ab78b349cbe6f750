"""Cells as a chain needs them: every kind, every level, bags of cells in and out.

Cells are immutable and know their hashes when they exist, so a tree that shares
branches costs each branch once. Pruned branches and the two Merkle cells make
proofs; library references may stand inside what users send.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-5; the TVM white paper, 3.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import DEVNET_CELL_DEPTH

ORDINARY, PRUNED, LIBRARY, PROOF, UPDATE = 0, 1, 2, 3, 4
MAX_BITS = 1_023
MAX_REFS = 4
_HASH_BITS = 256
_DEPTH_BITS = 16
_MAGIC = bytes.fromhex("b5ee9c72")
_LIBRARY_BITS = 8 + _HASH_BITS
_PROOF_BITS = 8 + _HASH_BITS + _DEPTH_BITS
_UPDATE_BITS = 8 + 2 * (_HASH_BITS + _DEPTH_BITS)


class Cell:
    """One cell: ``bits`` data bits as a big-endian integer, references, and a kind.

    Raises:
        Malformed: the data of an exotic cell contradicts its kind, or the tree
            is deeper than ``DEVNET_CELL_DEPTH``.
    """

    __slots__ = ("value", "bits", "refs", "kind", "mask", "_hashes", "_depths")

    def __init__(self, value: int, bits: int, refs: Sequence[Cell] = (), kind: int = ORDINARY) -> None:
        self.value = value
        self.bits = bits
        self.refs = tuple(refs)
        self.kind = kind
        self.mask = _mask(self)
        self._hashes, self._depths = _hashes_of(self)
        if self._depths[-1] > DEVNET_CELL_DEPTH:
            raise Malformed(f"a tree of cells is deeper than {DEVNET_CELL_DEPTH}")

    @property
    def hash(self) -> bytes:
        """Representation hash, 32 bytes."""
        return self._hashes[-1]

    @property
    def depth(self) -> int:
        """Longest way down; 0 without references."""
        return self._depths[-1]

    @property
    def level(self) -> int:
        """0 unless pruned branches stand below that no Merkle cell closes."""
        return self.mask.bit_length()

    def hash_at(self, level: int) -> bytes:
        """Hash as seen at ``level``: pruned branches count as what they stand for."""
        index = (self.mask & (1 << level) - 1).bit_count()
        if self.kind == PRUNED and index < self.mask.bit_count():
            return self.data()[2 + 32 * index : 34 + 32 * index]
        return self._hashes[0 if self.kind == PRUNED else index]

    def depth_at(self, level: int) -> int:
        """Depth as seen at ``level``."""
        index = (self.mask & (1 << level) - 1).bit_count()
        hashes = self.mask.bit_count()
        if self.kind == PRUNED and index < hashes:
            at = 2 + 32 * hashes + 2 * index
            return int.from_bytes(self.data()[at : at + 2], "big")
        return self._depths[0 if self.kind == PRUNED else index]

    def data(self) -> bytes:
        """The data bits as whole bytes, with the completion tag if they do not fill the last one."""
        spare = -self.bits % 8
        return (self.value << spare | (1 << spare >> 1)).to_bytes((self.bits + spare) // 8, "big")

    def read(self) -> Reader:
        """A reader from the first bit and reference on."""
        return Reader(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"<Cell {self.bits} bits, {len(self.refs)} refs, {self.hash.hex()[:8]}>"


def _mask(cell: Cell) -> int:
    """Bit n-1 is set if the cell looks different at level n."""
    if cell.kind == ORDINARY:
        mask = 0
        for ref in cell.refs:
            mask |= ref.mask
        return mask
    if cell.kind == PRUNED:
        mask = cell.value >> max(cell.bits - 16, 0) & 0xFF
        wanted = 16 + mask.bit_count() * (_HASH_BITS + _DEPTH_BITS)
        if cell.refs or not 1 <= mask <= 7 or cell.bits != wanted:
            raise Malformed(f"a pruned branch of {cell.bits} bits with mask {mask}")
        return mask
    if cell.kind == LIBRARY and not cell.refs and cell.bits == _LIBRARY_BITS:
        return 0
    if cell.kind == PROOF and len(cell.refs) == 1 and cell.bits == _PROOF_BITS:
        return cell.refs[0].mask >> 1
    if cell.kind == UPDATE and len(cell.refs) == 2 and cell.bits == _UPDATE_BITS:
        return (cell.refs[0].mask | cell.refs[1].mask) >> 1
    raise Malformed(f"an exotic cell of kind {cell.kind} with {cell.bits} bits and {len(cell.refs)} references")


def _hashes_of(cell: Cell) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Hash and depth at each significant level, the lowest first; one of each for a pruned branch."""
    levels = [0, *(n for n in (1, 2, 3) if cell.mask >> (n - 1) & 1)]
    if cell.kind == PRUNED:
        levels = levels[-1:]
    shift = 1 if cell.kind in (PROOF, UPDATE) else 0
    size = bytes((cell.bits // 8 + (cell.bits + 7) // 8,))
    body = cell.data()
    hashes, depths = [], []
    for level in levels:
        mask = cell.mask & (1 << level) - 1
        kind = 8 if cell.kind != ORDINARY else 0
        below = [ref.depth_at(level + shift) for ref in cell.refs]
        digest = hashlib.sha256(bytes((len(cell.refs) + kind + 32 * mask,)) + size + body)
        digest.update(b"".join(depth.to_bytes(2, "big") for depth in below))
        digest.update(b"".join(ref.hash_at(level + shift) for ref in cell.refs))
        hashes.append(digest.digest())
        depths.append(1 + max(below) if below else 0)
        body = hashes[-1]
    return tuple(hashes), tuple(depths)


class Builder:
    """Collects bits and references, first stored first."""

    __slots__ = ("value", "bits", "refs")

    def __init__(self) -> None:
        self.value = 0
        self.bits = 0
        self.refs: list[Cell] = []

    def uint(self, value: int, bits: int) -> Builder:
        """Append an unsigned integer of ``bits`` bits.

        Raises:
            UsageError: it does not fit, or the cell is full.
        """
        if not 0 <= value < 1 << bits or self.bits + bits > MAX_BITS:
            raise UsageError(f"{value} has no place of {bits} bits in a cell that holds {self.bits}")
        self.value = self.value << bits | value
        self.bits += bits
        return self

    def sint(self, value: int, bits: int) -> Builder:
        """Append a signed integer (two's complement)."""
        return self.uint(value & (1 << bits) - 1, bits)

    def blob(self, data: bytes) -> Builder:
        """Append whole bytes."""
        return self.uint(int.from_bytes(data, "big"), 8 * len(data))

    def coins(self, amount: int) -> Builder:
        """Append ``VarUInteger 16``: nanoton."""
        size = (amount.bit_length() + 7) // 8
        return self.uint(size, 4).uint(amount, 8 * size)

    def currency(self, amount: int) -> Builder:
        """Append a ``CurrencyCollection`` without extra currencies."""
        return self.coins(amount).uint(0, 1)

    def address(self, workchain: int, account: bytes) -> Builder:
        """Append ``addr_std`` without anycast."""
        return self.uint(0b100, 3).sint(workchain, 8).blob(account)

    def ref(self, cell: Cell) -> Builder:
        """Append a reference."""
        if len(self.refs) == MAX_REFS:
            raise UsageError(f"a cell holds at most {MAX_REFS} references")
        self.refs.append(cell)
        return self

    def maybe(self, cell: Cell | None) -> Builder:
        """Append one bit, and the reference if there is one."""
        return self.uint(0, 1) if cell is None else self.uint(1, 1).ref(cell)

    def inline(self, cell: Cell) -> Builder:
        """Append all bits and references of ``cell`` itself."""
        self.uint(cell.value, cell.bits)
        for ref in cell.refs:
            self.ref(ref)
        return self

    def end(self, kind: int = ORDINARY) -> Cell:
        """The finished cell."""
        return Cell(self.value, self.bits, self.refs, kind)


class Reader:
    """Takes bits and references in the order in which they were stored."""

    __slots__ = ("_value", "_left", "_refs", "_next")

    def __init__(self, cell: Cell) -> None:
        self._value = cell.value
        self._left = cell.bits
        self._refs = cell.refs
        self._next = 0

    @property
    def bits(self) -> int:
        """Bits that nobody read yet."""
        return self._left

    def uint(self, bits: int) -> int:
        """The next unsigned integer of ``bits`` bits.

        Raises:
            Malformed: fewer are left.
        """
        if bits > self._left:
            raise Malformed(f"{bits} bits wanted, {self._left} left in the cell")
        self._left -= bits
        return self._value >> self._left & (1 << bits) - 1

    def sint(self, bits: int) -> int:
        """The next signed integer."""
        value = self.uint(bits)
        return value - (1 << bits) if value >> (bits - 1) else value

    def blob(self, length: int) -> bytes:
        """The next whole bytes."""
        return self.uint(8 * length).to_bytes(length, "big")

    def coins(self) -> int:
        """The next ``VarUInteger 16``."""
        return self.uint(8 * self.uint(4))

    def currency(self) -> int:
        """The nanoton of the next ``CurrencyCollection``; extra currencies are passed over."""
        amount = self.coins()
        self.maybe()
        return amount

    def address(self) -> tuple[int, bytes]:
        """Workchain and account of the next ``addr_std`` without anycast.

        Raises:
            Malformed: any other form of address.
        """
        if self.uint(3) != 0b100:
            raise Malformed("the address is no plain addr_std")
        return self.sint(8), self.blob(32)

    def ref(self) -> Cell:
        """The next reference."""
        if self._next == len(self._refs):
            raise Malformed("a reference is missing in the cell")
        self._next += 1
        return self._refs[self._next - 1]

    def maybe(self) -> Cell | None:
        """The next reference if a bit says that there is one."""
        return self.ref() if self.uint(1) else None


# --- proofs --------------------------------------------------------------------


def pruned(cell: Cell) -> Cell:
    """A branch that stands for ``cell``, which must have level 0."""
    builder = Builder().uint(PRUNED, 8).uint(1, 8).blob(cell.hash_at(0)).uint(cell.depth_at(0), _DEPTH_BITS)
    return builder.end(PRUNED)


def merkle_proof(root: Cell) -> Cell:
    """A proof whose visible part is ``root``."""
    builder = Builder().uint(PROOF, 8).blob(root.hash_at(0)).uint(root.depth_at(0), _DEPTH_BITS)
    return builder.ref(root).end(PROOF)


def merkle_update(old: Cell, new: Cell) -> Cell:
    """From one tree to another, both shown by their hash alone."""
    builder = Builder().uint(UPDATE, 8).blob(old.hash_at(0)).blob(new.hash_at(0))
    builder.uint(old.depth_at(0), _DEPTH_BITS).uint(new.depth_at(0), _DEPTH_BITS)
    return builder.ref(pruned(old)).ref(pruned(new)).end(UPDATE)


def show(root: Cell, visible: Collection[bytes]) -> Cell:
    """``root`` with every branch pruned whose hash is not in ``visible``; the root itself stays.

    Branches of a level above 0 (inside a Merkle update) stay whole.
    """
    refs = [_shown(ref, visible) for ref in root.refs]
    return Cell(root.value, root.bits, refs, root.kind)


def _shown(cell: Cell, visible: Collection[bytes]) -> Cell:
    if cell.kind != ORDINARY or cell.level:
        return cell
    return show(cell, visible) if cell.hash in visible else pruned(cell)


# --- bags of cells -------------------------------------------------------------


def pack(*roots: Cell) -> bytes:
    """Serialize trees as one bag; a cell that several share is stored once."""
    order = _topological(roots)
    index = {cell.hash: at for at, cell in enumerate(order)}
    width = max(1, (len(order).bit_length() + 7) // 8)
    body = b"".join(_packed(cell, index, width) for cell in order)
    offset = max(1, (len(body).bit_length() + 7) // 8)
    counts = (len(order), len(roots), 0)
    header = _MAGIC + bytes((width, offset)) + b"".join(count.to_bytes(width, "big") for count in counts)
    starts = b"".join(index[root.hash].to_bytes(width, "big") for root in roots)
    return header + len(body).to_bytes(offset, "big") + starts + body


def _packed(cell: Cell, index: dict[bytes, int], width: int) -> bytes:
    kind = 8 if cell.kind != ORDINARY else 0
    descriptors = bytes((len(cell.refs) + kind + 32 * cell.mask, cell.bits // 8 + (cell.bits + 7) // 8))
    return descriptors + cell.data() + b"".join(index[ref.hash].to_bytes(width, "big") for ref in cell.refs)


def _topological(roots: Iterable[Cell]) -> list[Cell]:
    """Every cell once, parents before children; without recursion, for deep trees."""
    done: dict[bytes, Cell] = {}
    for root in roots:
        stack = [(root, False)]
        while stack:
            cell, expanded = stack.pop()
            if cell.hash in done:
                continue
            if expanded:
                done[cell.hash] = cell
                continue
            stack.append((cell, True))
            stack.extend((ref, False) for ref in cell.refs)
    return list(reversed(done.values()))


def unpack(data: bytes, max_cells: int) -> Cell:
    """Parse a bag with one root.

    Args:
        data: At most what the caller allows; nothing larger is allocated than it pays for.
        max_cells: Most cells it may hold.

    Raises:
        Malformed: it is no such bag, in any way.
    """
    return unpack_all(data, max_cells, 1)[0]


def unpack_all(data: bytes, max_cells: int, max_roots: int) -> list[Cell]:
    """Parse a bag with 1 to ``max_roots`` roots; see ``unpack``."""
    take = _Bytes(data)
    if take.blob(4) != _MAGIC:
        raise Malformed("the bytes are no bag of cells")
    flags, offset = take.uint(1), take.uint(1)
    width = flags & 7
    if not 1 <= width <= 4 or not 1 <= offset <= 8 or flags & 0x18:
        raise Malformed(f"a bag of cells with flags {flags:#x} and offsets of {offset} bytes")
    cells, roots, absent = take.uint(width), take.uint(width), take.uint(width)
    size = take.uint(offset)
    if not 1 <= cells <= max_cells or not 1 <= roots <= max_roots or absent:
        raise Malformed(f"a bag of {cells} cells, {roots} roots, {absent} absent; at most {max_cells} cells are taken")
    starts = [take.uint(width) for _ in range(roots)]
    take.blob(cells * offset if flags & 0x80 else 0)
    body = take.blob(size)
    take.blob(4 if flags & 0x40 else 0)
    take.end()
    return _built(_Bytes(body), cells, width, starts)


def _built(body: _Bytes, cells: int, width: int, starts: list[int]) -> list[Cell]:
    raw = [_raw(body, width) for _ in range(cells)]
    body.end()
    built: list[Cell | None] = [None] * cells
    for at in reversed(range(cells)):
        kind, value, bits, refs = raw[at]
        below: list[Cell] = []
        for ref in refs:
            found = built[ref] if at < ref < cells else None
            if found is None:
                raise Malformed("a cell refers to none behind it")
            below.append(found)
        built[at] = Cell(value, bits, below, kind)
    roots = [built[start] if start < cells else None for start in starts]
    whole = [root for root in roots if root is not None]
    if len(whole) < len(roots):
        raise Malformed("a root of the bag is missing")
    return whole


def _raw(body: _Bytes, width: int) -> tuple[int, int, int, list[int]]:
    """Kind, value, bits and reference indices of the next cell."""
    first, second = body.uint(1), body.uint(1)
    refs = first & 7
    if refs > MAX_REFS:
        raise Malformed(f"a cell with descriptor {first:#x}")
    if first & 0x10:
        # Hash and depth of each level, as the TVM's own bags carry them for some cells; they are made anew here.
        body.blob(34 * ((first >> 5).bit_count() + 1))
    length = (second + 1) // 2
    value, bits = int.from_bytes(body.blob(length), "big"), 8 * length
    if second & 1:
        if not value & 0xFF:
            raise Malformed("a cell without its completion tag")
        spare = (value & -value).bit_length()
        value, bits = value >> spare, bits - spare
    kind = ORDINARY
    if first & 8:
        if bits < 8:
            raise Malformed("an exotic cell without a kind")
        kind = value >> (bits - 8)
        if not PRUNED <= kind <= UPDATE:
            raise Malformed(f"an exotic cell of kind {kind}")
    return kind, value, bits, [body.uint(width) for _ in range(refs)]


class _Bytes:
    """Takes bytes from the front and refuses to go past the end."""

    __slots__ = ("_data", "_at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def blob(self, length: int) -> bytes:
        if length > len(self._data) - self._at:
            raise Malformed(f"{length} bytes wanted, {len(self._data) - self._at} left in the bag")
        self._at += length
        return self._data[self._at - length : self._at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.blob(length), "big")

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"{len(self._data) - self._at} bytes after the bag")
