"""Merkle trees against the definition of RFC 6962, and against forgers."""

from __future__ import annotations

import hashlib

import pytest

from cocoon.core.errors import UsageError
from cocoon.wire import merkle


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_path(leaves: list[bytes], index: int) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*defined_path(leaves[:k], index), defined_root(leaves[k:])]
    return [*defined_path(leaves[k:], index - k), defined_root(leaves[:k])]


def some_leaves(count: int) -> list[bytes]:
    return [index.to_bytes(4, "big") * 8 for index in range(count)]


@pytest.mark.parametrize("count", range(71))
def test_root_and_every_path_are_those_of_rfc_6962(count: int) -> None:
    leaves = some_leaves(count)
    root = merkle.root(leaves)
    assert root == defined_root(leaves)
    for index in range(count):
        path = merkle.path(leaves, index)
        assert path == defined_path(leaves, index)
        assert merkle.verify(root, leaves[index], index, count, path)


def test_the_published_root_of_the_certificate_transparency_test_tree() -> None:
    """Eight leaves and root of certificate-transparency's own unit test."""
    leaves = [bytes.fromhex(h) for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    leaves.append(bytes(range(0x60, 0x70)))
    assert merkle.root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13])
def test_no_other_leaf_index_count_or_path_verifies(count: int) -> None:
    leaves = some_leaves(count)
    root = merkle.root(leaves)
    for index in range(count):
        path = merkle.path(leaves, index)
        assert not merkle.verify(root, b"other", index, count, path)
        assert not merkle.verify(bytes(32), leaves[index], index, count, path)
        assert not any(merkle.verify(root, leaves[index], i, count, path) for i in range(count) if i != index)
        assert not merkle.verify(root, leaves[index], index, count, [*path, bytes(32)])
        for other in [path[:i] + path[i + 1 :] for i in range(len(path))] + [path[1:] + path[:1]]:
            assert other == path or not merkle.verify(root, leaves[index], index, count, other)


@pytest.mark.parametrize(("index", "count"), [(-1, 3), (3, 3), (0, 0), (5, 3)])
def test_an_index_outside_the_tree_verifies_nothing(index: int, count: int) -> None:
    leaves = some_leaves(3)
    assert not merkle.verify(merkle.root(leaves), leaves[0], index, count, merkle.path(leaves, 0))
    with pytest.raises(UsageError):
        merkle.path(leaves[:count], index)


def test_an_inner_node_cannot_pass_as_a_leaf() -> None:
    """The second preimage that the prefixes prevent: two children, joined, as one leaf."""
    leaves = some_leaves(4)
    left, right = (merkle.node_hash(*map(merkle.leaf_hash, leaves[i : i + 2])) for i in (0, 2))
    joined = merkle.leaf_hash(leaves[0]) + merkle.leaf_hash(leaves[1])
    root = merkle.root(leaves)
    assert merkle.node_hash(left, right) == root
    assert not merkle.verify(root, joined, 0, 2, [right])
    assert merkle.root([left, right]) != root
    assert merkle.root([joined, leaves[2] + leaves[3]]) != root


def test_a_leaf_cannot_be_repeated_or_reordered_unnoticed() -> None:
    """Trees that duplicate the last node (CVE-2012-2459) confuse [a, b, c] with [a, b, c, c]."""
    a, b, c = some_leaves(3)
    roots = [merkle.root(x) for x in ([a, b, c], [a, b, c, c], [a, c, b], [a, b], [a, b, c, b])]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("count", [*range(1, 34), 100, 1_000])
def test_the_sides_of_a_path_lead_to_the_root(count: int) -> None:
    """What a contract folds, which knows neither index nor count."""
    leaves = [bytes([number & 255, number >> 8]) for number in range(count)]
    for index in {0, 1, count // 2, count - 2, count - 1} & set(range(count)):
        value = merkle.leaf_hash(leaves[index])
        path = merkle.path(leaves, index)
        for left, neighbour in zip(merkle.sides(index, count), path, strict=True):
            value = merkle.node_hash(neighbour, value) if left else merkle.node_hash(value, neighbour)
        assert value == merkle.root(leaves)
    for index in (-1, count):
        with pytest.raises(UsageError):
            merkle.sides(index, count)
