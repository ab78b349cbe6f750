"""Merkle trees as in RFC 6962: SHA-256, 0x00 before a leaf, 0x01 before a node.

The prefixes keep a node from passing as a leaf. ``leaves`` are always the leaf
*data* (a statement's hash, a chunk's hash), never leaf hashes. The empty tree's
root is SHA-256 of nothing.

Purity: pure. Spec: docs/spec/wire.md, rule WIR-19; RFC 9162 section 2.1 for the verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from cocoon.core.errors import UsageError

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over the leaf data, in order, 32 bytes."""
    last = EMPTY_ROOT
    for level in _levels(leaves):
        last = level[0]
    return last


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that prove leaf ``index``, from the leaf's neighbour upwards.

    Raises:
        UsageError: no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise UsageError(f"no leaf {index} among {len(leaves)}")
    found = []
    for level in _levels(leaves):
        neighbour = index ^ 1
        # The last node of an odd level has none; it rises as it is.
        if neighbour < len(level):
            found.append(level[neighbour])
        index >>= 1
    return found


def verify(root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bool:
    """Whether ``leaf`` (data) is number ``index`` of the ``count`` leaves under ``root``.

    The length of ``path`` must be exactly what ``index`` and ``count`` imply.
    """
    if not 0 <= index < count:
        return False
    here, last = index, count - 1
    value = leaf_hash(leaf)
    for neighbour in path:
        if last == 0:
            return False
        if here & 1 or here == last:
            value = node_hash(neighbour, value)
            # Skip the levels on which this node had no neighbour and rose as it was.
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            value = node_hash(value, neighbour)
        here, last = here >> 1, last >> 1
    return last == 0 and value == root


def sides(index: int, count: int) -> list[bool]:
    """Whether each hash of the path of leaf ``index`` of ``count`` is on the left, from the leaf upwards.

    Raises:
        UsageError: no such leaf.
    """
    if not 0 <= index < count:
        raise UsageError(f"no leaf {index} among {count}")
    found, last = [], count - 1
    while last:
        if index & 1:
            found.append(True)
        elif index < last:
            found.append(False)
        index, last = index >> 1, last >> 1
    return found


def _levels(leaves: Sequence[bytes]) -> Iterator[list[bytes]]:
    """All levels of the tree, leaf hashes first, the root's level last; none if there are no leaves."""
    level = [leaf_hash(leaf) for leaf in leaves]
    while level:
        yield level
        if len(level) == 1:
            return
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
