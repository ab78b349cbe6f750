"""Field types of the schema: what a field may hold, and how long it may get.

Each type reads its value from canonical msgpack and checks a value before it is
written; ``max_bytes`` bounds its packed form, header included.

Purity: pure. Spec: docs/spec/wire.md, rule WIR-7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from cocoon.core.errors import Malformed, UsageError
from cocoon.wire.codec import Reader, checked_utf8

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_HEADER_BYTES = 5
_WORD = re.compile("[a-z0-9_-]+")
_SCALARS = frozenset({int, bool, bytes, str})


class Wire(Protocol[T_co]):
    """What the schema asks of a field type."""

    @property
    def max_bytes(self) -> int:
        """Longest packed form."""

    def read(self, reader: Reader) -> T_co:
        """Take one value; a ``Malformed`` if it is none of this type."""

    def write(self, value: Any) -> object:
        """What msgpack may pack for ``value``; a ``UsageError`` if it is none of this type."""


class Uint:
    """An integer in [0, 2**bits)."""

    __slots__ = ("bits", "max_bytes", "_maximum")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.max_bytes = 1 + bits // 8
        self._maximum = (1 << bits) - 1

    def read(self, reader: Reader) -> int:
        return reader.uint(self._maximum)

    def write(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= self._maximum:
            raise UsageError(f"{value!r:.40} is no unsigned integer of {self.bits} bits")
        return int(value)


U8, U16, U32, U64 = Uint(8), Uint(16), Uint(32), Uint(64)


class Flag:
    """True or false."""

    __slots__ = ()
    max_bytes = 1

    def read(self, reader: Reader) -> bool:
        return reader.flag()

    def write(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise UsageError(f"{value!r:.40} is no boolean")
        return value


class Exactly:
    """A byte string of exactly ``size`` bytes: a key, a hash, a nonce."""

    __slots__ = ("size", "max_bytes")

    def __init__(self, size: int) -> None:
        self.size = size
        self.max_bytes = _HEADER_BYTES + size

    def read(self, reader: Reader) -> bytes:
        raw = reader.blob(self.size)
        if len(raw) != self.size:
            raise Malformed(f"{len(raw)} bytes where exactly {self.size} are due")
        return raw

    def write(self, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) != self.size:
            raise UsageError(f"{_size_of(value)} where exactly {self.size} bytes are due")
        return value


class UpTo:
    """A byte string of at most ``size`` bytes, a multiple of ``step`` long."""

    __slots__ = ("size", "step", "max_bytes")

    def __init__(self, size: int, step: int = 1) -> None:
        self.size = size
        self.step = step
        self.max_bytes = _HEADER_BYTES + size

    def read(self, reader: Reader) -> bytes:
        raw = reader.blob(self.size)
        if len(raw) % self.step:
            raise Malformed(f"{len(raw)} bytes where a multiple of {self.step} is due")
        return raw

    def write(self, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > self.size or len(value) % self.step:
            raise UsageError(f"{_size_of(value)} where up to {self.size} in steps of {self.step} are due")
        return value


class Line:
    """Printable text of one line: no control, bidirectional or line-separating character.

    Peers' words end on terminals, so what could steer one is refused at the border.
    """

    __slots__ = ("chars", "max_bytes")

    def __init__(self, chars: int) -> None:
        self.chars = chars
        self.max_bytes = _HEADER_BYTES + 4 * chars

    def read(self, reader: Reader) -> str:
        text = reader.text(self.chars)
        if not text.isprintable():
            raise Malformed("text holds a character that cannot be printed")
        return text

    def write(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.chars:
            raise UsageError(f"{value!r:.40} is no text of at most {self.chars} characters")
        checked_utf8(value)
        if not value.isprintable():
            raise UsageError("text holds a character that cannot be printed; clean it with wire.types.line")
        return value


def line(text: str, chars: int) -> str:
    """``text`` as a ``Line`` carries it: one line, unprintable characters as "?", cut to ``chars``."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in joined[:chars])


