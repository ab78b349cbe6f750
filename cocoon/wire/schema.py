"""How a message is declared, packed and read: one line per field, bounds included.

    @message(kind=2, version=1, name="beat")
    class Beat(Message):
        seq: int = field(1, U64)

A packed message is ``[kind, version, {key: value}]``. Keys below 64 are
required and must all be known; keys from 64 on are optional, and unknown ones
are skipped (a newer peer may send them) but stay under the signature. Because
every field type has a bound, every message has one: nobody passes a limit.

Breaking the schema is a ``Malformed`` when reading (the peer's fault) and a
``UsageError`` when packing (ours).

Purity: pure. Spec: docs/spec/wire.md, rules WIR-6 to WIR-12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, dataclass_transform, overload

from msgspec import StructMeta

from cocoon.core.errors import Malformed, NonCanonical, TooLarge, UnknownKind, UnknownVersion, UsageError
from cocoon.core.limits import EXTRA_FIELDS_BYTES, SMALL_PAYLOAD_BYTES
from cocoon.core.pieces import Pieces
from cocoon.core.values import Value, astuple
from cocoon.wire.codec import SHORT_BYTES, Reader, pack_plain, plain_pieces, unpack_short
from cocoon.wire.types import Wire

FIRST_OPTIONAL_KEY = 64
#: Array header, kind and version.
HEADER_BYTES = 1 + 3 + 3
#: The same, and of a signed message the headers of body, signer (32) and signature (64), and these.
SIGNED_HEADER_BYTES = HEADER_BYTES + 5 + (2 + 32) + (2 + 64)
_U16_MAX = (1 << 16) - 1
_BODY_FIELDS = 256
#: Sets of messages that somewhere in the code are expected together; there are some fifty.
_EXPECTATIONS = 256


class Field(Value):
    """One declared field: its key in the body, its name in Python, its type."""

    key: int
    name: str
    wire: Wire[Any]
    required: bool


class Shape(Value):
    """What the decorator recorded about one message class."""

    kind: int
    version: int
    name: str
    signed_by: str | None
    #: Longest body map, and longest packed form.
    max_body_bytes: int
    max_bytes: int
    fields: tuple[Field, ...]
    by_key: dict[int, Field]
    #: Of each field what is asked of every message: its key, what writes it, and whether it must be there.
    writers: tuple[tuple[int, Callable[[Any], object], bool], ...]


class Declared(Value):
    """What ``field`` says of a field, before its class gives it a name."""

    key: int
    wire: Wire[Any]
    required: bool


def field(key: int, wire: Wire[Any], **default: None) -> Any:
    """Declare a field of a message; ``default=None`` for (and only for) keys of 64 and above."""
    return Declared(key, wire, not default)


class Declaring(StructMeta):
    """Keeps the declarations of a message's fields; its class itself has nothing but their names."""

    declared: dict[str, Declared]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Declaring:
        """Make a class of messages."""
        declared = {key: value for key, value in namespace.items() if isinstance(value, Declared)}
        plain = {key: value for key, value in namespace.items() if key not in declared}
        optional = {key: None for key, value in declared.items() if not value.required}
        made = super().__new__(mcs, name, bases, {**plain, **optional}, **options)
        made.declared = declared
        return made


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Message(Value, metaclass=Declaring):
    """Base of every message; ``message`` gives a subclass its ``shape``."""

    shape: ClassVar[Shape]

    def __repr__(self) -> str:
        """Lengths instead of byte strings, so that a log line can hold no input, output or key."""
        shown = (f"{name}={_shown(getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def flaw(self) -> str | None:
        """What is impossible about these fields together, in words; None if nothing."""
        return None


def _shown(value: object) -> str:
    return f"<{len(value)} B>" if isinstance(value, bytes) else repr(value)


M = TypeVar("M", bound=Message)
A = TypeVar("A", bound=Message)
B = TypeVar("B", bound=Message)
C = TypeVar("C", bound=Message)
T = TypeVar("T")

_KINDS: dict[tuple[int, int], type[Message]] = {}
_NAMES: dict[str, type[Message]] = {}


def message(
    *, kind: int, version: int, name: str, signed_by: str | None = None, max_body_bytes: int | None = None
) -> Callable[[type[M]], type[M]]:
    """Make a class a message and register it.

    Args:
        kind: Number on the wire, unique with ``version``.
        name: Stable word; domain-separates signatures, so a new version of a signed
            message needs a new name (the version itself is not signed).
        signed_by: "provider" or "requester" if the message travels only signed.
        max_body_bytes: Bound below what the fields add up to.
    """

    def make(cls: type[M]) -> type[M]:
        fields = tuple(_fields(cls))
        by_key = {item.key: item for item in fields}
        body = max_body_bytes or 3 + sum(3 + f.wire.max_bytes for f in fields) + EXTRA_FIELDS_BYTES
        packed = body + (HEADER_BYTES if signed_by is None else SIGNED_HEADER_BYTES)
        writers = tuple((item.key, item.wire.write, item.required) for item in fields)
        cls.shape = Shape(kind, version, name, signed_by, body, packed, fields, by_key, writers)
        if (kind, version) in _KINDS or name in _NAMES:
            raise UsageError(f"message {name} ({kind}, {version}) is declared twice")
        _KINDS[kind, version] = _NAMES[name] = cls
        return cls

    return make


def kinds() -> tuple[type[Message], ...]:
    """Every message declared so far, by kind."""
    return tuple(_KINDS[key] for key in sorted(_KINDS))


def _fields(cls: type[Message]) -> Iterator[Field]:
    last = 0
    for name, item in cls.declared.items():
        if item.key <= last or item.required != (item.key < FIRST_OPTIONAL_KEY):
            raise UsageError(f"{cls.__name__}.{name}: key {item.key} is out of order or of the wrong range")
        last = item.key
        yield Field(item.key, name, item.wire, item.required)


# --- packing ---------------------------------------------------------------


def pack(msg: Message) -> bytes:
    """Canonical bytes of an unsigned message.

    Raises:
        UsageError: a field is out of its bounds, or the message travels only signed.
    """
    shape = msg.shape
    if shape.signed_by is not None:
        raise UsageError(f"{shape.name} travels only signed; use wire.signing.sign(...).pack()")
    return _packed(msg)


def pack_pieces(msg: Message) -> list[bytes]:
    """What ``pack`` returns, in pieces: large byte strings where they lie. Raises as ``pack``."""
    if not any(type(value) is bytes and len(value) >= SMALL_PAYLOAD_BYTES for value in astuple(msg)):
        return [pack(msg)]
    if msg.shape.signed_by is not None:
        raise UsageError(f"{msg.shape.name} travels only signed; use wire.signing.sign(...).pack()")
    pieces = plain_pieces([msg.shape.kind, msg.shape.version, _body(msg)])
    _check_size(msg.shape.name, sum(map(len, pieces)), msg.shape.max_bytes, UsageError)
    return pieces


def body_bytes(msg: Message) -> bytes:
    """Canonical bytes of the body map alone: what is signed and digested."""
    packed = pack_plain(_body(msg))
    _check_size(f"{msg.shape.name} body", len(packed), msg.shape.max_body_bytes, UsageError)
    return packed


def digest(msg: Message) -> bytes:
    """SHA-256 of the body, 32 bytes. Received messages: ``Signed.digest`` also covers unknown fields."""
    return hashlib.sha256(body_bytes(msg)).digest()


def packed_digest(data: bytes) -> bytes:
    """``digest`` of the message that packed unsigned ``data`` holds, unknown optional fields included.

    Raises:
        Malformed: the bytes do not begin like an unsigned message.
    """
    reader = Reader(data)
    _check_array(reader, 3)
    reader.uint(_U16_MAX)
    reader.uint(_U16_MAX)
    return hashlib.sha256(data[reader.position() :]).digest()


def _packed(msg: Message) -> bytes:
    packed = pack_plain([msg.shape.kind, msg.shape.version, _body(msg)])
    _check_size(msg.shape.name, len(packed), msg.shape.max_bytes, UsageError)
    return packed


def _body(msg: Message) -> dict[int, object]:
    values, body = astuple(msg), {}
    try:
        for (key, write, required), value in zip(msg.shape.writers, values, strict=True):
            if value is not None or required:
                body[key] = write(value)
    except UsageError:
        raise _misfit(msg.shape, values) from None
    if (flaw := msg.flaw()) is not None:
        raise UsageError(f"{msg.shape.name}: {flaw}")
    return body


def _misfit(shape: Shape, values: tuple[Any, ...]) -> UsageError:
    """The error of the first field that cannot be written, with its name."""
    for item, value in zip(shape.fields, values, strict=True):
        try:
            if value is not None or item.required:
                item.wire.write(value)
        except UsageError as error:
            return UsageError(f"{shape.name}.{item.name}: {error.text}")
    raise AssertionError("unreachable")


# --- reading ---------------------------------------------------------------


@overload
def unpack(data: Pieces, expected: type[M], /) -> M: ...
@overload
def unpack(data: Pieces, first: type[A], second: type[B], /) -> A | B: ...
@overload
def unpack(data: Pieces, first: type[A], second: type[B], third: type[C], /) -> A | B | C: ...
@overload
def unpack(data: Pieces, /, *expected: type[Message]) -> Message: ...
def unpack(data: Pieces, /, *expected: type[Message]) -> Message:
    """Read one unsigned message of one of the ``expected`` kinds.

    Raises:
        UnknownKind: any other kind.
        UnknownVersion: an expected kind in a version that none of ``expected`` is.
        TooLarge, NonCanonical, Malformed: bytes that are no such message.
        UsageError: an expected kind travels only signed.
    """
    limit, kinds = _awaited(expected)
    if isinstance(data, bytes) and len(data) <= min(limit, SHORT_BYTES):
        if (short := _unpack_short(data, kinds)) is not None:
            return short
    reader = Reader(data, limit)
    _check_array(reader, 3)
    cls = read_kind(reader, expected)
    _check_size(cls.shape.name, reader.size_bytes, cls.shape.max_bytes, TooLarge)
    found = _read_body(cls, reader)
    reader.end()
    return found


@lru_cache(_EXPECTATIONS)
def _awaited(expected: tuple[type[Message], ...]) -> tuple[int, dict[tuple[int, int], type[Message]]]:
    """The longest of these messages, and which is which."""
    for cls in expected:
        if cls.shape.signed_by is not None:
            raise UsageError(f"{cls.shape.name} travels only signed; use wire.signing.open_signed")
    limit = max((cls.shape.max_bytes for cls in expected), default=0)
    return limit, {(cls.shape.kind, cls.shape.version): cls for cls in expected}


def _unpack_short(data: bytes, kinds: dict[tuple[int, int], type[Message]]) -> Message | None:
    """The expected message that spells the very ``data`` when it is packed; None if none is seen."""
    value = unpack_short(data)
    if type(value) is not list or len(value) != 3 or type(value[2]) is not dict:
        return None
    kind, version, body = value
    if type(kind) is not int or type(version) is not int:
        return None
    cls = kinds.get((kind, version))
    if cls is None or len(data) > cls.shape.max_bytes or pack_plain(value) != data:
        return None
    return _spelled(cls, body)


def _spelled(cls: type[M], body: dict[Any, Any]) -> M | None:
    """The message with this body, whose values are spelled canonically; records among them are left to the reader."""
    keys, values = list(body), []
    if set(map(type, keys)) != {int} or keys != sorted(keys):
        return None
    try:
        for key, write, required in cls.shape.writers:
            if key in body:
                write(value := body.pop(key))
                values.append(_tuple_of(value) if type(value) is list else value)
            elif required:
                return None
            else:
                values.append(None)
    except UsageError:
        return None
    found = cls(*values)
    return None if body or found.flaw() is not None else found


def _tuple_of(items: list[Any]) -> tuple[Any, ...]:
    return tuple([_tuple_of(item) if type(item) is list else item for item in items])


def unpack_body(cls: type[M], body: bytes) -> M:
    """Read the body map of a message whose kind is known from elsewhere; errors as ``unpack``."""
    if len(body) <= min(cls.shape.max_body_bytes, SHORT_BYTES):
        value = unpack_short(body)
        if type(value) is dict and pack_plain(value) == body and (short := _spelled(cls, value)) is not None:
            return short
    reader = Reader(body, cls.shape.max_body_bytes)
    found = _read_body(cls, reader)
    reader.end()
    return found


def _check_array(reader: Reader, items: int) -> None:
    count = reader.array(_U16_MAX)
    if count != items:
        raise Malformed(f"an array of {count} items where {items} make this message")


def read_kind(reader: Reader, expected: tuple[type[M], ...]) -> type[M]:
    """Take kind and version and return which of ``expected`` they are."""
    kind, version = reader.uint(_U16_MAX), reader.uint(_U16_MAX)
    known = [cls for cls in expected if cls.shape.kind == kind]
    if not known:
        raise UnknownKind(f"message kind {kind} is not expected here")
    for cls in known:
        if cls.shape.version == version:
            return cls
    raise UnknownVersion(f"{known[0].shape.name} in version {version}, we speak {known[0].shape.version}")


def _read_body(cls: type[M], reader: Reader) -> M:
    shape = cls.shape
    start = reader.position()
    values = _read_fields(shape, reader)
    _check_size(f"{shape.name} body", reader.position() - start, shape.max_body_bytes, TooLarge)
    found = cls(**values)
    if (flaw := found.flaw()) is not None:
        raise Malformed(f"{shape.name}: {flaw}")
    return found


def _read_fields(shape: Shape, reader: Reader) -> dict[str, Any]:
    """Values by field name. Keys ascend, so one pass along the declaration finds every gap."""
    values: dict[str, Any] = {}
    last = -1
    for _ in range(reader.map(_BODY_FIELDS)):
        key = reader.uint()
        if key <= last:
            raise NonCanonical(f"{shape.name}: key {key} does not ascend")
        last = key
        item = shape.by_key.get(key)
        if item is not None:
            values[item.name] = _read_field(shape, item, reader)
        elif key < FIRST_OPTIONAL_KEY:
            raise Malformed(f"{shape.name}: unknown key {key}")
        else:
            _skip(shape, reader)
    missing = [item.name for item in shape.fields if item.required and item.name not in values]
    if missing:
        raise Malformed(f"{shape.name}: no {', '.join(missing)}")
    return values


def _read_field(shape: Shape, item: Field, reader: Reader) -> Any:
    try:
        return item.wire.read(reader)
    except Malformed as error:
        raise type(error)(f"{shape.name}.{item.name}: {error.text}") from None


def _skip(shape: Shape, reader: Reader) -> None:
    """Pass an unknown optional field; it must be canonical and small all the same."""
    start = reader.position()
    reader.value()
    if reader.position() - start > EXTRA_FIELDS_BYTES:
        raise TooLarge(f"{shape.name}: an unknown field above {EXTRA_FIELDS_BYTES} bytes")


def _check_size(what: str, size: int, limit: int, error: type[UsageError] | type[TooLarge]) -> None:
    if size > limit:
        raise error(f"{what} of {size} bytes where at most {limit} are allowed")
