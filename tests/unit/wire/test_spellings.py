"""One message, one spelling: every other one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from cocoon.core.errors import Malformed, NonCanonical
from cocoon.wire.schema import Message, unpack
from cocoon.wire.signing import open_signed, to_be_signed
from tests.vectors import samples
from tests.vectors.spelling import canonical, misspellings


def _misspelled(msg: Message) -> Iterator[tuple[str, bytes]]:
    """Every other spelling of a message, by what is wrong with it."""
    value = msgpack.unpackb(samples.packed(msg), strict_map_key=False)
    yield from misspellings(value)
    if msg.shape.signed_by:
        for label, body in misspellings(msgpack.unpackb(value[2], strict_map_key=False)):
            yield f"body-{label}", _resigned(msg, body)


def _verdict(cls: type[Message], data: bytes) -> str:
    try:
        _open(cls, data)
    except Malformed as error:
        return error.code
    return "taken"


def _resigned(msg: Message, body: bytes) -> bytes:
    """``body``, however it is spelled, under a good signature of the right peer."""
    assert msg.shape.signed_by is not None
    signer = samples.SIGNERS[msg.shape.signed_by]
    signature = signer.sign(to_be_signed(msg.shape, body))
    return canonical([msg.shape.kind, msg.shape.version, body, signer.key, signature])


def _open(cls: type[Message], data: bytes) -> Message:
    return unpack(data, cls) if cls.shape.signed_by is None else open_signed(data, cls).message


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_a_second_spelling_is_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    verdicts = {label: _verdict(type(msg), data) for label, data in _misspelled(msg)}
    assert len(verdicts) > 5
    assert {label: code for label, code in verdicts.items() if code != NonCanonical.code} == {}


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_the_judge_of_spellings_agrees_on_the_canonical_one(name: str) -> None:
    data = samples.packed(samples.MESSAGES[name])
    assert canonical(msgpack.unpackb(data, strict_map_key=False)) == data


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_trailing_bytes_are_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    with pytest.raises(Malformed, match="after the end"):
        _open(type(msg), samples.packed(msg) + b"\0")


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_every_truncation_is_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    data = samples.packed(msg)
    for length in range(len(data)):
        with pytest.raises(Malformed):
            _open(type(msg), data[:length])


NEVER_OURS = {
    "nil": b"\xc0",
    "never_used": b"\xc1",
    "float32": b"\xca\x3f\x80\x00\x00",
    "float64": b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    "fixext1": b"\xd4\x01\x00",
    "ext8": b"\xc7\x01\x01\x00",
    "timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "negative": b"\xff",
    "negative_int64": b"\xd3" + (1 << 63).to_bytes(8, "big"),
}


@pytest.mark.parametrize("what", NEVER_OURS)
@pytest.mark.parametrize("name", samples.MESSAGES)
def test_a_foreign_type_in_place_of_any_field_is_refused(name: str, what: str) -> None:
    msg = samples.MESSAGES[name]
    for item in msg.shape.fields:
        body = _replaced(msg, item.key, NEVER_OURS[what])
        with pytest.raises(Malformed):
            _open(type(msg), _wrapped(msg, body))


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_text_in_place_of_bytes_and_the_reverse_are_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    for item in msg.shape.fields:
        value = getattr(msg, item.name)
        if isinstance(value, bytes | str):
            other = canonical(value.encode() if isinstance(value, str) else "a" * len(value))
            with pytest.raises(Malformed):
                _open(type(msg), _wrapped(msg, _replaced(msg, item.key, other)))


@pytest.mark.parametrize("name", samples.MESSAGES)
def test_each_missing_field_is_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    for item in filter(lambda item: item.required, msg.shape.fields):
        with pytest.raises(Malformed, match=f"no {item.name}"):
            _open(type(msg), _wrapped(msg, _replaced(msg, item.key, None)))


def _body(msg: Message) -> dict[int, Any]:
    value: Any = msgpack.unpackb(samples.packed(msg), strict_map_key=False)
    if not msg.shape.signed_by:
        return dict(value[2])
    return dict(msgpack.unpackb(value[2], strict_map_key=False))


def _replaced(msg: Message, key: int, raw: bytes | None) -> bytes:
    """The body of ``msg`` with the value of one key as the given bytes, or without that key."""
    fields = {k: canonical(v) for k, v in _body(msg).items()}
    if raw is None:
        del fields[key]
    else:
        fields[key] = raw
    header = canonical(dict.fromkeys(fields, 0))[: -2 * len(fields) or None]
    return header + b"".join(canonical(k) + fields[k] for k in sorted(fields))


def _wrapped(msg: Message, body: bytes) -> bytes:
    if msg.shape.signed_by:
        return _resigned(msg, body)
    return b"\x93" + canonical(msg.shape.kind) + canonical(msg.shape.version) + body
