"""Messages that wait for a link at the same time travel as one.

What it costs to seal, pad, send and wake for a message is paid once for all of
them. One message alone, or a large one, travels as it is.

Purity: pure. Spec: docs/spec/sealing.md, rules SEA-14 and SEA-15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cocoon.core.limits import BUNDLE_BYTES, BUNDLE_MESSAGES, EXTRA_FIELDS_BYTES
from cocoon.core.pieces import Pieces
from cocoon.wire.schema import Message, field, message, pack, peek_kind, unpack
from cocoon.wire.types import Each, UpTo

#: What msgpack adds to a byte string of such a size at most.
_HEADER_BYTES = 5
#: Of a bundle around its messages: kind, version, the map, the array.
_FRAME_BYTES = 64


@message(kind=33, version=1, name="bundle", max_body_bytes=BUNDLE_BYTES + EXTRA_FIELDS_BYTES)
class Bundle(Message):
    """Packed messages, in the order in which they would have been sent alone."""

    messages: tuple[bytes, ...] = field(1, Each(UpTo(BUNDLE_BYTES), most=BUNDLE_MESSAGES, least=2))


def bundled(messages: Iterable[Sequence[bytes]]) -> Iterator[Sequence[bytes]]:
    """What to send for these packed messages, as few and in their order; each, and what is sent, in pieces."""
    waiting: list[Sequence[bytes]] = []
    room_bytes = BUNDLE_BYTES - _FRAME_BYTES
    for one in messages:
        size_bytes = sum(map(len, one)) + _HEADER_BYTES
        if waiting and (size_bytes > room_bytes or len(waiting) == BUNDLE_MESSAGES):
            yield _together(waiting)
            waiting, room_bytes = [], BUNDLE_BYTES - _FRAME_BYTES
        waiting.append(one)
        room_bytes -= size_bytes
    if waiting:
        yield _together(waiting)


def unbundled(data: Pieces, *expected: type[Message]) -> list[Message]:
    """The messages in what was received, each of an expected kind; a bundle holds no bundles.

    Raises:
        As ``schema.unpack``.
    """
    if peek_kind(data) != Bundle.shape.kind:
        return [unpack(data, *expected)]
    return [unpack(one, *expected) for one in unpack(data, Bundle).messages]


def _together(messages: list[Sequence[bytes]]) -> Sequence[bytes]:
    return messages[0] if len(messages) == 1 else [pack(Bundle(messages=tuple(map(b"".join, messages))))]
