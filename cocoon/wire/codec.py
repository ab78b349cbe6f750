"""Canonical msgpack: one spelling per value, and a reader that believes nothing.

Allowed are integers, booleans, UTF-8 text, byte strings, arrays, and maps whose
keys ascend strictly: integers by value, or text by its UTF-8 bytes. Every
integer and every header is the shortest possible. There is no nil, no float and
no extension type.

The reader checks a length against its limit and against the bytes that are left
before it takes them, so no input makes it allocate more than it holds. Writing
is left to the ``msgpack`` package, which always chooses the shortest form. So is
reading what is short: a value that spells the very bytes when it is written again
was canonical. Everything else is judged by our own reader, which says what is wrong.

Purity: pure. Spec: docs/spec/wire.md, rules WIR-1 to WIR-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgpack

from cocoon.core.errors import Malformed, NonCanonical, TooLarge, UsageError
from cocoon.core.limits import CODEC_DEPTH, CODEC_ITEMS, SMALL_PAYLOAD_BYTES
from cocoon.core.pieces import Piece, Pieces, coalesced
from cocoon.core.units import KIB
from cocoon.core.values import Value

U64_MAX = (1 << 64) - 1
_I64_MIN = -(1 << 63)
#: What is no longer may be read before it is judged; at the worst, empty arrays in an array, it becomes 64 times that.
SHORT_BYTES = 64 * KIB

#: At rest; to make one costs as much as to pack most values.
_packers: list[msgpack.Packer] = []

#: Which keys the maps of a value have: ``int`` between peers, ``str`` on the local control socket.
Keys = Literal["int", "str"]


def encode(value: object, *, keys: Keys = "int") -> bytes:
    """The canonical bytes of ``value``; maps are sorted here, tuples become arrays.

    Args:
        value: int in [-2**63, 2**64), bool, str, bytes, list, tuple, or dict.
        keys: Kind of key that every map in ``value`` has.

    Raises:
        UsageError: another type, another kind of key, an integer out of range,
            text that is no UTF-8, more than ``CODEC_DEPTH`` levels.
    """
    return pack_plain(_plain(value, keys, CODEC_DEPTH))


def encode_pieces(value: object, *, keys: Keys = "int") -> list[bytes]:
    """What ``encode`` returns, in pieces: large byte strings where they lie. Raises as ``encode``."""
    if keys == "str" and not _holds_large(value) and (packed := _packed_short(value)) is not None:
        return [packed]
    return plain_pieces(_plain(value, keys, CODEC_DEPTH))


def decode(data: bytes, *, max_bytes: int, keys: Keys = "int") -> Any:
    """The one value that ``data`` spells; arrays become lists, maps dicts.

    What is short and has text keys may be spelled in any msgpack: nobody hashes or signs it,
    and to judge its spelling takes four times as long as to read it.

    Args:
        max_bytes: Longest ``data`` accepted.
        keys: Kind of key that every map must have.

    Raises:
        TooLarge: ``data`` is longer than ``max_bytes`` or holds too many items.
        NonCanonical: a value in a second spelling.
        Malformed: truncated, trailing bytes, a type that we do not have, too deep.
    """
    if len(data) <= min(max_bytes, SHORT_BYTES):
        value = unpack_short(data)
        try:
            if value is not None and (keys == "str" or encode(value, keys=keys) == data):
                return value
        except UsageError:
            pass                                        # it is none of ours: the reader says why
    reader = Reader(data, max_bytes)
    value = reader.value(keys)
    reader.end()
    return value


def unpack_short(data: bytes) -> Any:
    """The value that at most ``SHORT_BYTES`` spell in any msgpack, of any types; None if none, or a deep one."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError):                     # a TypeError is a key that cannot be one
        return None
    return value if _is_shallow(value) else None


def _is_shallow(value: object) -> bool:
    """Whether it has ``CODEC_DEPTH`` levels at most: a thousand would end whoever looks at them one by one."""
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    for _ in range(CODEC_DEPTH):
        if not level:
            return True
        level = [
            item for holder in level for item in (holder.values() if type(holder) is dict else holder)
            if type(item) is dict or type(item) is list
        ]
    return not level


