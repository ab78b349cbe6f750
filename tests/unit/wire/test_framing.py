"""Frames survive any splitting, and a huge announcement costs nothing."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, TooLarge
from cocoon.core.limits import SMALL_PAYLOAD_BYTES
from cocoon.core.pieces import unsent
from cocoon.core.units import KIB, MIB
from cocoon.wire.framing import Arrived, FrameParser, frame, frame_length, framed

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


@given(st.lists(st.integers(1, 200 * KIB), min_size=1, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_frame_is_the_same_whether_it_was_written_in_place_or_added(steps: list[int], in_place: list[bool]) -> None:
    payloads = [b"s", bytes(range(256)) * 700, b"", bytes(range(255)) * 900, b"e" * 70_000]
    stream, at, turn = b"".join(map(frame, payloads)), 0, 0
    arrived, found = Arrived(), []
    while at < len(stream):
        step, room = steps[turn % len(steps)], arrived.room()
        if room is not None and in_place[turn % len(in_place)]:
            step = min(step, len(room))
            room[:step] = stream[at : at + step]
            arrived.wrote(step)
        else:
            arrived.add(stream[at : at + step])
        at, turn = at + step, turn + 1
        while (payload := arrived.frame(MIB)) is not None:
            found.append(bytes(payload))
            arrived.give_back(payload)
    assert found == payloads and not arrived


def test_there_is_room_for_a_long_frame_that_is_not_too_long_and_for_no_more_than_its_rest() -> None:
    arrived = Arrived()
    arrived.add((100 * KIB).to_bytes(4, "big") + b"began")
    assert arrived.room() is None, "nobody has said how long a frame may be"
    assert arrived.frame(MIB) is None
    room = arrived.room()
    assert room is not None and len(room) == 100 * KIB - 5
    arrived.add((600 * KIB).to_bytes(4, "big"))
    assert len(arrived.room() or b"") == 100 * KIB - 9
    with pytest.raises(TooLarge):
        arrived.frame(100 * KIB - 1)
    arrived.clear()
    arrived.add((600 * KIB).to_bytes(4, "big") + b"began")
    assert arrived.frame(MIB) is None and arrived.room() is None


def test_a_long_frame_comes_to_where_one_of_its_length_lay_and_to_no_other_place() -> None:
    arrived = Arrived()

    def came(byte: bytes, length: int) -> bytearray:
        arrived.add(length.to_bytes(4, "big"))
        assert arrived.frame(MIB) is None
        arrived.add(byte * length)
        frame = arrived.frame(MIB)
        assert isinstance(frame, bytearray) and frame == byte * length
        return frame

    first = came(b"1", 100 * KIB)
    assert came(b"2", 100 * KIB) is not first and first == b"1" * 100 * KIB, "somebody may still read it"
    arrived.give_back(first)
    assert came(b"3", 100 * KIB) is first
    arrived.give_back(first)
    assert came(b"4", 70 * KIB) is not first


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
