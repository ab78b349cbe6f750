"""What is short is read the quick way: never another value, never another refusal than our own reader's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Malformed
from cocoon.wire import schema
from cocoon.wire.codec import SHORT_BYTES, Keys, Reader, decode
from cocoon.wire.schema import body_bytes, unpack, unpack_body
from tests.vectors import samples

_SCALARS = (
    st.integers(-(1 << 63), (1 << 64) - 1) | st.booleans() | st.binary(max_size=40) | st.text(max_size=40)
    | st.none() | st.floats()
)
_KEYS = st.integers(0, 300) | st.text(max_size=3)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(_KEYS, inner, max_size=20), max_leaves=30
)
_UNSIGNED = [name for name, one in samples.MESSAGES.items() if one.shape.signed_by is None]


def _outcome(read: Callable[..., object], *arguments: object, **more: object) -> object:
    try:
        value = read(*arguments, **more)
    except Malformed as error:
        return error.code
    return value, repr(value)                           # True and 1 are equal


def _careful(data: bytes, keys: Keys) -> Any:
    reader = Reader(data, len(data))
    value = reader.value(keys)
    reader.end()
    return value


def _bend(data: bytes, place: int, byte: int) -> bytes:
    place %= max(1, len(data))
    return data[:place] + bytes((byte,)) + data[place + 1 :]


@given(_VALUES, st.sampled_from(["int", "str"]), st.integers(0, 1 << 16), st.integers(0, 255))
def test_a_short_value_is_what_the_careful_reader_says(value: object, keys: Keys, place: int, byte: int) -> None:
    data = msgpack.packb(value)
    for one in (data, _bend(data, place, byte), data[:-1], data + b"\x00"):
        quick, careful = _outcome(decode, one, max_bytes=len(one), keys=keys), _outcome(_careful, one, keys)
        if keys == "str" and isinstance(careful, str):
            continue                                    # the control socket does not mind how it is spelled
        assert quick == careful


@pytest.mark.parametrize("name", samples.MESSAGES)
@given(place=st.integers(0, 1 << 16), byte=st.integers(0, 255))
def test_a_short_body_is_what_the_careful_reader_says(name: str, place: int, byte: int) -> None:
    msg = samples.MESSAGES[name]
    data = body_bytes(msg)
    for one in (data, _bend(data, place, byte)):
        quick = _outcome(unpack_body, type(msg), one)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "SHORT_BYTES", 0)
            assert quick == _outcome(unpack_body, type(msg), one)


@pytest.mark.parametrize("name", _UNSIGNED)
@given(place=st.integers(0, 1 << 16), byte=st.integers(0, 255))
def test_a_short_message_is_what_the_careful_reader_says(name: str, place: int, byte: int) -> None:
    msg = samples.MESSAGES[name]
    data = samples.packed(msg)
    for one in (data, _bend(data, place, byte)):
        if len(one) > SHORT_BYTES:
            return
        quick = _outcome(unpack, one, type(msg))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "SHORT_BYTES", 0)
            assert quick == _outcome(unpack, one, type(msg))