def _packed_short(value: object) -> bytes | None:
    """At most ``SHORT_BYTES`` of msgpack, maps in the order in which they are; None if it takes more or has no form."""
    try:
        packed = pack_plain(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return packed if len(packed) <= SHORT_BYTES else None


def pack_plain(value: object) -> bytes:
    """Msgpack of a value whose types, ranges and key order the caller has already checked."""
    # Taken while it packs: what a finalizer or another thread packs meanwhile must not land in the same buffer.
    packer = _packers.pop() if _packers else msgpack.Packer()
    try:
        packed = packer.pack(value)
    finally:
        _packers.append(packer)
    assert isinstance(packed, bytes)
    return packed


def plain_pieces(value: object) -> list[bytes]:
    """What ``pack_plain`` returns, in pieces: large byte strings where they lie."""
    if not _holds_large(value):
        return [pack_plain(value)]
    return coalesced(_plain_pieces(value))


def _holds_large(value: object) -> bool:
    """Whether byte strings are in it that are worth no copy; without a call for each of a thousand items."""
    waiting: list[Any] = [(value,)]
    while waiting:
        items = waiting.pop()
        for item in items.values() if type(items) is dict else items:
            kind = type(item)
            if kind is bytes:
                if len(item) >= SMALL_PAYLOAD_BYTES:
                    return True
            elif kind is dict or kind is list or kind is tuple:
                waiting.append(item)
    return False


def _plain_pieces(value: object) -> Iterator[bytes]:
    match value:
        case bytes():
            yield bytes_header(len(value))
            yield value
        case list() | tuple():
            yield array_header(len(value))
            for item in value:
                yield from _plain_pieces(item)
        case dict():
            yield map_header(len(value))
            for key, item in value.items():
                yield pack_plain(key)
                yield from _plain_pieces(item)
        case _:
            yield pack_plain(value)


def map_header(count: int) -> bytes:
    """What stands before the pairs of a map, which are fewer than 65,536."""
    return bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2, "big")


def array_header(count: int) -> bytes:
    """What stands before the items of an array, which are fewer than 65,536."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


def unpack_plain(data: bytes) -> Any:
    """The msgpack value in ``data``, of any type and in any spelling; arrays become lists.

    For messages between two processes of one peer, which nobody hashes or signs:
    it takes a fifth of the time of ``decode``. ``data`` bounds what is allocated.

    Raises:
        Malformed: truncated, trailing bytes, no UTF-8, too deep, a map with keys that are neither text nor bytes.
    """
    try:
        return msgpack.unpackb(data)
    except ValueError as error:
        raise Malformed(f"no msgpack: {error}") from None


def bytes_header(length: int) -> bytes:
    """What stands before a byte string of this length."""
    width, tag = (1, 0xC4) if length < 1 << 8 else (2, 0xC5) if length < 1 << 16 else (4, 0xC6)
    return bytes((tag,)) + length.to_bytes(width, "big")


def _plain(value: object, keys: Keys, depth: int) -> object:
    """``value`` with sorted maps, after checking every type and range."""
    if depth < 0:
        raise UsageError(f"a value has at most {CODEC_DEPTH} levels")
    kind = type(value)
    if kind is bytes or kind is bool:
        return value
    if kind is str:
        checked_utf8(value)                             # type: ignore[arg-type]
        return value
    if kind is int and 0 <= value <= U64_MAX:           # type: ignore[operator]
        return value
    return _plain_rest(value, keys, depth)


def _plain_rest(value: object, keys: Keys, depth: int) -> object:
    """``_plain`` of what is seldom, or holds others."""
    match value:
        case bool() | bytes():
            return value
        case int():
            if not _I64_MIN <= value <= U64_MAX:
                raise UsageError(f"integer {value} has no msgpack form")
            return int(value)
        case str():
            checked_utf8(value)
            return value
        case list() | tuple():
            return [_plain(item, keys, depth - 1) for item in value]
        case dict():
            return {key: _plain(value[key], keys, depth - 1) for key in _sorted_keys(value, keys)}
    raise UsageError(f"{type(value).__name__} has no canonical form")


def _sorted_keys(value: dict[Any, Any], keys: Keys) -> list[Any]:
    if keys == "str":
        try:
            checked_utf8("".join(value))
        except TypeError:
            raise UsageError("every key of this map must be text") from None
        return sorted(value)                            # code points, which order as their UTF-8 does
    if not all(type(key) is int and 0 <= key <= U64_MAX for key in value):
        raise UsageError("every key of this map must be an integer in [0, 2**64)")
    return sorted(value)


def checked_utf8(text: str) -> bytes:
    """UTF-8 of ``text``; a lone surrogate is a UsageError."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("text holds a lone surrogate and has no UTF-8 form") from None


