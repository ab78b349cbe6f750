"""Laws of padding and of the sealed link, over sizes and tampering."""

import random

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon.core.errors import PeerFault
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LINK_FRAME_BYTES, PADDING_FLOOR_BYTES, PADDING_MARGIN_BYTES
from cocoon.core.pieces import whole
from cocoon.core.units import KIB
from cocoon.privacy.link import LinkKeys, SealedReader, SealedWriter, session_keys
from cocoon.privacy.padding import PREFIX_BYTES, pad, padded_bytes, unpad

KEYS = session_keys(LinkKeys(b"\x44" * 32, b"\x55" * 32), b"\x66" * 32, LeaseId(b"\x11" * 32))
lengths = st.one_of(
    st.integers(0, 5_000),
    st.integers(0, 3 * LINK_FRAME_BYTES),
    st.builds(
        lambda base, delta: max(0, base + delta),
        st.sampled_from([1 << k for k in range(10, 20)] + [LINK_FRAME_BYTES, 2 * LINK_FRAME_BYTES]),
        st.integers(-20, 20),
    ),
)


@given(payload=st.binary(max_size=5_000))
def test_unpad_is_the_inverse_of_pad(payload: bytes) -> None:
    assert unpad(pad(payload)) == payload


@given(length=st.integers(0, (1 << 32) - 1))
def test_padding_costs_an_eighth_or_the_floor(length: int) -> None:
    size = padded_bytes(length)
    assert size >= length + PREFIX_BYTES
    assert size == PADDING_FLOOR_BYTES or size * 8 <= (length + PREFIX_BYTES) * 9


@given(length=st.integers(0, (1 << 32) - 1), more=st.integers(0, 1 << 20))
def test_a_longer_payload_is_never_in_a_smaller_class(length: int, more: int) -> None:
    assert padded_bytes(length) <= padded_bytes(min(length + more, (1 << 32) - 1))


@given(length=st.integers(0, (1 << 32) - 1))
def test_there_are_eight_classes_a_doubling(length: int) -> None:
    size = padded_bytes(length)
    held = size - PADDING_MARGIN_BYTES if size > 64 * KIB else size
    assert held % ((1 << (held.bit_length() - 1)) // 8) == 0


@settings(max_examples=60, deadline=None)
@given(length=lengths, cuts=st.lists(st.integers(0, 3 * LINK_FRAME_BYTES), max_size=6))
def test_a_message_in_pieces_is_sealed_as_if_it_were_whole(length: int, cuts: list[int]) -> None:
    message = random.Random(length).randbytes(length)
    ends = sorted(min(cut, length) for cut in cuts)
    pieces = [message[begin:end] for begin, end in zip([0, *ends], [*ends, length], strict=True)]
    assert SealedWriter(KEYS.to_provider).seal(*pieces) == SealedWriter(KEYS.to_provider).seal(message)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(lengths, min_size=1, max_size=5))
def test_messages_of_any_sizes_arrive_whole_and_in_order(sizes: list[int]) -> None:
    writer, reader = SealedWriter(KEYS.to_provider), SealedReader(KEYS.to_provider)
    for number, size in enumerate(sizes):
        message = bytes([number]) * size
        answers = [reader.feed_frame(frame) for frame in writer.seal(message)]
        assert answers[:-1] == [None] * (len(answers) - 1)
        assert whole(answers[-1]) == message
        if number % 2:
            reader.give_back(answers[-1])
    reader.end()


@settings(max_examples=60, deadline=None)
@given(size=lengths)
def test_the_frames_of_a_message_hold_exactly_its_padded_form(size: int) -> None:
    message = b"\x7f" * size
    aead = AESGCM(KEYS.to_provider)
    frames = SealedWriter(KEYS.to_provider).seal(message)
    plain = [aead.decrypt(n.to_bytes(12, "big"), frame, None) for n, frame in enumerate(frames)]
    assert b"".join(plain) == pad(message)


@settings(max_examples=60, deadline=None)
@given(one=lengths, other=lengths)
def test_sizes_on_the_wire_depend_only_on_the_padded_class(one: int, other: int) -> None:
    """T-4: an observer of frame sizes learns the class of a message and nothing finer."""
    first = [len(frame) for frame in SealedWriter(KEYS.to_provider).seal(bytes(one))]
    second = [len(frame) for frame in SealedWriter(KEYS.to_provider).seal(b"\xff" * other)]
    assert (first == second) == (padded_bytes(one) == padded_bytes(other))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=st.lists(lengths, min_size=1, max_size=4))
def test_a_link_under_attack_delivers_a_prefix(data: st.DataObject, sizes: list[int]) -> None:
    """Frames are dropped, doubled, swapped, changed, cut or reflected: never a wrong message."""
    writer = SealedWriter(KEYS.to_provider)
    messages = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    frames = [frame for message in messages for frame in writer.seal(message)]
    for _ in range(data.draw(st.integers(0, 3))):
        _attack(data, frames)
    reader, delivered = SealedReader(KEYS.to_provider), []
    for frame in frames:
        try:
            message = reader.feed_frame(frame)
        except PeerFault:
            continue
        if message is not None:
            delivered.append(whole(message))
    assert delivered == messages[: len(delivered)]


def _attack(data: st.DataObject, frames: list[bytes]) -> None:
    if not frames:
        return
    at = data.draw(st.integers(0, len(frames) - 1))
    match data.draw(st.sampled_from(["drop", "double", "swap", "change", "cut", "reflect"])):
        case "drop":
            del frames[at]
        case "double":
            frames.insert(at, frames[at])
        case "swap":
            to = data.draw(st.integers(0, len(frames) - 1))
            frames[at], frames[to] = frames[to], frames[at]
        case "change" if frames[at]:
            changed = bytearray(frames[at])
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            frames[at] = bytes(changed)
        case "cut" if frames[at]:
            frames[at] = frames[at][: data.draw(st.integers(0, len(frames[at]) - 1))]
        case "reflect":
            frames[at] = SealedWriter(KEYS.to_requester).seal(b"reflected")[0]
