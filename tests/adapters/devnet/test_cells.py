"""Our cells against pytoniq's: equal hashes, bags and proofs; and what no bag may be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell as TheirCell
from pytoniq_core import HashMap

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import DEVNET_CELL_DEPTH
from cocoon.devnet.cells import (
    PROOF,
    Builder,
    Cell,
    merkle_proof,
    merkle_update,
    pack,
    pruned,
    show,
    unpack,
    unpack_all,
)
from cocoon.devnet.configuration import configuration
from cocoon.devnet.hashmap import ACCOUNTS, TRANSACTIONS, Trie, load_map, store_map

CONFIG = configuration(bytes(16))
MOST = 4_096


@st.composite
def trees(draw):
    """Trees with shared branches."""
    cells = [Cell(0, 0)]
    for _ in range(draw(st.integers(0, 8))):
        bits = draw(st.integers(0, 1_023))
        refs = draw(st.lists(st.sampled_from(cells), max_size=4))
        cells.append(Cell(draw(st.integers(0, (1 << bits) - 1)), bits, refs))
    return cells[-1]


@given(trees())
def test_a_tree_has_the_same_hash_and_bag_for_us_and_for_pytoniq(tree):
    theirs = TheirCell.one_from_boc(pack(tree))
    assert theirs.hash == tree.hash
    assert unpack(theirs.to_boc(), MOST) == tree
    assert unpack(theirs.to_boc(has_idx=True, hash_crc32=True), MOST) == tree
    assert unpack(pack(tree), MOST) == tree


@given(trees(), trees())
def test_several_roots_share_one_bag(one, other):
    assert unpack_all(pack(one, other), MOST, 2) == [one, other]
    assert [cell.hash for cell in TheirCell.from_boc(pack(one, other))] == [one.hash, other.hash]


@given(st.binary(max_size=400))
def test_bytes_that_are_no_bag_are_malformed(data):
    for bytes_ in (data, bytes.fromhex("b5ee9c72") + data, bytes.fromhex("b5ee9c72010101") + data):
        try:
            unpack(bytes_, 64)
        except Malformed:
            pass


@given(trees(), st.data())
def test_a_changed_bag_is_malformed_or_another_tree(tree, data):
    packed = bytearray(pack(tree))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = unpack(bytes(packed), MOST)
    except Malformed:
        return
    assert unpack(pack(changed), MOST) == changed


@pytest.mark.parametrize("claim", [b"\xff" * 4, (1 << 24).to_bytes(4, "big")])
def test_a_bag_that_claims_many_cells_is_refused_before_they_are_made(claim):
    with pytest.raises(Malformed, match="at most"):
        unpack(bytes.fromhex("b5ee9c720404") + claim + bytes(16), MOST)


def test_a_proof_shows_a_part_and_keeps_the_hash():
    shown = show(CONFIG, {CONFIG.refs[0].hash})
    proof = merkle_proof(shown)
    theirs = TheirCell.one_from_boc(pack(proof))
    assert theirs.hash == proof.hash
    assert shown.hash != CONFIG.hash
    assert shown.hash_at(0) == theirs[0].get_hash(0) == CONFIG.hash
    assert unpack(pack(proof), MOST) == proof
    assert len(pack(proof)) < len(pack(CONFIG))


def test_a_proof_of_a_merkle_update_keeps_it_whole():
    update = merkle_update(CONFIG, Cell(1, 1))
    block = Builder().ref(update).ref(CONFIG).end()
    proof = merkle_proof(show(block, ()))
    theirs = TheirCell.one_from_boc(pack(proof))
    assert theirs.hash == proof.hash
    assert theirs[0].get_hash(0) == block.hash
    assert theirs[0][0][1].get_hash(0) == Cell(1, 1).hash
    assert proof.level == 0


@pytest.mark.parametrize("cell", [
    lambda: Cell(0, 8, (), PROOF), lambda: Cell(1, 16, (), 1), lambda: Cell(0x0101, 288, (Cell(0, 0),), 1),
    lambda: Cell(2, 8, (), 2), lambda: Cell(0, 600, (), 9), lambda: Cell(0, 8, (Cell(0, 0), Cell(0, 0)), 4),
])
def test_an_exotic_cell_that_contradicts_its_kind_is_malformed(cell):
    with pytest.raises(Malformed):
        cell()


def test_a_tree_may_be_as_deep_as_the_machine_allows_and_no_deeper():
    tree = Cell(0, 0)
    for _ in range(DEVNET_CELL_DEPTH):
        tree = Cell(1, 1, (tree,))
    assert unpack(pack(tree), MOST) == tree
    with pytest.raises(Malformed, match="deeper"):
        Cell(1, 1, (tree,))


def test_a_full_cell_takes_no_more():
    builder = Builder().uint(0, 1_023)
    with pytest.raises(UsageError):
        builder.uint(0, 1)
    with pytest.raises(UsageError):
        Builder().uint(8, 3)
    with pytest.raises(Malformed):
        Cell(5, 3).read().uint(4)
    with pytest.raises(Malformed):
        Cell(5, 3).read().ref()


def test_a_pruned_branch_speaks_for_what_it_replaces():
    branch = pruned(CONFIG)
    assert (branch.hash_at(0), branch.depth_at(0), branch.level) == (CONFIG.hash, CONFIG.depth, 1)


# --- hashmaps ------------------------------------------------------------------


@given(st.dictionaries(st.integers(0, (1 << 32) - 1) | st.integers(0, 9), st.integers(0, 255), max_size=40))
def test_a_hashmap_is_the_one_that_pytoniq_builds(values):
    theirs = HashMap(32, value_serializer=lambda value, to: to.store_uint(value, 8))
    theirs.map = dict(values)
    ours = store_map({key: Cell(value, 8) for key, value in values.items()}, 32)
    assert (theirs.serialize().hash if values else None) == (ours.hash if ours else None)
    assert {key: reader.uint(8) for key, reader in load_map(ours, 32).items()} == dict(sorted(values.items()))


keys = st.integers(0, 15) | st.integers(0, (1 << 256) - 1) | st.integers(0, 3).map(lambda n: n << 254)


@given(st.lists(st.tuples(keys, st.integers(0, 1 << 60) | st.none()), max_size=60))
def test_a_trie_depends_on_what_it_holds_and_not_on_how_it_came_there(steps):
    trie, held = Trie(ACCOUNTS), {}
    for key, amount in steps:
        if amount is None:
            held.pop(key, None)
            trie = trie.drop(key)
        else:
            held[key] = amount
            trie = trie.put(key, Cell(amount, 64), amount)
    fresh = Trie(ACCOUNTS)
    for key in sorted(held):
        fresh = fresh.put(key, Cell(held[key], 64), held[key])
    assert trie.cell() == fresh.cell()
    assert trie.amount == sum(held.values())
    assert {key: value.value for key, value in trie.items()} == held
    assert all(trie.get(key).value == amount for key, amount in held.items())


def test_an_older_trie_stays_as_it_was():
    old = Trie(TRANSACTIONS).put(5, Cell(1, 1), 7)
    before = old.cell()
    old.put(6, Cell(0, 1), 9)
    old.drop(5)
    assert old.cell() == before


def test_the_path_to_a_key_that_is_absent_ends_where_it_would_be():
    trie = Trie(TRANSACTIONS).put(0, Cell(1, 1), 1).put(1 << 63, Cell(1, 1), 1)
    assert len(trie.path(1)) == 2
    assert trie.get(1) is None


def test_a_label_longer_than_its_key_is_malformed():
    endless = Cell((1 << 60) - 1 << 1, 61)
    with pytest.raises(Malformed):
        load_map(endless, 8)


def test_a_price_changes_what_depends_on_it_and_nothing_else():
    usual, other = (load_map(configuration(bytes(16), price), 32) for price in (400, 67))
    changed = {key for key in usual if usual[key].ref() != other[key].ref()}
    assert changed == {20, 21, 24, 25}


def test_two_networks_differ_in_their_nonce_alone():
    dice = random.Random(1)
    one, other = (load_map(configuration(dice.randbytes(16)), 32) for _ in range(2))
    assert {key for key in one if one[key].ref() != other[key].ref()} == {0x0C0C}