class _Family(Value):
    """The headers of one msgpack type that has a length."""

    name: str
    fix_first: int
    fix_last: int
    #: Header byte -> (bytes of the length, smallest length that needs that many).
    wide: dict[int, tuple[int, int]]


_TEXT = _Family("text", 0xA0, 0xBF, {0xD9: (1, 32), 0xDA: (2, 1 << 8), 0xDB: (4, 1 << 16)})
# There is no short header for bytes: the empty range 0x01..0x00 matches none.
_BYTES = _Family("bytes", 1, 0, {0xC4: (1, 0), 0xC5: (2, 1 << 8), 0xC6: (4, 1 << 16)})
_ARRAY = _Family("array", 0x90, 0x9F, {0xDC: (2, 16), 0xDD: (4, 1 << 16)})
_MAP = _Family("map", 0x80, 0x8F, {0xDE: (2, 16), 0xDF: (4, 1 << 16)})

_UNSIGNED = {0xCC: (1, 1 << 7), 0xCD: (2, 1 << 8), 0xCE: (4, 1 << 16), 0xCF: (8, 1 << 32)}
#: Header byte -> (bytes, largest value that needs that many); the shorter forms reach -32.
_SIGNED = {0xD0: (1, -33), 0xD1: (2, -129), 0xD2: (4, -(1 << 15) - 1), 0xD3: (8, -(1 << 31) - 1)}


