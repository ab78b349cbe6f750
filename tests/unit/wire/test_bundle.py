"""SEA-14, SEA-15: what waits together travels together, in order, and is read as if it had come alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, TooLarge, UnknownKind
from cocoon.core.limits import BUNDLE_BYTES, BUNDLE_MESSAGES, CHUNK_BYTES
from cocoon.wire.bundle import Bundle, bundled, unbundled
from cocoon.wire.messages import Chunk, LeaseClose, TrancheClose
from cocoon.wire.schema import Message, pack, pack_pieces
from tests.vectors.spelling import canonical


def _message(size: int) -> Message:
    return TrancheClose(through=1) if size == 0 else Chunk(file=0, index=0, data=bytes(size))


_SIZES = st.sampled_from([0, 1, 900, 60_000, BUNDLE_BYTES // 2, CHUNK_BYTES]) | st.integers(0, BUNDLE_BYTES)


@given(st.lists(_SIZES, max_size=9))
@example([0] * (2 * BUNDLE_MESSAGES + 1))
@example([BUNDLE_BYTES - 40, 0, 0])
def test_what_is_bundled_comes_out_in_order_and_within_the_bounds(sizes: list[int]) -> None:
    messages = [_message(size) for size in sizes]
    sent = list(bundled(map(pack_pieces, messages)))
    assert [one for data in sent for one in unbundled(b"".join(data), Chunk, TrancheClose)] == messages
    alone = {pack(message) for message in messages}
    assert all(b"".join(data) in alone or sum(map(len, data)) <= BUNDLE_BYTES for data in sent)


def test_as_few_bundles_leave_as_hold_everything() -> None:
    small = [[pack(TrancheClose(through=1))]] * BUNDLE_MESSAGES
    assert len(list(bundled(small))) == 1
    assert len(list(bundled([*small, small[0]]))) == 2
    assert list(bundled(small[:1])) == small[:1]


def test_a_message_that_is_not_expected_is_refused_in_a_bundle_too() -> None:
    close = pack(LeaseClose(code="done"))
    with pytest.raises(UnknownKind):
        unbundled(pack(Bundle(messages=(close, close))), TrancheClose)


def test_a_bundle_in_a_bundle_is_refused() -> None:
    close = pack(LeaseClose(code="done"))
    nested = pack(Bundle(messages=(pack(Bundle(messages=(close, close))), close)))
    with pytest.raises(UnknownKind):
        unbundled(nested, LeaseClose)


@pytest.mark.parametrize("count", [0, 1, BUNDLE_MESSAGES + 1])
def test_a_bundle_holds_two_messages_or_more_and_not_too_many(count: int) -> None:
    with pytest.raises((Malformed, TooLarge)):
        unbundled(canonical([33, 1, {1: [b""] * count}]), LeaseClose)
