"""Messages that wait for a link at the same time travel as one.

What it costs to seal, pad, send and wake for a message is paid once for all of
them. Those of one kind that follow each other are packed and read field by field,
which takes a third of the time. One message alone, or a large one, travels as it is.

Purity: pure. Spec: docs/spec/sealing.md, rules SEA-14 and SEA-15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from cocoon.core.errors import Malformed, TooLarge, UnknownKind, UsageError
from cocoon.core.limits import BUNDLE_BYTES, BUNDLE_MESSAGES, EXTRA_FIELDS_BYTES
from cocoon.core.pieces import Pieces
from cocoon.core.values import astuple
from cocoon.wire.codec import SHORT_BYTES
from cocoon.wire.schema import Message, Shape, field, message, pack, pack_pieces, unpack
from cocoon.wire.types import SINGLE, U16, Column, Each, UpTo, check_all

#: What msgpack adds to a byte string of such a size, or to a number, at most.
_HEADER_BYTES, _NUMBER_BYTES = 5, 9
#: Of a bundle around its messages: kind, version, the map, the array.
_FRAME_BYTES = 64
#: Most fields of a message that is packed with others of its kind.
_FIELDS = 8
#: Of messages that are packed field by field, so that they are read in C, and of the headers around them.
_ALIKE_BYTES = SHORT_BYTES - _FRAME_BYTES - _FIELDS * _HEADER_BYTES
_VALUES = Column(most=BUNDLE_MESSAGES, least=2, max_bytes=SHORT_BYTES)


@message(kind=33, version=1, name="bundle", max_body_bytes=BUNDLE_BYTES + EXTRA_FIELDS_BYTES)
class Bundle(Message):
    """Packed messages, in the order in which they would have been sent alone."""

    messages: tuple[bytes, ...] = field(1, Each(UpTo(BUNDLE_BYTES), most=BUNDLE_MESSAGES, least=2))


@message(kind=36, version=1, name="alike", max_body_bytes=SHORT_BYTES)
class Alike(Message):
    """Messages of one kind and version, in order: the values of each of their fields, by rising key."""

    kind: int = field(1, U16)
    version: int = field(2, U16)
    columns: tuple[tuple[Any, ...], ...] = field(3, Each(_VALUES, most=_FIELDS, least=1))

    def flaw(self) -> str | None:
        """Each message has each field."""
        return None if len(set(map(len, self.columns))) == 1 else "columns of several lengths"


def bundled(messages: Iterable[Message]) -> Iterator[Sequence[bytes]]:
    """What to send for these messages, as little and in their order; each in pieces.

    Raises:
        As ``schema.pack``.
    """
    waiting: list[Sequence[bytes]] = []
    room_bytes, room = BUNDLE_BYTES - _FRAME_BYTES, BUNDLE_MESSAGES
    for one, count in _packed(messages):
        size_bytes = sum(map(len, one)) + _HEADER_BYTES
        if waiting and (size_bytes > room_bytes or count > room):
            yield _together(waiting)
            waiting, room_bytes, room = [], BUNDLE_BYTES - _FRAME_BYTES, BUNDLE_MESSAGES
        waiting.append(one)
        room_bytes -= size_bytes
        room -= count
    if waiting:
        yield _together(waiting)


def unbundled(data: Pieces, *expected: type[Message]) -> list[Message]:
    """The messages in what was received, each of an expected kind; a bundle holds no bundles.

    Raises:
        As ``schema.unpack``.
    """
    found = unpack(data, Bundle, Alike, *expected)
    if not isinstance(found, Bundle):
        return _single(found, expected)
    messages = [one for data in found.messages for one in _single(unpack(data, Alike, *expected), expected)]
    if len(messages) > BUNDLE_MESSAGES:
        raise TooLarge(f"{len(messages)} messages in one bundle, above {BUNDLE_MESSAGES}")
    return messages


def _packed(messages: Iterable[Message]) -> Iterator[tuple[Sequence[bytes], int]]:
    """In their order, those of one kind together; each in pieces, with how many messages it is."""
    for cls, some in groupby(messages, type):
        alike = list(some)
        if len(alike) == 1 or not _is_flat(cls):
            yield from ((pack_pieces(one), 1) for one in alike)
            continue
        columns = list(zip(*map(astuple, alike), strict=True))
        shape = alike[0].shape
        _check(shape, columns)
        for begin, end in _cuts(_sizes_bytes(columns)):
            if end - begin == 1:
                yield pack_pieces(alike[begin]), 1
            else:
                parts = tuple([column[begin:end] for column in columns])
                yield [pack(Alike(kind=shape.kind, version=shape.version, columns=parts))], end - begin


def _check(shape: Shape, columns: Sequence[Sequence[Any]]) -> None:
    for declared, column in zip(shape.fields, columns, strict=True):
        check_all(declared.wire, column)


def _sizes_bytes(columns: Sequence[Sequence[Any]]) -> list[int]:
    """What each message takes at most, by the values of its fields, which were checked."""
    fixed_bytes, lengths = 0, []
    for column in columns:
        if isinstance(column[0], bytes | str):
            fixed_bytes += _HEADER_BYTES
            lengths.append(map(len, column) if isinstance(column[0], bytes) else [4 * len(text) for text in column])
        else:
            fixed_bytes += _NUMBER_BYTES
    if not lengths:
        return [fixed_bytes] * len(columns[0])
    return [fixed_bytes + sum(of_one) for of_one in zip(*lengths, strict=True)]


def _cuts(sizes_bytes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where the parts begin and end that are packed field by field, or alone."""
    begin, left_bytes = 0, _ALIKE_BYTES
    for end, size_bytes in enumerate(sizes_bytes):
        if begin < end and (size_bytes > left_bytes or end - begin == BUNDLE_MESSAGES):
            yield begin, end
            begin, left_bytes = end, _ALIKE_BYTES
        left_bytes -= size_bytes
    yield begin, len(sizes_bytes)


def _single(found: Message, expected: tuple[type[Message], ...]) -> list[Message]:
    """The message, or those that are alike in it."""
    if not isinstance(found, Alike):
        return [found]
    cls = _flat_kinds(expected).get((found.kind, found.version))
    if cls is None:
        raise UnknownKind(f"messages alike of kind {found.kind}, version {found.version} are not expected here")
    if len(found.columns) != len(cls.shape.writers):
        raise Malformed(f"{cls.shape.name} in {len(found.columns)} columns")
    try:
        _check(cls.shape, found.columns)
    except UsageError as error:
        raise Malformed(f"{cls.shape.name}: {error.text}") from None
    return [cls(*values) for values in zip(*found.columns, strict=True)]


@lru_cache(64)
def _flat_kinds(expected: tuple[type[Message], ...]) -> dict[tuple[int, int], type[Message]]:
    return {(cls.shape.kind, cls.shape.version): cls for cls in expected if _is_flat(cls)}


@lru_cache(256)
def _is_flat(cls: type[Message]) -> bool:
    """Whether each of its fields is there, is one value, and may be anything beside the others."""
    fields = cls.shape.fields
    is_single = all(one.required and isinstance(one.wire, SINGLE) for one in fields)
    return is_single and 0 < len(fields) <= _FIELDS and cls.flaw is Message.flaw and cls.shape.signed_by is None


def _together(messages: list[Sequence[bytes]]) -> Sequence[bytes]:
    return messages[0] if len(messages) == 1 else [pack(Bundle(messages=tuple(map(b"".join, messages))))]
