"""SEA-14, SEA-15: what waits together travels together, in order, and is read as if it had come alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed, TooLarge, UnknownKind, UsageError
from cocoon.core.limits import BUNDLE_BYTES, BUNDLE_MESSAGES, CHUNK_BYTES
from cocoon.wire.bundle import Alike, Bundle, bundled, unbundled
from cocoon.wire.codec import SHORT_BYTES
from cocoon.wire.messages import Chunk, LeaseClose, RunFailure, RunRequest, RunToken, TrancheClose
from cocoon.wire.schema import Message, pack
from cocoon.wire.types import U8, U64, Exactly, Flag, Line, UpTo, check_all
from tests.vectors.spelling import canonical


def _message(size: int) -> Message:
    return TrancheClose(through=1) if size == 0 else Chunk(file=0, index=0, data=bytes(size))


_SIZES = st.sampled_from([0, 1, 900, 60_000, BUNDLE_BYTES // 2, CHUNK_BYTES]) | st.integers(0, BUNDLE_BYTES)


@given(st.lists(_SIZES, max_size=9))
@example([0] * (2 * BUNDLE_MESSAGES + 1))
@example([BUNDLE_BYTES - 40, 0, 0])
def test_what_is_bundled_comes_out_in_order_and_within_the_bounds(sizes: list[int]) -> None:
    messages = [_message(size) for size in sizes]
    sent = list(bundled(messages))
    assert [one for data in sent for one in unbundled(b"".join(data), Chunk, TrancheClose)] == messages
    alone = {pack(message) for message in messages}
    assert all(b"".join(data) in alone or sum(map(len, data)) <= BUNDLE_BYTES for data in sent)


_OF_RUNS = st.one_of(
    st.builds(RunRequest, number=st.integers(1, 9), salt=st.just(bytes(16)), inputs=st.binary(max_size=9)),
    st.builds(RunToken, number=st.just(1), place=st.integers(1, 1 << 20), token=st.just(7), head=st.just(bytes(32))),
    st.builds(RunFailure, number=st.just(3), code=st.just("run_failed"), text=st.sampled_from(["", "é" * 512])),
    st.just(Chunk(file=0, index=1, data=b"")), st.just(LeaseClose(code="done")),
)
_KINDS = (RunRequest, RunToken, RunFailure, Chunk, LeaseClose)


@given(st.lists(_OF_RUNS, max_size=40), st.integers(1, 20))
def test_messages_of_any_kinds_come_out_as_they_went_in(messages: list[Message], times: int) -> None:
    many = [one for message in messages for one in [message] * times]
    sent = [b"".join(data) for data in bundled(many)]
    assert [one for data in sent for one in unbundled(data, *_KINDS)] == many


def test_messages_of_one_kind_are_packed_field_by_field() -> None:
    runs = [RunRequest(number=number, salt=bytes(16), inputs=b"%d" % number) for number in (1, 2, 300)]
    (data,) = bundled(runs)
    columns = [[1, 2, 300], [bytes(16)] * 3, [b"1", b"2", b"300"]]
    assert b"".join(data) == canonical([36, 1, {1: 25, 2: 1, 3: columns}])


def test_as_few_bundles_leave_as_hold_everything() -> None:
    small = [TrancheClose(through=1)] * BUNDLE_MESSAGES
    assert len(list(bundled(small))) == 1
    assert len(list(bundled([*small, small[0]]))) == 2
    assert list(bundled(small[:1])) == [[pack(small[0])]]


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


def alike(kind: int, columns: object, version: int = 1) -> bytes:
    """What a stranger may send as messages of one kind."""
    return canonical([36, 1, {1: kind, 2: version, 3: columns}])


SALTS = [bytes(16)] * 2


@pytest.mark.parametrize(("data", "error"), [
    (alike(25, [[1, 2], SALTS, [b"", b""]], version=2), UnknownKind), (alike(26, [[1, 2]]), UnknownKind),
    (alike(23, [[0, 0], [0, 1], [b"", b""]]), UnknownKind), (alike(36, [[1, 2]]), UnknownKind),
    (alike(25, [[1, 2], SALTS]), Malformed), (alike(25, [[1, 2], SALTS, [b"", b""], [0, 0]]), Malformed),
    (alike(25, [[1, 2], SALTS, [b""]]), Malformed), (alike(25, [[1], SALTS[:1], [b""]]), Malformed),
    (alike(25, [[1, 1 << 32], SALTS, [b"", b""]]), Malformed), (alike(25, [[1, -1], SALTS, [b"", b""]]), Malformed),
    (alike(25, [[1, True], SALTS, [b"", b""]]), Malformed), (alike(25, [[1, 2], SALTS, [b"", False]]), Malformed),
    (alike(25, [[1, 2], [bytes(15)] * 2, [b"", b""]]), Malformed),
    (alike(25, [[1, 2], SALTS, [b"", "x"]]), Malformed), (alike(25, [[1, 2], SALTS, [b"", []]]), Malformed),
    (alike(25, [[1, 2], SALTS, [b"", [b""]]]), Malformed), (alike(25, []), Malformed), (alike(25, 7), Malformed),
    (alike(25, [[7] * (BUNDLE_MESSAGES + 1)] * 3), TooLarge), (alike(25, [[7, 7]] * 9), TooLarge),
    (alike(25, [[1, 2], SALTS, [bytes(SHORT_BYTES), b""]]), TooLarge),
])
def test_messages_alike_are_judged_as_if_each_had_come_alone(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        unbundled(data, RunRequest, Chunk)
    whole = pack(Bundle(messages=(data, data)))
    with pytest.raises(error):
        unbundled(whole, RunRequest, Chunk)


def test_a_bundle_of_messages_alike_holds_no_more_than_any_other() -> None:
    half = pack(Alike(kind=28, version=1, columns=(tuple(range(BUNDLE_MESSAGES // 2)),)))
    assert len(unbundled(pack(Bundle(messages=(half, half))), TrancheClose)) == BUNDLE_MESSAGES
    with pytest.raises(TooLarge):
        unbundled(pack(Bundle(messages=(half, half, pack(TrancheClose(through=1))))), TrancheClose)


VALUES = st.one_of(
    st.sampled_from([0, 255, 256, (1 << 64) - 1, 1 << 64, -1, True, None, "a", "\u2028", b"", b"12", b"1234", 1.0]),
    st.binary(max_size=5), st.integers(0, 300), st.text(max_size=3),
)


@given(
    wire=st.sampled_from([U8, U64, Flag(), Exactly(2), UpTo(3), UpTo(4, step=2), Line(2)]),
    values=st.one_of(
        st.lists(VALUES, min_size=1, max_size=4), st.lists(st.integers(0, 256), min_size=1),
        st.lists(st.binary(min_size=2, max_size=3), min_size=1),
    ),
)
@example(wire=UpTo(3), values=[b"1234"])
@example(wire=Exactly(2), values=[b"12", b"1"])
@example(wire=U8, values=[1, 256])
def test_a_column_is_taken_if_each_of_its_values_is(wire: Any, values: list[Any]) -> None:
    def refused(step: Callable[[], object]) -> str | None:
        try:
            step()
        except UsageError as error:
            return error.text
        return None

    each = [refused(partial(wire.write, value)) for value in values]
    assert refused(partial(check_all, wire, values)) == next((text for text in each if text is not None), None)


def test_what_cannot_be_sent_is_our_own_mistake_in_company_too() -> None:
    good, bad = TrancheClose(through=1), TrancheClose(through=1 << 32)
    with pytest.raises(UsageError):
        list(bundled([good, bad]))
