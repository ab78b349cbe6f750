"""Frames survive any splitting, and a huge announcement costs nothing."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, TooLarge
from cocoon.core.limits import SMALL_PAYLOAD_BYTES
from cocoon.core.pieces import unsent
from cocoon.wire.framing import FrameParser, frame, frame_length, framed

PAYLOADS = [b"", b"a", b"bc" * 300, b"", b"d" * 1_000]
STREAM = b"".join(frame(payload) for payload in PAYLOADS)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 64, 999, len(STREAM)])
def test_frames_do_not_depend_on_how_the_bytes_arrive(step: int) -> None:
    parser = FrameParser(1_000)
    found = [f for at in range(0, len(STREAM), step) for f in parser.feed(STREAM[at : at + step])]
    assert found == PAYLOADS
    parser.end()


def test_a_frame_is_a_big_endian_length_and_the_payload() -> None:
    assert frame(b"abc") == b"\0\0\0\3abc"


def test_a_frame_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert FrameParser(3).feed(frame(b"abc")) == [b"abc"]
    with pytest.raises(TooLarge) as caught:
        FrameParser(3).feed(frame(b"abcd"))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("length", [257, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("step", [1, 4])
def test_a_huge_announced_frame_is_refused_before_anything_is_allocated(length: int, step: int) -> None:
    parser = FrameParser(256)
    prefix = length.to_bytes(4, "big")
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            for at in range(0, 4, step):
                parser.feed(prefix[at : at + step])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("step", [1, 100, 5_000, 1 << 18])
def test_what_arrives_in_pieces_takes_hardly_more_than_its_bytes(step: int) -> None:
    size = max(1 << 18, 4 * step)
    data = bytes(size)
    parser = FrameParser(2 * size)
    parser.feed((2 * size).to_bytes(4, "big"))
    tracemalloc.start()
    try:
        for at in range(0, size, step):
            parser.feed(data[at : at + step])
        assert tracemalloc.get_traced_memory()[0] < 1.3 * size
    finally:
        tracemalloc.stop()


def test_a_frame_in_pieces_leaves_what_is_large_where_it_lies() -> None:
    large = bytes(SMALL_PAYLOAD_BYTES)
    pieces = framed([b"a", b"b", large, b"", b"c"])
    assert b"".join(pieces) == frame(b"ab" + large + b"c")
    assert len(pieces) == 3
    assert pieces[1] is large


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 30))
def test_what_the_system_took_is_not_sent_again(pieces: list[bytes], taken: int) -> None:
    whole = b"".join(pieces)
    left = unsent(map(memoryview, pieces), min(taken, len(whole)))
    assert b"".join(left) == whole[taken:]
    assert all(left), "an empty piece would be offered for ever"


def test_after_a_refusal_the_stream_stays_refused() -> None:
    parser = FrameParser(3)
    for data in (frame(b"abcd"), b"", frame(b"ok")):
        with pytest.raises(TooLarge):
            parser.feed(data)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_stream_that_ends_inside_a_frame_is_malformed(cut: int) -> None:
    parser = FrameParser(9)
    parser.feed(frame(b"whole") + frame(b"abcd")[:cut])
    with pytest.raises(Malformed, match="inside a frame"):
        parser.end()


def test_the_prefix_alone_is_judged_alike() -> None:
    assert frame_length(b"\0\0\1\0", 256) == 256
    with pytest.raises(TooLarge):
        frame_length(b"\0\0\1\1", 256)
