"""What the outbox writes into the journal: kinds, unique keys and bodies.

Items have places, counted from 1, and end in their order; so the open ones are
those behind the newest ended place, however long the journal is.

Purity: pure. Spec: docs/spec/outbox.md, rules OUT-2, OUT-8 and OUT-9.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from cocoon.core.errors import Corrupt, LimitExceeded, Malformed, PeerFault, TooLarge
from cocoon.core.limits import SIGNER_CELLS, SIGNER_FRAME_BYTES
from cocoon.core.values import Value
from cocoon.ledger.signer.protocol import pack_outgoing, unpack_outgoing
from cocoon.ledger.wallet import Outgoing
from cocoon.wire.boc import pack, unpack
from cocoon.wire.cells import Cell
from cocoon.wire.codec import decode, encode

OUTBOX_KEY = "outbox_key"
OUTBOX_QUEUED = "outbox_queued"
OUTBOX_SIGNED = "outbox_signed"
OUTBOX_ENDED = "outbox_ended"

#: What the unique keys of all queued (ended) places begin with; they rise with the place.
QUEUED_PLACES = b"out:q:"
ENDED_PLACES = b"out:e:"
_ROW_BYTES = SIGNER_FRAME_BYTES + 1_024
_NAME_BYTES = 64
_ENDED_BYTES = 4_096

_Row = TypeVar("_Row")


def names_of(key: bytes) -> bytes:
    """What the unique keys of all ``OUTBOX_KEY`` rows of one intention begin with; they rise with the try."""
    return b"out:k:" + hashlib.sha256(key).digest()


def name_key(key: bytes, attempt: int) -> bytes:
    """Unique key of the ``attempt``-th time that an intention took a place; later ones follow failures."""
    return names_of(key) + attempt.to_bytes(4, "big")


def queued_key(place: int) -> bytes:
    """Unique key of a queued place."""
    return QUEUED_PLACES + place.to_bytes(8, "big")


def signatures_of(place: int) -> bytes:
    """What the unique keys of all signatures of a place begin with; they rise with the attempt."""
    return b"out:s:" + place.to_bytes(8, "big")


def ended_key(place: int) -> bytes:
    """Unique key of the end of a place."""
    return ENDED_PLACES + place.to_bytes(8, "big")


class NameRow(Value):
    """An intention takes a place; written before the place itself, so that it is never queued twice."""

    attempt: int
    place: int

    def pack(self) -> bytes:
        """Body of the journal entry."""
        return encode([self.attempt, self.place])

    @classmethod
    def unpack(cls, body: bytes) -> NameRow:
        """Read a body that ``pack`` wrote; any other is Corrupt, here and below."""
        return _read(body, _NAME_BYTES, [int, int], cls)


class QueuedRow(Value):
    """A message that the wallet shall send."""

    place: int
    key: bytes
    message: Outgoing

    def pack(self) -> bytes:
        """Body of the journal entry.

        Raises:
            LimitExceeded: the message has more bytes or cells than the signer takes, so it could not be read back.
        """
        try:
            message = pack_outgoing(self.message)
            unpack_outgoing(message)
        except TooLarge as error:
            raise LimitExceeded(f"the message is larger than the signer takes: {error.text}") from error
        body = encode([self.place, self.key, message])
        if len(body) > SIGNER_FRAME_BYTES:
            raise LimitExceeded(f"the message of {len(body)} bytes is larger than the signer takes")
        return body

    @classmethod
    def unpack(cls, body: bytes) -> QueuedRow:
        """Read a body that ``pack`` wrote."""
        return _read(
            body, _ROW_BYTES, [int, bytes, list], lambda place, key, sent: cls(place, key, unpack_outgoing(sent))
        )


class SignedRow(Value):
    """A signed message of the wallet; durable before it is first sent.

    Attributes:
        attempt: Of this place, from 0; a later one is made only when the earlier is dead for good.
        after_lt: Newest transaction of the wallet when it was signed: it is executed after that or never.
        body: Of the external message.
    """

    place: int
    attempt: int
    seqno: int
    valid_until_s: int
    after_lt: int
    body: Cell

    def pack(self) -> bytes:
        """Body of the journal entry."""
        return encode([
            self.place, self.attempt, self.seqno, self.valid_until_s, self.after_lt, pack(self.body),
        ])

    @classmethod
    def unpack(cls, data: bytes) -> SignedRow:
        """Read a body that ``pack`` wrote."""

        def made(place: int, attempt: int, seqno: int, valid_until_s: int, after_lt: int, body: bytes) -> SignedRow:
            cell = unpack(body, max_bytes=SIGNER_FRAME_BYTES, max_cells=SIGNER_CELLS)
            return cls(place, attempt, seqno, valid_until_s, after_lt, cell)

        return _read(data, _ROW_BYTES, [int, int, int, int, int, bytes], made)

    @property
    def unique(self) -> bytes:
        """Unique key of the row."""
        return signatures_of(self.place) + self.attempt.to_bytes(4, "big")


class Sent(Value):
    """The wallet's transaction that carried a message."""

    hash: bytes
    lt: int
    at_s: int


class Failure(Value):
    """Why a message was given up; nothing of it was executed."""

    code: str
    text: str


class EndedRow(Value):
    """The end of a place: sent, or given up."""

    place: int
    key: bytes
    outcome: Sent | Failure

    def pack(self) -> bytes:
        """Body of the journal entry."""
        match self.outcome:
            case Sent(found, lt, at_s):
                return encode([self.place, self.key, [found, lt, at_s]])
            case Failure(code, text):
                return encode([self.place, self.key, [code, text]])

    @classmethod
    def unpack(cls, body: bytes) -> EndedRow:
        """Read a body that ``pack`` wrote."""
        return _read(
            body, _ENDED_BYTES, [int, bytes, list], lambda place, key, outcome: cls(place, key, _outcome(outcome))
        )


def _outcome(items: list[object]) -> Sent | Failure:
    match items:
        case [bytes(found), int(lt), int(at_s)]:
            return Sent(found, lt, at_s)
        case [str(code), str(text)]:
            return Failure(code, text)
    raise Malformed("neither a transaction nor an error")


def _read(body: bytes, max_bytes: int, types: list[type], make: Callable[..., _Row]) -> _Row:
    """What ``make`` builds of the items, of these types, of a body that ``pack`` wrote.

    Raises:
        Corrupt: it is none. This is our own disk: nobody else is to blame, and to wait does not mend it.
    """
    try:
        items = decode(body, max_bytes=max_bytes)
        if isinstance(items, list) and [type(item) for item in items] == types:
            return make(*items)
    except PeerFault as error:
        raise Corrupt(f"a row of the outbox of {len(body)} bytes cannot be read: {error.text}") from error
    raise Corrupt(f"a row of the outbox of {len(body)} bytes holds other items than were written")
