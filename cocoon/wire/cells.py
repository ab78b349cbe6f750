"""TVM cells: bits and references in, representation hash out, and back.

The hash is SHA-256 over two descriptor bytes, the data filled up to whole bytes
by one 1 and then 0s (the completion tag), and depth and hash of each reference.
A cell computes it once, when it is made, from those of its references: shared
subtrees cost nothing twice, and a deep tree needs no recursion. Only ordinary
cells of level 0, and what is below an exotic one is not looked at.

Purity: pure. Spec: docs/spec/judged.md, rules JUD-1 and JUD-7; the TVM white paper, 3.1.4 to 3.1.7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cocoon.core.errors import Malformed, UsageError

MAX_BITS = 1_023
MAX_REFS = 4
MAX_DEPTH = 1_023
_ADDR_STD = 0b100  # addr_std$10 and no anycast
_ADDR_STD_BITS = 3
_WORKCHAIN_BITS = 8
#: An amount is its length in bytes (four bits), then so many bytes.
_COINS_LENGTH_BITS = 4
_COINS_BYTES = 15
_STATE_INIT = 0b00110  # neither split nor special; code and data, no libraries


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cell:
    """An ordinary cell: ``bits`` data bits as one big-endian integer, and references."""

    value: int
    bits: int
    refs: tuple[Cell, ...] = ()
    _depth: int = field(init=False)
    _hash: bytes = field(init=False)

    def __post_init__(self) -> None:
        depth = 1 + max(ref._depth for ref in self.refs) if self.refs else 0
        if len(self.refs) > MAX_REFS or depth > MAX_DEPTH:
            raise UsageError(f"a cell has at most {MAX_REFS} references and depth {MAX_DEPTH}")
        if not 0 <= self.bits <= MAX_BITS or not 0 <= self.value < 1 << self.bits:
            raise UsageError(f"a cell has at most {MAX_BITS} bits, and its value fits them")
        descriptors = bytes((len(self.refs), self.bits // 8 + (self.bits + 7) // 8))
        below = b"".join(ref._depth.to_bytes(2, "big") for ref in self.refs)
        below += b"".join(ref._hash for ref in self.refs)
        object.__setattr__(self, "_depth", depth)
        object.__setattr__(self, "_hash", hashlib.sha256(descriptors + self.data() + below).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self._hash == other._hash

    def __hash__(self) -> int:
        return hash(self._hash)

    def __repr__(self) -> str:
        return f"Cell({self.bits} bits, {len(self.refs)} refs, {self._hash.hex()[:16]})"

    @classmethod
    def opaque(cls, digest: bytes, depth: int) -> Cell:
        """A cell of which only hash and depth are known, because it is exotic; whoever reads it finds nothing.

        What strangers send may hold library references and proofs. No contract of ours reads them.
        """
        made = cls.__new__(cls)
        for name, value in (("value", 0), ("bits", 0), ("refs", ()), ("_depth", depth), ("_hash", digest)):
            object.__setattr__(made, name, value)
        return made

    def data(self) -> bytes:
        """The data bits as whole bytes, with the completion tag if they do not fill the last one."""
        spare = -self.bits % 8
        padded = self.value << spare | (1 << spare >> 1)
        return padded.to_bytes((self.bits + spare) // 8, "big")

    def depth(self) -> int:
        """Longest way down; 0 without references."""
        return self._depth

    def hash(self) -> bytes:
        """Representation hash, 32 bytes: what contracts and signatures name this cell by."""
        return self._hash


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

    def coins(self, nanoton: int) -> CellBuilder:
        """Append an amount: its length in bytes (4 bits), then the bytes."""
        length = (nanoton.bit_length() + 7) // 8
        if nanoton < 0 or length > _COINS_BYTES:
            raise UsageError(f"{nanoton} is no amount of at most {_COINS_BYTES} bytes")
        return self.uint(length, _COINS_LENGTH_BITS).uint(nanoton, 8 * length)

    def inline(self, cell: Cell) -> CellBuilder:
        """Append the bits and references of another cell."""
        self.uint(cell.value, cell.bits)
        for ref in cell.refs:
            self.ref(ref)
        return self

    def maybe(self, cell: Cell | None) -> CellBuilder:
        """Append one bit, and a reference if there is a cell."""
        return self.uint(0, 1) if cell is None else self.uint(1, 1).ref(cell)

    def ref(self, cell: Cell) -> CellBuilder:
        """Append a reference."""
        if len(self._refs) == MAX_REFS:
            raise UsageError(f"a cell holds at most {MAX_REFS} references")
        self._refs.append(cell)
        return self

    def end(self) -> Cell:
        """The finished cell."""
        return Cell(self._value, self._bits, tuple(self._refs))


def plain_hash(data: bytes) -> bytes:
    """Representation hash of a cell without references whose bits are the whole bytes ``data``, 127 of them at most."""
    return hashlib.sha256(bytes((0, 2 * len(data))) + data).digest()


def state_init(code: Cell, data: Cell) -> Cell:
    """Code and data as what deploys an account; its hash is the account's address."""
    return CellBuilder().uint(_STATE_INIT, 5).ref(code).ref(data).end()


class CellReader:
    """Takes bits and references in the order in which they were stored."""

    __slots__ = ("_value", "_left", "_refs")

    def __init__(self, data: bytes, bits: int) -> None:
        """``data``: as ``Cell.data`` gives it, for a cell of exactly ``bits`` bits and no references.

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
        self._refs: tuple[Cell, ...] = ()

    @classmethod
    def of(cls, cell: Cell) -> CellReader:
        """A reader at the beginning of ``cell``."""
        made = cls.__new__(cls)
        made._value, made._left, made._refs = cell.value, cell.bits, cell.refs
        return made

    @property
    def bits_left(self) -> int:
        """Bits that nobody read yet."""
        return self._left

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

    def coins(self) -> int:
        """The next amount, nanoton.

        Raises:
            Malformed: it ends early, or begins with a zero byte (a second spelling).
        """
        length = self.uint(_COINS_LENGTH_BITS)
        amount = self.uint(8 * length)
        if amount.bit_length() <= 8 * (length - 1):
            raise Malformed(f"the amount {amount} takes fewer than {length} bytes")
        return amount

    def ref(self) -> Cell:
        """The next reference.

        Raises:
            Malformed: there is none.
        """
        if not self._refs:
            raise Malformed("a reference wanted, none left in the cell")
        first, *rest = self._refs
        self._refs = tuple(rest)
        return first

    def maybe(self) -> Cell | None:
        """One bit, and a reference if it is 1."""
        return self.ref() if self.uint(1) else None

    def rest(self) -> Cell:
        """What nobody read yet, as a cell."""
        cell = Cell(self._value & ((1 << self._left) - 1), self._left, self._refs)
        self._left, self._refs = 0, ()
        return cell

    def end(self) -> None:
        """Refuse bits and references that nobody read."""
        if self._left or self._refs:
            raise Malformed(f"{self._left} bits and {len(self._refs)} references left in the cell")