class Word:
    """A stable name of ours, 1 to ``chars`` of ``a-z 0-9 _ -``."""

    __slots__ = ("chars", "max_bytes")

    def __init__(self, chars: int) -> None:
        self.chars = chars
        self.max_bytes = _HEADER_BYTES + chars

    def read(self, reader: Reader) -> str:
        text = reader.text(self.chars)
        if not _is_word(text):
            raise Malformed(f"{text!r:.40} is no word of a-z, 0-9, _ and -")
        return text

    def write(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.chars or not _is_word(value):
            raise UsageError(f"{value!r:.40} is no word of 1 to {self.chars} of a-z, 0-9, _ and -")
        return value


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None


class Each(Generic[T]):
    """An array of ``least`` to ``most`` items of one type; a tuple in Python."""

    __slots__ = ("item", "most", "least", "max_bytes")

    def __init__(self, item: Wire[T], most: int, least: int = 0) -> None:
        self.item = item
        self.most = most
        self.least = least
        self.max_bytes = _HEADER_BYTES + most * item.max_bytes

    def read(self, reader: Reader) -> tuple[T, ...]:
        count = reader.array(self.most)
        if count < self.least:
            raise Malformed(f"{count} items where at least {self.least} are due")
        return tuple(self.item.read(reader) for _ in range(count))

    def write(self, value: Any) -> list[object]:
        if not isinstance(value, (tuple, list)) or not self.least <= len(value) <= self.most:
            raise UsageError(f"a tuple of {self.least} to {self.most} items is due")
        return [self.item.write(item) for item in value]


class Column:
    """Values of one field of ``least`` to ``most`` messages; what each may be is for that field to say."""

    __slots__ = ("most", "least", "max_bytes")

    def __init__(self, most: int, least: int, max_bytes: int) -> None:
        self.most = most
        self.least = least
        self.max_bytes = max_bytes

    def read(self, reader: Reader) -> tuple[Any, ...]:
        count = reader.array(self.most)
        if count < self.least:
            raise Malformed(f"{count} values where at least {self.least} are due")
        found = tuple(reader.value(depth=0) for _ in range(count))
        if not _SCALARS.issuperset(map(type, found)):
            raise Malformed("an array or a map where the value of a field is due")
        return found

    def write(self, value: Any) -> list[object]:
        if not isinstance(value, (tuple, list)) or not self.least <= len(value) <= self.most:
            raise UsageError(f"a tuple of {self.least} to {self.most} values is due")
        if not _SCALARS.issuperset(map(type, value)):
            raise UsageError("an array or a map where the value of a field is due")
        return list(value)


class Row:
    """An array with one item of each given type, in order; a tuple in Python."""

    __slots__ = ("items", "max_bytes")

    def __init__(self, *items: Wire[Any]) -> None:
        self.items = items
        self.max_bytes = _HEADER_BYTES + sum(item.max_bytes for item in items)

    def read(self, reader: Reader) -> tuple[Any, ...]:
        count = reader.array(len(self.items))
        if count != len(self.items):
            raise Malformed(f"{count} items where {len(self.items)} are due")
        return tuple(item.read(reader) for item in self.items)

    def write(self, value: Any) -> list[object]:
        if not isinstance(value, (tuple, list)) or len(value) != len(self.items):
            raise UsageError(f"a tuple of {len(self.items)} items is due")
        return [item.write(part) for item, part in zip(self.items, value, strict=True)]


class Record(Generic[T]):
    """An array with the named attributes of one frozen dataclass, in order."""

    __slots__ = ("make", "names", "row", "max_bytes")

    def __init__(self, make: type[T], **items: Wire[Any]) -> None:
        self.make = make
        self.names = tuple(items)
        self.row = Row(*items.values())
        self.max_bytes = self.row.max_bytes

    def read(self, reader: Reader) -> T:
        return self.make(*self.row.read(reader))

    def write(self, value: Any) -> list[object]:
        if not isinstance(value, self.make):
            raise UsageError(f"{type(value).__name__} is no {self.make.__name__}")
        return self.row.write(tuple(getattr(value, name) for name in self.names))


#: Types of one value each, which is written as it is.
SINGLE = (Uint, Flag, Exactly, UpTo, Line, Word)


def check_all(wire: Wire[Any], values: Sequence[Any]) -> None:
    """Return if each of these could be written, without a call for each.

    Raises:
        UsageError: as ``wire.write`` for the first one that cannot.
    """
    if not _all_fit(wire, values):
        for value in values:
            wire.write(value)


def _all_fit(wire: Wire[Any], values: Sequence[Any]) -> bool:
    """Whether all are plainly what is due; where not, each is looked at."""
    types = set(map(type, values))
    match wire:
        case Uint():
            return types == {int} and min(values) >= 0 and max(values) >> wire.bits == 0
        case Exactly():
            return types == {bytes} and set(map(len, values)) == {wire.size}
        case UpTo(step=1):
            return types == {bytes} and max(map(len, values)) <= wire.size
    return False


def _size_of(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
