"""Bags of cells: a tree of cells as bytes, and back.

What the chain's messages and states travel in. Everything is compared with a
bound before it is allocated, and read without recursion: a cell may only refer
to later ones, so the last is made first.

Purity: pure. Spec: docs/spec/judged.md, rules JUD-7 and JUD-8; the TON block format (``serialized_boc``).
"""

from __future__ import annotations

from cocoon.core.errors import Malformed, TooLarge, UsageError
from cocoon.core.limits import BOC_BYTES, BOC_CELLS
from cocoon.wire.cells import MAX_REFS, Cell

_MAGIC = b"\xb5\xee\x9c\x72"
_HAS_INDEX, _HAS_CRC, _HAS_CACHE, _UNUSED_FLAGS = 0x80, 0x40, 0x20, 0x18
_WIDTH = 0x07
_OWN_HASH = 0x10
_OWN_HASH_BYTES = 34
_CRC_BYTES = 4


def pack(root: Cell) -> bytes:
    """The bag with one root, each distinct cell once, with its CRC and without an index.

    Raises:
        TooLarge: more cells or bytes than ``unpack`` takes by default.
    """
    order = _sorted(root)
    place = {cell.hash(): number for number, cell in enumerate(order)}
    width = (len(order).bit_length() + 7) // 8
    body = bytearray()
    for cell in order:
        data = cell.data()
        body += bytes((len(cell.refs), cell.bits // 8 + (cell.bits + 7) // 8)) + data
        for ref in cell.refs:
            body += place[ref.hash()].to_bytes(width, "big")
    offset = (len(body).bit_length() + 7) // 8
    head = _MAGIC + bytes((_HAS_CRC | width, offset)) + len(order).to_bytes(width, "big")
    head += (1).to_bytes(width, "big") + bytes(width) + len(body).to_bytes(offset, "big") + bytes(width)
    made = bytes(head + body)
    if len(made) + _CRC_BYTES > BOC_BYTES:
        raise TooLarge(f"a bag of {len(made)} bytes, where at most {BOC_BYTES} may be")
    return made + _crc32c(made).to_bytes(_CRC_BYTES, "little")


def unpack(data: bytes, *, max_bytes: int = BOC_BYTES, max_cells: int = BOC_CELLS) -> Cell:
    """The one root of a bag.

    Exotic cells (proofs, libraries) are refused: what we read by this has none. Where a cell carries its
    own hash and depth, they must be right.

    Raises:
        TooLarge: more bytes or cells than allowed; nothing was allocated.
        Malformed: anything else that is no bag of ordinary cells with one root.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"a bag of {len(data)} bytes, where at most {max_bytes} may be")
    reader = _Reader(data)
    if reader.take(4) != _MAGIC:
        raise Malformed("this is no bag of cells: it begins with another magic number")
    flags, offset_width = reader.take(2)
    width = flags & _WIDTH
    if flags & _UNUSED_FLAGS or not 1 <= width <= 4 or not 1 <= offset_width <= 8:
        raise Malformed(f"a bag's flags 0x{flags:02x} and widths {width}, {offset_width} are impossible")
    cells, roots, absent = (reader.uint(width) for _ in range(3))
    size = reader.uint(offset_width)
    if cells > max_cells:
        raise TooLarge(f"a bag of {cells} cells, where at most {max_cells} may be")
    if roots != 1 or absent or not cells:
        raise Malformed(f"a bag with {cells} cells, {roots} roots, {absent} absent; one root is due")
    root = reader.uint(width)
    if flags & _HAS_INDEX:
        reader.take(cells * offset_width)
    elif flags & _HAS_CACHE:
        raise Malformed("a bag with cache bits and no index")
    body = _Reader(reader.take(size))
    if flags & _HAS_CRC and _crc32c(data[: reader.at]) != int.from_bytes(reader.take(_CRC_BYTES), "little"):
        raise Malformed("a bag's CRC does not fit its bytes")
    reader.end()
    return _build([_read_cell(body, width) for _ in range(cells)], root, body)


def tree_size(root: Cell) -> tuple[int, int]:
    """Distinct cells of a tree and the bits in them: what the network's fees go by."""
    cells = _sorted(root)
    return len(cells), sum(cell.bits for cell in cells)


def _sorted(root: Cell) -> list[Cell]:
    """Each distinct cell once, before all that it refers to; iterative, as trees may be deep."""
    seen: set[bytes] = set()
    done: list[Cell] = []
    todo: list[tuple[Cell, bool]] = [(root, False)]
    while todo:
        cell, left = todo.pop()
        if left:
            done.append(cell)
        elif cell.hash() not in seen:
            seen.add(cell.hash())
            if len(seen) > BOC_CELLS:
                raise TooLarge(f"more than {BOC_CELLS} cells in one bag")
            todo.append((cell, True))
            todo.extend((ref, False) for ref in cell.refs)
    return done[::-1]


#: Value, bits, references, and what the cell says of its own hash and depth (empty if nothing).
_Raw = tuple[int, int, list[int], bytes]


def _read_cell(body: _Reader, width: int) -> _Raw:
    first, second = body.take(2)
    refs = first & ~_OWN_HASH
    if refs > MAX_REFS:
        raise Malformed(f"a cell with descriptor 0x{first:02x} is exotic or of a level")
    own = body.take(_OWN_HASH_BYTES) if first & _OWN_HASH else b""
    data = body.take((second + 1) // 2)
    value, bits = int.from_bytes(data, "big"), 4 * second
    if second % 2:
        last = data[-1]
        spare = (last & -last).bit_length()
        if not 0 < spare < 8:
            raise Malformed("a cell's last byte has no completion tag")
        value, bits = value >> spare, 8 * len(data) - spare
    return value, bits, [body.uint(width) for _ in range(refs)], own


def _build(raw: list[_Raw], root: int, body: _Reader) -> Cell:
    body.end()
    if root >= len(raw):
        raise Malformed(f"the root is cell {root} of {len(raw)}")
    made: list[Cell | None] = [None] * len(raw)
    for number in range(len(raw) - 1, -1, -1):
        value, bits, refs, own = raw[number]
        below = []
        for ref in refs:
            if not number < ref < len(raw) or (cell := made[ref]) is None:
                raise Malformed(f"cell {number} refers to cell {ref} of {len(raw)}; only later ones may be")
            below.append(cell)
        try:
            cell = made[number] = Cell(value, bits, tuple(below))
        except UsageError as error:
            raise Malformed(error.text) from None
        if own and own != cell.hash() + cell.depth().to_bytes(2, "big"):
            raise Malformed(f"cell {number} carries another hash or depth than its own")
    found = made[root]
    assert found is not None
    return found


class _Reader:
    """Takes bytes from the front; what is missing is Malformed."""

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        if length > len(self._data) - self.at:
            raise Malformed(f"a bag ends {length - len(self._data) + self.at} bytes early")
        self.at += length
        return self._data[self.at - length : self.at]

    def uint(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def end(self) -> None:
        if self.at != len(self._data):
            raise Malformed(f"{len(self._data) - self.at} bytes too many in a bag")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _crc32c(data: bytes) -> int:
    """CRC-32 of Castagnoli."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF
