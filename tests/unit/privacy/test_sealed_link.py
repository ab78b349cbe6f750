"""The sealed link refuses whatever is not the next frame (SEA-6 to SEA-13)."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cocoon.core.errors import BadSeal, LimitExceeded, Malformed, NonCanonical, TooLarge, UsageError
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LINK_FRAME_BYTES, LINK_FRAMES, MESSAGE_BYTES
from cocoon.core.pieces import whole
from cocoon.privacy.link import (
    SEALED_FRAME_BYTES,
    LinkKeys,
    SealedReader,
    SealedWriter,
    session_keys,
)
from cocoon.privacy.padding import pad

KEYS = LinkKeys(b"\x44" * 32, b"\x55" * 32)
NONCE = b"\x66" * 32
LEASE = LeaseId(b"\x11" * 32)
SESSION = session_keys(KEYS, NONCE, LEASE)
KEY = SESSION.to_provider


def sealed(counter: int, plain: bytes) -> bytes:
    """A frame as a peer that holds the key, and nothing else of our code, would seal it."""
    return AESGCM(KEY).encrypt(counter.to_bytes(12, "big"), plain, None)


def read_all(reader: SealedReader, frames: list[bytes]) -> list[bytes]:
    return [whole(message) for frame in frames if (message := reader.feed_frame(frame)) is not None]


def read_pieces(reader: SealedReader, frames: list[bytes]) -> list[memoryview]:
    """A message of several frames, where it lies."""
    *_, message = [reader.feed_frame(frame) for frame in frames]
    assert isinstance(message, list)
    return [memoryview(piece) for piece in message]


def test_messages_arrive_whole_and_in_order() -> None:
    writer, reader = SealedWriter(KEY), SealedReader(KEY)
    messages = [b"", b"a", bytes(1021), b"x" * 300_000, b"y" * 1_000_000, b"end"]
    assert [m for message in messages for m in read_all(reader, writer.seal(message))] == messages
    reader.end()


def test_a_message_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    writer, reader = SealedWriter(KEY), SealedReader(KEY)
    largest = memoryview(bytearray(MESSAGE_BYTES + 1))
    (message,) = read_all(reader, list(writer.frames(largest[:-1])))
    assert len(message) == MESSAGE_BYTES
    with pytest.raises(LimitExceeded):
        writer.seal(largest)
    assert read_all(reader, writer.seal(b"next")) == [b"next"]


def test_frames_are_full_but_the_last_and_never_above_the_limit() -> None:
    sizes = [len(frame) for frame in SealedWriter(KEY).seal(bytes(1_000_000))]
    assert sizes[:-1] == [SEALED_FRAME_BYTES] * (len(sizes) - 1)
    assert sum(sizes) - 16 * len(sizes) == 1025 << 10


def test_a_frame_is_sealed_to_where_one_lay_that_was_given_back_and_says_the_same() -> None:
    messages, fresh = [bytes([byte]) * 600_000 for byte in (1, 2, 3)], SealedWriter(KEY)
    expected = [fresh.seal(message) for message in messages]
    writer = SealedWriter(KEY)
    kept, given = (writer.seal(message) for message in messages[:2])
    assert given == expected[1]
    for frame in given:
        writer.give_back(frame)
    third = writer.seal(messages[2])
    assert [kept, third] == [expected[0], expected[2]]
    assert {id(frame) for frame in third[:2]} == {id(frame) for frame in given[:2]}
    for frame in SealedWriter(KEY).seal(bytes(9_000_000)):
        writer.give_back(frame)
    assert len(writer._spares) <= 18, "what is kept is bounded"


def test_a_message_is_opened_to_where_one_lay_that_was_given_back() -> None:
    writer, reader = SealedWriter(KEY), SealedReader(KEY)
    kept, given, third = (read_pieces(reader, writer.seal(bytes([byte]) * 600_000)) for byte in (1, 2, 3))
    reader.give_back(given)
    fourth = read_pieces(reader, writer.seal(b"\4" * 600_000))
    assert [bytes(b"".join(one)) for one in (kept, third, fourth)] == [bytes([byte]) * 600_000 for byte in (1, 3, 4)]
    assert {id(part.obj) for part in fourth[:2]} == {id(part.obj) for part in given[:2]}
    for _ in range(9):
        reader.give_back(read_pieces(SealedReader(KEY), SealedWriter(KEY).seal(bytes(2_000_000))))
    assert len(reader._spares) <= 18, "what is kept is bounded"


def test_plaintext_is_not_in_the_frames() -> None:
    marked = b"a marked input of the user" * 100
    assert marked[:16] not in b"".join(SealedWriter(KEY).seal(marked))


def test_session_keys_differ_by_direction_nonce_lease_and_header_key() -> None:
    others = [
        SESSION, session_keys(KEYS, b"\x67" * 32, LEASE), session_keys(KEYS, NONCE, LeaseId(b"\x12" * 32)),
        session_keys(LinkKeys(KEYS.to_requester, KEYS.to_provider), NONCE, LEASE), KEYS,
    ]
    assert len({key for keys in others for key in (keys.to_provider, keys.to_requester)}) == 10


def test_session_keys_and_the_first_frame_never_change() -> None:
    """Golden, computed with hmac and another AES-GCM: versions must open each other's frames."""
    assert SESSION.to_provider.hex() == "3554f82b98c9b34bb6b658d85339f6ab5cf8f87ef747e10de2f68af41a4e6682"
    assert SESSION.to_requester.hex() == "87071ead1b74cc456127f04d022982b2a438a407d88cbe94150ced5e6dc72901"
    first = SealedWriter(KEY).seal(b"golden")[0][:32]
    assert first.hex() == "eda4147f09cff421af4907b77a180d9f893ce66bad2909e1c4bbb6de6ddff3fc"


@pytest.mark.parametrize("index", [0, 1, 16, 500, 1024, 1039])
def test_a_changed_byte_is_refused(index: int) -> None:
    frame = bytearray(SealedWriter(KEY).seal(b"abc")[0])
    frame[index] ^= 1
    with pytest.raises(BadSeal):
        SealedReader(KEY).feed_frame(frame)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 18, 500, 1039])
def test_a_truncated_frame_is_refused(length: int) -> None:
    frame = SealedWriter(KEY).seal(b"abc")[0]
    assert len(frame) == 1040
    with pytest.raises(BadSeal):
        SealedReader(KEY).feed_frame(frame[:length])


def test_a_repeated_frame_is_refused() -> None:
    reader, frame = SealedReader(KEY), SealedWriter(KEY).seal(b"pay me")[0]
    assert reader.feed_frame(frame) == b"pay me"
    with pytest.raises(BadSeal):
        reader.feed_frame(frame)


def test_reordered_frames_are_refused() -> None:
    frames = SealedWriter(KEY).seal(bytes(600_000))
    with pytest.raises(BadSeal):
        SealedReader(KEY).feed_frame(frames[1])


def test_a_dropped_frame_is_refused() -> None:
    reader, frames = SealedReader(KEY), SealedWriter(KEY).seal(bytes(900_000))
    assert reader.feed_frame(frames[0]) is None
    with pytest.raises(BadSeal):
        reader.feed_frame(frames[2])


def test_a_frame_sent_back_to_its_sender_is_refused() -> None:
    frame = SealedWriter(SESSION.to_provider).seal(b"abc")[0]
    with pytest.raises(BadSeal):
        SealedReader(SESSION.to_requester).feed_frame(frame)


def test_a_frame_of_an_earlier_session_of_the_lease_is_refused() -> None:
    frame = SealedWriter(KEY).seal(b"abc")[0]
    with pytest.raises(BadSeal):
        SealedReader(session_keys(KEYS, b"\x67" * 32, LEASE).to_provider).feed_frame(frame)


