"""TOK-4 and TOK-9: the bytes of tokens as a file, and the running hash over tokens."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, ModelRefused
from cocoon.core.limits import PIECE_BYTES, PIECES_BYTES, VOCABULARY
from cocoon.wire.tokens import first_head, next_head, pack_pieces, unpack_pieces

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=8)


def head_of(prompt, made):
    """The running hash behind all of these."""
    head = first_head(prompt)
    for token in made:
        head = next_head(head, token)
    return head


def test_the_running_hash_is_the_one_of_the_rules():
    start = hashlib.sha256(b"cocoon tokens 1\0" + bytes([0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 1, 0])).digest()
    assert first_head([7, 256]) == start
    assert next_head(start, 9) == hashlib.sha256(start + bytes([0, 0, 0, 9])).digest()


@given(tokens, tokens, tokens, tokens)
def test_two_sequences_have_one_hash_only_if_prompt_and_tokens_are_equal(prompt, made, other_prompt, other_made):
    same = (prompt, made) == (other_prompt, other_made)
    assert (head_of(prompt, made) == head_of(other_prompt, other_made)) is same


@given(tokens, tokens.filter(bool))
def test_a_token_of_the_prompt_is_not_taken_for_one_that_was_made(prompt, made):
    assert head_of(prompt, made) != head_of([*prompt, made[0]], made[1:])


def test_a_token_that_was_left_out_changes_every_hash_behind_it():
    assert head_of([1], [2, 3, 4, 5]) != head_of([1], [2, 4, 5])
    assert head_of([1], [2, 3, 4, 5]) != head_of([1], [2, 4, 3, 5])


@given(st.lists(st.binary(max_size=9)))
def test_the_bytes_of_tokens_come_back_as_they_were(pieces):
    assert unpack_pieces(pack_pieces(pieces)) == tuple(pieces)


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1), st.integers(1, 2))
def test_a_file_of_pieces_that_is_cut_off_is_refused(pieces, missing):
    with pytest.raises(Malformed):
        unpack_pieces(pack_pieces(pieces)[:-missing])


def test_a_file_of_pieces_beyond_its_limits_is_refused():
    with pytest.raises(Malformed):
        unpack_pieces((PIECE_BYTES + 1).to_bytes(2, "big") + bytes(PIECE_BYTES + 1))
    with pytest.raises(Malformed):
        unpack_pieces(bytes(2 * VOCABULARY + 2))
    with pytest.raises(Malformed):
        unpack_pieces(bytes(PIECES_BYTES + 2))
    with pytest.raises(ModelRefused):
        pack_pieces([bytes(PIECE_BYTES + 1)])
    with pytest.raises(ModelRefused):
        pack_pieces([b""] * (VOCABULARY + 1))
