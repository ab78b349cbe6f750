"""Dictionaries of the TVM (hashmaps), read only.

A tree of cells in which a node's label holds the bits of the key that all below
it share. A fork takes one bit, so the depth is bounded by the key's length.

Purity: pure. Spec: docs/spec/judged.md, rule JUD-15; the TVM white paper, 3.3.
"""

from __future__ import annotations

from cocoon.core.errors import Malformed, TooLarge
from cocoon.wire.cells import Cell, CellReader


def read_dictionary(root: Cell | None, key_bits: int, most: int) -> dict[int, CellReader]:
    """Every key of ``key_bits`` bits with a reader at its value, keys rising. None is the empty dictionary.

    Raises:
        TooLarge: more than ``most`` entries.
        Malformed: it is no dictionary with such keys.
    """
    return {} if root is None else _walk(CellReader.of(root), key_bits, most, sums=False)


def read_summed(reader: CellReader, key_bits: int, most: int) -> dict[int, CellReader]:
    """As ``read_dictionary``, of a dictionary whose nodes carry sums (``HashmapAug``) and whose root is at ``reader``.

    The sums of forks are passed over; the reader of an entry stands at its own, before the value.
    """
    return _walk(reader, key_bits, most, sums=True)


def _walk(root: CellReader, key_bits: int, most: int, *, sums: bool) -> dict[int, CellReader]:
    found: dict[int, CellReader] = {}
    todo = [(root, 0, key_bits)]
    while todo:
        reader, prefix, left = todo.pop()
        label, length = _label(reader, left)
        prefix, left = prefix << length | label, left - length
        if left:
            zero, one = CellReader.of(reader.ref()), CellReader.of(reader.ref())
            if not sums:
                reader.end()
            todo += [(one, prefix << 1 | 1, left - 1), (zero, prefix << 1, left - 1)]
        else:
            found[prefix] = reader
        # A fork has entries on both sides, so what waits will be at least so many.
        if len(found) + len(todo) > most:
            raise TooLarge(f"a dictionary with more than {most} entries")
    return found


def _label(reader: CellReader, most: int) -> tuple[int, int]:
    """The bits of a node's label, and how many."""
    width = most.bit_length()
    if not reader.uint(1):
        length = 0
        while reader.uint(1):
            length += 1
        same = None
    elif not reader.uint(1):
        length, same = reader.uint(width), None
    else:
        same, length = reader.uint(1), reader.uint(width)
    if length > most:
        raise Malformed(f"a label of {length} bits where {most} bits of the key are left")
    if same is not None:
        return ((1 << length) - 1 if same else 0), length
    return reader.uint(length), length
