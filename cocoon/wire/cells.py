"""TVM cells, as far as signing needs them: bits in, representation hash out.

The hash is SHA-256 over two descriptor bytes, the data filled up to whole bytes
by one 1 and then 0s (the completion tag), and depth and hash of each reference.
Only ordinary cells of level 0.

Purity: pure. Spec: docs/spec/judged.md, rule JUD-1; the TVM white paper, 3.1.4 to 3.1.7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cocoon.core.errors import Malformed, UsageError

MAX_BITS = 1_023
MAX_REFS = 4
_ADDR_STD = 0b100  # addr_std$10 and no anycast
_ADDR_STD_BITS = 3
_WORKCHAIN_BITS = 8


@dataclass(frozen=True, slots=True)
class Cell:
    """An ordinary cell: ``bits`` data bits as one big-endian integer, and references."""

    value: int
    bits: int
    refs: tuple[Cell, ...] = ()

    def data(self) -> bytes:
        """The data bits as whole bytes, with the completion tag if they do not fill the last one."""
        spare = -self.bits % 8
        padded = self.value << spare | (1 << spare >> 1)
        return padded.to_bytes((self.bits + spare) // 8, "big")

    def depth(self) -> int:
        """Longest way down; 0 without references."""
        return 1 + max(ref.depth() for ref in self.refs) if self.refs else 0

    def hash(self) -> bytes:
        """Representation hash, 32 bytes: what contracts and signatures name this cell by."""
        descriptors = bytes((len(self.refs), self.bits // 8 + (self.bits + 7) // 8))
        depths = b"".join(ref.depth().to_bytes(2, "big") for ref in self.refs)
        hashes = b"".join(ref.hash() for ref in self.refs)
        return hashlib.sha256(descriptors + self.data() + depths + hashes).digest()


def representation_hash(data: bytes, bits: int) -> bytes:
    """Hash of a cell without references whose first ``bits`` bits are those of ``data``."""
    return Cell(int.from_bytes(data, "big") >> (8 * len(data) - bits), bits).hash()


class CellBuilder:
    """Collects bits, first stored first."""

    __slots__ = ("_value", "_bits", "_refs")

    def __init__(self) -> None:
        self._value = 0
        self._bits = 0
        self._refs: list[Cell] = []

    def uint(self, value: int, bits: int) -> CellBuilder:
        """Append an unsigned integer.

        Raises:
            UsageError: it does not fit, or the cell is full.
        """
        if not 0 <= value < 1 << bits:
            raise UsageError(f"{value} has no form of {bits} unsigned bits")
        if self._bits + bits > MAX_BITS:
            raise UsageError(f"a cell holds at most {MAX_BITS} bits")
        self._value = self._value << bits | value
        self._bits += bits
        return self

    def blob(self, data: bytes, length: int) -> CellBuilder:
        """Append a byte string of exactly ``length`` bytes."""
        if len(data) != length:
            raise UsageError(f"{len(data)} bytes where exactly {length} are due")
        return self.uint(int.from_bytes(data, "big"), 8 * length)

    def address(self, hash_part: bytes) -> CellBuilder:
        """Append an ``addr_std`` of workchain 0 (267 bits); 32 zero bytes stand for nobody."""
        self.uint(_ADDR_STD, _ADDR_STD_BITS).uint(0, _WORKCHAIN_BITS)
        return self.blob(hash_part, 32)

    def ref(self, cell: Cell) -> CellBuilder:
        """Append a reference."""
        if len(self._refs) == MAX_REFS:
            raise UsageError(f"a cell holds at most {MAX_REFS} references")
        self._refs.append(cell)
        return self

    def end(self) -> Cell:
        """The finished cell."""
        return Cell(self._value, self._bits, tuple(self._refs))


class CellReader:
    """Takes bits in the order in which they were stored, from the data bytes of one cell."""

    __slots__ = ("_value", "_left")

    def __init__(self, data: bytes, bits: int) -> None:
        """``data``: as ``Cell.data`` gives it, for a cell of exactly ``bits`` bits.

        Raises:
            Malformed: another length, or padding that is no completion tag.
        """
        spare = -bits % 8
        if 8 * len(data) != bits + spare:
            raise Malformed(f"{len(data)} bytes where a cell of {bits} bits has {(bits + spare) // 8}")
        value = int.from_bytes(data, "big")
        if value & ((1 << spare) - 1) != 1 << spare >> 1:
            raise Malformed("the bits after the cell's data are no completion tag")
        self._value = value >> spare
        self._left = bits

    def uint(self, bits: int) -> int:
        """The next unsigned integer of ``bits`` bits."""
        if bits > self._left:
            raise Malformed(f"{bits} bits wanted, {self._left} left in the cell")
        self._left -= bits
        return self._value >> self._left & ((1 << bits) - 1)

    def blob(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        return self.uint(8 * length).to_bytes(length, "big")

    def address(self) -> bytes:
        """The hash part of an ``addr_std`` of workchain 0; zeros stand for nobody.

        Raises:
            Malformed: any other form of address (none, external, anycast, another workchain).
        """
        if self.uint(_ADDR_STD_BITS) != _ADDR_STD or self.uint(_WORKCHAIN_BITS) != 0:
            raise Malformed("the address is no plain addr_std of workchain 0")
        return self.blob(32)

    def end(self) -> None:
        """Refuse bits that nobody read."""
        if self._left:
            raise Malformed(f"{self._left} bits left in the cell")
