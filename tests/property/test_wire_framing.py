"""Laws of frames and trees: splitting does not matter, and proofs hold for every leaf."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import TooLarge
from cocoon.wire import merkle
from cocoon.wire.framing import FrameParser, frame

PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


@given(PAYLOADS, st.lists(st.integers(0, 400), max_size=30))
def test_any_split_gives_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    ends = [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = FrameParser(40)
    found: list[bytes] = []
    start = 0
    for end in ends:
        found += parser.feed(stream[start:end])
        start = end
    assert found == payloads
    parser.end()


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_arbitrary_bytes_give_frames_within_the_limit_or_a_typed_error(pieces: list[bytes]) -> None:
    parser = FrameParser(64)
    try:
        for piece in pieces:
            assert all(len(payload) <= 64 for payload in parser.feed(piece))
    except TooLarge:
        pass


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=300), st.data())
def test_every_leaf_of_a_tree_of_any_size_is_proved(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, path = merkle.root(leaves), merkle.path(leaves, index)
    assert merkle.verify(root, leaves[index], index, len(leaves), path)
    assert not merkle.verify(root, leaves[index] + b"\0", index, len(leaves), path)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=40),
    st.integers(-5, 1 << 40),
    st.integers(-5, 1 << 40),
    st.lists(st.binary(max_size=33), max_size=50),
)
def test_a_made_up_proof_never_verifies(
    root: bytes, leaf: bytes, index: int, count: int, path: list[bytes]
) -> None:
    assert not merkle.verify(root, leaf, index, count, path)
