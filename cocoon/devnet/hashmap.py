"""TVM hashmaps: plain ones read and written whole, augmented ones as persistent tries.

A ``Trie`` is never changed: ``put`` and ``drop`` give a new one that shares all
branches but one path, so every block keeps its own state at the price of what
it changed.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-6; the TVM white paper, 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.values import Value
from cocoon.devnet.cells import Builder, Cell, Reader


def store_label(builder: Builder, label: int, bits: int, most: int) -> Builder:
    """Append a label of ``bits`` bits where ``most`` are left, in its shortest form."""
    width = most.bit_length()
    same = bits > 1 and label in (0, (1 << bits) - 1)
    if same and width < 2 * bits - 1:
        return builder.uint(0b11, 2).uint(label & 1, 1).uint(bits, width)
    if width < bits:
        return builder.uint(0b10, 2).uint(bits, width).uint(label, bits)
    return builder.uint(0, 1).uint((1 << bits + 1) - 2, bits + 1).uint(label, bits)


def load_label(reader: Reader, most: int) -> tuple[int, int]:
    """The next label and its number of bits, at most ``most``.

    Raises:
        Malformed: it is longer.
    """
    width = most.bit_length()
    if not reader.uint(1):
        bits = 0
        while reader.uint(1):
            bits += 1
        label = reader.uint(_within(bits, most))
    elif not reader.uint(1):
        bits = reader.uint(width)
        label = reader.uint(_within(bits, most))
    else:
        bit = reader.uint(1)
        bits = _within(reader.uint(width), most)
        label = (1 << bits) - 1 if bit else 0
    return label, bits


def _within(bits: int, most: int) -> int:
    if bits > most:
        raise Malformed(f"a label of {bits} bits where {most} are left")
    return bits


def load_map(root: Cell | None, key_bits: int) -> dict[int, Reader]:
    """Every key, ascending, with a reader behind its label; empty for no root.

    Raises:
        Malformed: it is no hashmap.
    """
    found: dict[int, Reader] = {}
    todo = [] if root is None else [(root, 0, key_bits)]
    while todo:
        cell, prefix, left = todo.pop()
        reader = cell.read()
        label, bits = load_label(reader, left)
        prefix, left = prefix << bits | label, left - bits
        if not left:
            found[prefix] = reader
            continue
        below = reader.ref(), reader.ref()
        todo.append((below[1], prefix << 1 | 1, left - 1))
        todo.append((below[0], prefix << 1, left - 1))
    return found


def store_map(values: Mapping[int, Cell], key_bits: int) -> Cell | None:
    """A hashmap whose values are the bits and references of each cell; None if empty."""
    if not values:
        return None
    return _store_edge(sorted(values.items()), key_bits)


def _store_edge(items: list[tuple[int, Cell]], left: int) -> Cell:
    """``items``: ascending, equal above their lowest ``left`` bits."""
    low, high = (items[0][0], items[-1][0])
    rest = (low ^ high).bit_length()
    bits = left - rest
    label = low >> rest & (1 << bits) - 1
    builder = store_label(Builder(), label, bits, left)
    if not rest:
        return builder.inline(items[0][1]).end()
    at = next(i for i, (key, _) in enumerate(items) if key >> (rest - 1) & 1)
    return builder.ref(_store_edge(items[:at], rest - 1)).ref(_store_edge(items[at:], rest - 1)).end()


class Kind(Value):
    """What an augmented hashmap is: bits of its keys, and whether its extra has a split depth."""

    key_bits: int
    depth: bool = False

    def store_extra(self, builder: Builder, amount: int) -> Builder:
        """Append the extra: ``CurrencyCollection``, or ``DepthBalanceInfo`` with depth 0."""
        return builder.uint(0, 5 if self.depth else 0).currency(amount)


#: ``ShardAccounts``, ``ShardAccountBlocks``, and the transactions of one ``AccountBlock``.
ACCOUNTS = Kind(256, depth=True)
ACCOUNT_BLOCKS = Kind(256)
TRANSACTIONS = Kind(64)


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """An edge and what hangs below it; ``left`` key bits are open above its label."""

    kind: Kind
    label: int
    bits: int
    left: int
    amount: int
    value: Cell | None = None
    below: tuple[_Node, _Node] | None = None
    cell: Cell = field(init=False)

    def __post_init__(self) -> None:
        builder = store_label(Builder(), self.label, self.bits, self.left)
        if self.below is not None:
            builder.ref(self.below[0].cell).ref(self.below[1].cell)
        self.kind.store_extra(builder, self.amount)
        if self.value is not None:
            builder.inline(self.value)
        object.__setattr__(self, "cell", builder.end())

    @property
    def rest(self) -> int:
        """Key bits that are open below the label."""
        return self.left - self.bits

    def leads_to(self, key: int) -> bool:
        """Whether the label agrees with ``key``."""
        return key >> self.rest & (1 << self.bits) - 1 == self.label

    def relabelled(self, label: int, bits: int, left: int) -> _Node:
        """The same content under another label."""
        return _Node(self.kind, label, bits, left, self.amount, self.value, self.below)


def _fork(label: int, bits: int, left: int, below: tuple[_Node, _Node]) -> _Node:
    return _Node(below[0].kind, label, bits, left, below[0].amount + below[1].amount, None, below)


def _put(node: _Node | None, key: int, leaf: _Node) -> _Node:
    """``leaf`` is the new value under its whole key; it is cut to where it belongs."""
    left = node.left if node else leaf.left
    key &= (1 << left) - 1
    if node is None or node.bits == left and node.label == key:
        return leaf.relabelled(key, left, left)
    if node.below is not None and node.leads_to(key):
        side = key >> (node.rest - 1) & 1
        lower = _put(node.below[side], key, leaf)
        return _fork(node.label, node.bits, left, _pair(side, lower, node.below[1 - side]))
    return _split(node, key, leaf)


def _split(node: _Node, key: int, leaf: _Node) -> _Node:
    """A fork where the label of ``node`` and ``key`` part."""
    differ = (key >> node.rest ^ node.label).bit_length()
    common = node.bits - differ
    below = node.left - common - 1
    old = node.relabelled(node.label & (1 << differ - 1) - 1, differ - 1, below)
    new = leaf.relabelled(key & (1 << below) - 1, below, below)
    return _fork(node.label >> differ, common, node.left, _pair(key >> below & 1, new, old))


def _pair(side: int, node: _Node, other: _Node) -> tuple[_Node, _Node]:
    return (other, node) if side else (node, other)


def _drop(node: _Node, key: int) -> _Node | None:
    """``node`` without ``key``, which it has; None if nothing is left."""
    if node.below is None:
        return None
    side = key >> (node.rest - 1) & 1
    other = node.below[1 - side]
    lower = _drop(node.below[side], key)
    if lower is not None:
        return _fork(node.label, node.bits, node.left, _pair(side, lower, other))
    label = (node.label << 1 | 1 - side) << other.bits | other.label
    return other.relabelled(label, node.bits + 1 + other.bits, node.left)


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """An augmented hashmap whose extra sums up the amounts of its values; immutable."""

    kind: Kind
    root: _Node | None = None

    @property
    def amount(self) -> int:
        """Sum of all amounts."""
        return self.root.amount if self.root else 0

    def edge(self) -> Cell:
        """The root edge (``HashmapAug``), for a trie that is not empty."""
        if self.root is None:
            raise UsageError("an empty hashmap has no edge")
        return self.root.cell

    def cell(self) -> Cell:
        """``HashmapAugE``: a bit, the root edge, the extra."""
        builder = Builder().maybe(self.root.cell if self.root else None)
        return self.kind.store_extra(builder, self.amount).end()

    def put(self, key: int, value: Cell, amount: int) -> Trie:
        """With ``key`` set; ``value`` is stored inline."""
        bits = self.kind.key_bits
        if not 0 <= key < 1 << bits:
            raise UsageError(f"{key} is no key of {bits} bits")
        return Trie(self.kind, _put(self.root, key, _Node(self.kind, key, bits, bits, amount, value)))

    def drop(self, key: int) -> Trie:
        """Without ``key``; the same trie if it has none."""
        if self.root is None or self.get(key) is None:
            return self
        return Trie(self.kind, _drop(self.root, key))

    def get(self, key: int) -> Cell | None:
        """The value under ``key``."""
        last = next(reversed(self._way(key)), None)
        return last.value if last is not None and last.leads_to(key) else None

    def path(self, key: int) -> list[Cell]:
        """The edges on the way to ``key``, or to where it would be; the first is the root edge."""
        return [node.cell for node in self._way(key)]

    def items(self) -> Iterator[tuple[int, Cell]]:
        """Every key with its value, ascending."""
        todo = [(self.root, 0)] if self.root else []
        while todo:
            node, prefix = todo.pop()
            prefix = prefix << node.bits | node.label
            if node.value is not None:
                yield prefix, node.value
            if node.below is not None:
                todo.append((node.below[1], prefix << 1 | 1))
                todo.append((node.below[0], prefix << 1))

    def _way(self, key: int) -> list[_Node]:
        nodes: list[_Node] = []
        node = self.root
        while node is not None:
            nodes.append(node)
            follow = node.below if node.leads_to(key) else None
            node = follow[key >> (node.rest - 1) & 1] if follow else None
        return nodes