class Reader:
    """A cursor over canonical msgpack; every method takes one value or raises a ``Malformed``.

    ``limit`` arguments bound the length before anything is copied (TooLarge).
    """

    __slots__ = ("size_bytes", "_data", "_at", "_rest", "_passed_bytes", "_items_left")

    def __init__(self, data: Pieces, max_bytes: int | None = None) -> None:
        """``data`` stays where it is; memory that another process writes to may be read, but tells two things then."""
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else [piece for piece in data if piece]
        #: All of it.
        self.size_bytes = sum(map(len, pieces))
        if max_bytes is not None and self.size_bytes > max_bytes:
            raise TooLarge(f"{self.size_bytes} bytes where at most {max_bytes} are allowed")
        #: The piece where the cursor is, those behind it from the last on, and what came before it.
        self._data, self._rest = pieces[0] if pieces else b"", pieces[:0:-1]
        self._at = self._passed_bytes = 0
        self._items_left = CODEC_ITEMS

    def end(self) -> None:
        """Refuse trailing bytes."""
        if left := self._left_bytes:
            raise Malformed(f"{left} bytes after the end of the value")

    def position(self) -> int:
        """Offset of the next byte, to slice what was read."""
        return self._passed_bytes + self._at

    def uint(self, maximum: int = U64_MAX) -> int:
        """An integer in [0, ``maximum``]."""
        tag = self._byte()
        value = tag if tag < 0x80 else self._integer(tag)
        if not 0 <= value <= maximum:
            raise Malformed(f"integer {value} is outside [0, {maximum}]")
        return value

    def flag(self) -> bool:
        """A boolean."""
        tag = self._byte()
        if tag not in (0xC2, 0xC3):
            raise self._unexpected("boolean", tag)
        return tag == 0xC3

    def text(self, max_chars: int) -> str:
        """Text of at most ``max_chars`` code points."""
        raw = self._take(self._length(_TEXT, 4 * max_chars))
        text = _utf8(raw)
        if len(text) > max_chars:
            raise TooLarge(f"text of {len(text)} characters where at most {max_chars} are allowed")
        return text

    def blob(self, limit: int) -> bytes:
        """A byte string of at most ``limit`` bytes, copied."""
        return bytes(self._take(self._length(_BYTES, limit)))

    def view(self, limit: int) -> memoryview:
        """A byte string of at most ``limit`` bytes, as a view of the input."""
        length = self._length(_BYTES, limit)
        if self._at + length > len(self._data):
            return memoryview(self._take_across(length))
        self._at += length
        return memoryview(self._data)[self._at - length : self._at]

    def array(self, limit: int) -> int:
        """The header of an array of at most ``limit`` items; returns how many follow."""
        return self._container(_ARRAY, limit, bytes_each=1)

    def map(self, limit: int) -> int:
        """The header of a map of at most ``limit`` pairs; returns how many follow."""
        return self._container(_MAP, limit, bytes_each=2)

    def value(self, keys: Keys = "int", depth: int = CODEC_DEPTH) -> Any:
        """Any one value of at most ``depth`` levels below this one."""
        self._items_left -= 1
        if self._items_left < 0:
            raise TooLarge(f"more than {CODEC_ITEMS} items in one message")
        if depth < 0:
            raise Malformed(f"more than {CODEC_DEPTH} levels")
        left = self._left_bytes
        match _type_of(self._peek()):
            case "bytes":
                return self.blob(left)
            case "text":
                return self.text(left)
            case "array":
                return [self.value(keys, depth - 1) for _ in range(self.array(self._items_left))]
            case "map":
                return self._map_value(keys, depth)
            case "boolean":
                return self.flag()
            case "integer":
                return self._integer(self._byte())
        raise self._unexpected("a type of ours", self._byte())

    def _map_value(self, keys: Keys, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        last: Any = None
        for _ in range(self.map(self._items_left)):
            key: Any = self.uint() if keys == "int" else self.text(self.size_bytes)
            # Compared as UTF-8, which orders as the code points do.
            if last is not None and key <= last:
                raise NonCanonical(f"map key {key!r:.40} does not ascend")
            found[key] = self.value(keys, depth - 1)
            last = key
        return found

    def _container(self, family: _Family, limit: int, bytes_each: int) -> int:
        count = self._length(family, limit)
        self._need(count * bytes_each)
        return count

    def _length(self, family: _Family, limit: int) -> int:
        tag = self._byte()
        if family.fix_first <= tag <= family.fix_last:
            length = tag - family.fix_first
        elif (wide := family.wide.get(tag)) is not None:
            width, least = wide
            length = int.from_bytes(self._take(width), "big")
            if length < least:
                raise NonCanonical(f"{family.name} of length {length} in a {width}-byte header")
        else:
            raise self._unexpected(family.name, tag)
        if length > limit:
            raise TooLarge(f"{family.name} of length {length} where at most {limit} are allowed")
        return length

    def _integer(self, tag: int) -> int:
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if (wide := _UNSIGNED.get(tag)) is not None:
            width, least = wide
            value = int.from_bytes(self._take(width), "big")
            if value < least:
                raise NonCanonical(f"integer {value} in {width} bytes")
            return value
        if (wide := _SIGNED.get(tag)) is not None:
            width, most = wide
            value = int.from_bytes(self._take(width), "big", signed=True)
            if value > most:
                raise NonCanonical(f"integer {value} in {width} signed bytes")
            return value
        raise self._unexpected("integer", tag)

    @property
    def _left_bytes(self) -> int:
        return self.size_bytes - self._passed_bytes - self._at

    def _peek(self) -> int:
        if self._at >= len(self._data):
            self._next_piece()
        return self._data[self._at]

    def _byte(self) -> int:
        if self._at >= len(self._data):
            self._next_piece()
        self._at += 1
        return self._data[self._at - 1]

    def _next_piece(self) -> None:
        if not self._rest:
            raise Malformed("truncated: a byte needed, none left")
        self._passed_bytes += len(self._data)
        self._data, self._at = self._rest.pop(), 0

    def _take(self, length: int) -> Piece:
        at = self._at
        end = at + length
        if end > len(self._data):
            return self._take_across(length)
        self._at = end
        return self._data[at:end]

    def _take_across(self, length: int) -> bytes:
        """What lies in several pieces; what is large is copied here for the first time."""
        self._need(length)
        parts: list[memoryview] = []
        while length:
            if self._at >= len(self._data):
                self._next_piece()
            parts.append(memoryview(self._data)[self._at : self._at + length])
            self._at += len(parts[-1])
            length -= len(parts[-1])
        return b"".join(parts)

    def _need(self, length: int) -> None:
        if length > self._left_bytes:
            raise Malformed(f"truncated: {length} bytes needed, {self._left_bytes} left")

    def _unexpected(self, wanted: str, tag: int) -> Malformed:
        return Malformed(f"expected {wanted}, found header 0x{tag:02x} at byte {self.position() - 1}")


def _utf8(raw: Piece) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise Malformed("text is no valid UTF-8") from None


def _type_of(tag: int) -> str:
    """Which of our types a header byte announces; empty for none of them."""
    if tag < 0x80 or tag >= 0xE0 or tag in _UNSIGNED or tag in _SIGNED:
        return "integer"
    if tag in (0xC2, 0xC3):
        return "boolean"
    for family in (_TEXT, _BYTES, _ARRAY, _MAP):
        if family.fix_first <= tag <= family.fix_last or tag in family.wide:
            return family.name
    return ""