def test_a_broken_reader_opens_nothing_more() -> None:
    reader, frames = SealedReader(KEY), SealedWriter(KEY).seal(b"abc")
    with pytest.raises(BadSeal):
        reader.feed_frame(bytes(1040))
    with pytest.raises(BadSeal):
        reader.feed_frame(frames[0])
    with pytest.raises(BadSeal):
        reader.end()


def test_an_end_inside_a_message_is_refused() -> None:
    reader = SealedReader(KEY)
    reader.feed_frame(SealedWriter(KEY).seal(bytes(600_000))[0])
    with pytest.raises(BadSeal):
        reader.end()


def test_a_message_above_the_readers_bound_is_refused_at_its_first_frame() -> None:
    reader = SealedReader(KEY, max_bytes=1000)
    assert read_all(reader, [SealedWriter(KEY).seal(bytes(1000))[0]]) == [bytes(1000)]
    reader = SealedReader(KEY, max_bytes=1000)
    with pytest.raises(TooLarge):
        reader.feed_frame(SealedWriter(KEY).seal(bytes(1001))[0])


def test_a_promise_of_four_gibibytes_is_refused_at_its_first_frame() -> None:
    with pytest.raises(TooLarge):
        SealedReader(KEY).feed_frame(sealed(0, b"\xff" * LINK_FRAME_BYTES))


def test_a_frame_above_the_limit_is_refused_unopened() -> None:
    with pytest.raises(TooLarge):
        SealedReader(KEY).feed_frame(bytes(SEALED_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    "plain",
    [
        pad(b"abc")[:-1], pad(b"abc") + b"\0", b"\0", b"\0\0\0", b"\0\0\0\0", pad(bytes(5000))[:1024],
        pad(bytes(600_000))[: LINK_FRAME_BYTES - 1], pad(b"abc")[:-1] + b"\1",
    ],
)
def test_a_frame_cut_or_padded_in_another_way_is_refused(plain: bytes) -> None:
    with pytest.raises(NonCanonical):
        SealedReader(KEY).feed_frame(sealed(0, plain))


def test_endless_small_frames_of_one_message_are_refused() -> None:
    """Otherwise a peer could hold a reader for ever, a byte at a time."""
    reader = SealedReader(KEY)
    reader.feed_frame(sealed(0, pad(bytes(600_000))[:LINK_FRAME_BYTES]))
    with pytest.raises(NonCanonical):
        reader.feed_frame(sealed(1, b"\0"))


def test_a_used_up_counter_seals_and_opens_nothing_more() -> None:
    writer, reader = SealedWriter(KEY), SealedReader(KEY)
    writer._counter = reader._counter = LINK_FRAMES - 1
    assert read_all(reader, writer.seal(b"last")) == [b"last"]
    with pytest.raises(LimitExceeded):
        writer.seal(b"one too many")
    with pytest.raises(BadSeal):
        reader.feed_frame(sealed(LINK_FRAMES, pad(b"abc")))


def test_a_message_that_needs_more_frames_than_are_left_is_refused_before_its_first() -> None:
    writer = SealedWriter(KEY)
    writer._counter = LINK_FRAMES - 2
    with pytest.raises(LimitExceeded):
        writer.frames(bytes(3 * LINK_FRAME_BYTES))
    assert len(writer.seal(bytes(300_000))) == 2


def test_two_messages_cannot_interleave() -> None:
    writer = SealedWriter(KEY)
    first = writer.frames(bytes(600_000))
    with pytest.raises(UsageError):
        writer.frames(b"second")
    next(first)
    with pytest.raises(UsageError):
        writer.seal(b"second")
    list(first)
    assert len(writer.seal(b"second")) == 1


def test_any_refusal_is_the_peers_fault() -> None:
    assert issubclass(TooLarge, Malformed) and issubclass(NonCanonical, Malformed)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_a_key_of_another_length_is_a_usage_error(key: bytes) -> None:
    with pytest.raises(UsageError):
        SealedWriter(key)
    with pytest.raises(UsageError):
        SealedReader(key)
    with pytest.raises(UsageError):
        session_keys(KEYS, key, LEASE)
