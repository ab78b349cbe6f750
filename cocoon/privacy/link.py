"""The sealed link: one lease's messages as AEAD frames over any ordered stream.

Both ends hold one key per direction, derived from the keys in the sealed
header and a fresh nonce of the provider. A message is padded, cut into frames
and sealed with AES-256-GCM under a counter; nothing but the order of arrival
says which counter a frame has, so a lost, repeated, reordered or reflected
frame does not open.

Invariants
    No counter value seals two frames under one key.
    A reader that refused a frame never opens another one.
    A reader holds no more than what arrived, and never more than its bound, beside memory for ``_SPARES`` frames.

Purity: pure. Spec: docs/spec/sealing.md, rules SEA-6 to SEA-13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cocoon.core.errors import BadSeal, LimitExceeded, NonCanonical, PeerFault, TooLarge, UsageError
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LINK_FRAME_BYTES, LINK_FRAMES, MESSAGE_BYTES
from cocoon.core.pieces import Piece, Pieces
from cocoon.privacy.padding import PREFIX_BYTES, declared_bytes, padded, padded_bytes, unpadded

KEY_BYTES = 32
NONCE_BYTES = 32
_TAG_BYTES = 16
_COUNTER_BYTES = 12
#: Full frames whose memory a reader or a writer keeps for later ones; those of a message of 4 MiB and what frames it.
_SPARES = 18
_SESSION_LABEL = b"cocoon/1/session\0"

#: Largest sealed frame; what a transport must accept on a work link.
SEALED_FRAME_BYTES = LINK_FRAME_BYTES + _TAG_BYTES
#: A full one lies in memory that can be used again.
Frame = bytes | bytearray


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """One 32-byte secret per direction, drawn by the requester's shell for one lease."""

    to_provider: bytes = field(repr=False)
    to_requester: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.to_provider) != KEY_BYTES or len(self.to_requester) != KEY_BYTES:
            raise UsageError(f"link keys have {KEY_BYTES} bytes each")
        if self.to_provider == self.to_requester:
            raise UsageError("the directions of a link need different keys")

    @classmethod
    def from_bytes(cls, material: bytes) -> LinkKeys:
        """Split 64 bytes: first the key towards the provider, then the one back."""
        return cls(material[:KEY_BYTES], material[KEY_BYTES:])

    def pack(self) -> bytes:
        """The 64 bytes that ``from_bytes`` takes."""
        return self.to_provider + self.to_requester


def session_keys(keys: LinkKeys, nonce: bytes, lease: LeaseId) -> LinkKeys:
    """Keys of one connection of a lease, by HKDF-SHA256 (SEA-6).

    Args:
        keys: From the sealed header.
        nonce: 32 fresh bytes from the provider's ``LeaseAccept``; a resumed
            lease has a new one, so that no counter starts twice under one key.
    """
    if len(nonce) != NONCE_BYTES or len(lease) != 32:
        raise UsageError(f"nonce of {len(nonce)} and lease id of {len(lease)} bytes; both have 32")
    return LinkKeys(
        _derive(keys.to_provider, nonce, lease, b"to provider"),
        _derive(keys.to_requester, nonce, lease, b"to requester"),
    )


def _derive(key: bytes, nonce: bytes, lease: bytes, direction: bytes) -> bytes:
    info = _SESSION_LABEL + lease + direction
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=nonce, info=info).derive(key)


class SealedWriter:
    """Seals messages of one direction; one writer per session key, ever."""

    __slots__ = ("_aead", "_counter", "_between", "_plain", "_spares")

    def __init__(self, key: bytes) -> None:
        """``key``: 32 bytes from ``session_keys``."""
        self._aead = AESGCM(_checked(key))
        self._counter = 0
        self._between = True
        #: For full frames: memory of those that nobody needs any more. A fresh one is filled with zeros first.
        self._spares: list[bytearray] = []
        #: For frames of several pieces, as long as the longest so far: a fresh one each costs more than the cipher.
        self._plain = bytearray()

    def seal(self, *pieces: Piece) -> list[Frame]:
        """All frames of one message, given in pieces, in the order in which they must leave.

        Raises:
            LimitExceeded: the message is above MESSAGE_BYTES, or the link has
                used up its frames; a new connection of the lease goes on.
        """
        return list(self.frames(*pieces))

    def frames(self, *pieces: Piece) -> Iterator[Frame]:
        """As ``seal``, one frame at a time, for messages too large to hold twice.

        No piece may change until all frames are taken.

        Raises:
            UsageError: the frames of the message before are not all taken.
        """
        if not self._between:
            raise UsageError("a sealed message is still on its way; take all its frames first")
        length = sum(map(len, pieces))
        if length > MESSAGE_BYTES:
            raise LimitExceeded(f"a message of {length} bytes; a link carries at most {MESSAGE_BYTES}")
        count = -(-padded_bytes(length) // LINK_FRAME_BYTES)
        if self._counter + count > LINK_FRAMES:
            raise LimitExceeded(f"the link has sealed {self._counter} of {LINK_FRAMES} frames; connect anew")
        self._between = False
        return self._sealed(padded(pieces), count)

    def give_back(self, frame: Frame) -> None:
        """Nobody needs this frame any more: a later one may be sealed to where it lies."""
        if isinstance(frame, bytearray) and len(self._spares) < _SPARES:
            self._spares.append(frame)

    def _sealed(self, pieces: Iterable[Piece], count: int) -> Iterator[Frame]:
        for left, stretch in zip(range(count - 1, -1, -1), _cut(pieces, LINK_FRAME_BYTES), strict=True):
            counter = self._counter.to_bytes(_COUNTER_BYTES, "big")
            self._counter += 1
            self._between = not left
            plain = stretch[0] if len(stretch) == 1 else self._put(stretch)
            if len(plain) < LINK_FRAME_BYTES:
                yield self._aead.encrypt(counter, plain, None)
            else:
                room = self._spares.pop() if self._spares else bytearray(SEALED_FRAME_BYTES)
                self._aead.encrypt_into(counter, plain, None, room)
                yield room

    def _put(self, pieces: Sequence[Piece]) -> memoryview:
        """These one behind the other, until the next call."""
        size = sum(map(len, pieces))
        if len(self._plain) < size:
            self._plain = bytearray(size)
        plain, at = memoryview(self._plain)[:size], 0
        for piece in pieces:
            plain[at : at + len(piece)] = piece
            at += len(piece)
        return plain


class SealedReader:
    """Opens what the other side's writer sealed, in order, up to a bound."""

    __slots__ = ("_aead", "_counter", "_max_bytes", "_plain", "_spares", "_parts", "_length", "_came", "_broken")

    def __init__(self, key: bytes, max_bytes: int = MESSAGE_BYTES) -> None:
        """``key``: 32 bytes from ``session_keys``; ``max_bytes``: largest message accepted."""
        self._aead = AESGCM(_checked(key))
        self._counter = 0
        self._max_bytes = max_bytes
        self._plain = bytearray()
        #: For full frames: memory that held those of messages before.
        self._spares: list[bytearray] = []
        #: Of the message that is coming: what its frames gave, its length, and how much came with the padding.
        self._parts: list[Piece] = []
        self._length = self._came = 0
        self._broken = False

    def feed_frame(self, frame: Piece) -> Pieces | None:
        """Open one frame; return the message, in pieces if it is long, when this was its last, else None.

        Raises:
            BadSeal: truncated, changed, repeated, reordered, or another
                direction's or session's frame.
            TooLarge: the frame or the message it announces is above the bound;
                refused before anything of that size is allocated.
            NonCanonical: sealed by the peer, but cut or padded in another way.

        After any of these the reader stays broken: the link must end.
        """
        if self._broken:
            raise BadSeal("the link is broken by an earlier frame")
        try:
            return self._feed(memoryview(frame))
        except PeerFault:
            self._broken = True
            self._parts = []
            raise

    def give_back(self, message: Pieces) -> None:
        """Nobody reads this message of ``feed_frame`` any more: others may be opened to where it lies."""
        for part in [message] if isinstance(message, bytes | bytearray | memoryview) else message:
            if isinstance(part, memoryview) and isinstance(part.obj, bytearray) and len(self._spares) < _SPARES:
                self._spares.append(part.obj)

    def end(self) -> None:
        """State that the stream has ended; raises BadSeal in the middle of a message."""
        if self._broken or self._came:
            raise BadSeal(f"the link ended inside a message, after {self._came} bytes")

    def _feed(self, frame: memoryview) -> Pieces | None:
        size = len(frame) - _TAG_BYTES
        if size < 1:
            raise BadSeal(f"a sealed frame of {len(frame)} bytes is truncated")
        if size > LINK_FRAME_BYTES:
            raise TooLarge(f"a sealed frame of {len(frame)} bytes; at most {SEALED_FRAME_BYTES}")
        data = self._open(frame)
        if not self._came:
            self._length = self._announced(data)
        left = padded_bytes(self._length) - self._came
        if size != min(left, LINK_FRAME_BYTES):
            raise NonCanonical(f"a frame of {size} bytes, where {left} bytes are missing")
        part = unpadded(data, self._came, self._length)
        self._parts.append(part if size == LINK_FRAME_BYTES else bytes(part))
        self._came += size
        if size < left:
            return None
        parts, self._parts, self._came = self._parts, [], 0
        return parts[0] if len(parts) == 1 else parts

    def _open(self, frame: memoryview) -> memoryview:
        if self._counter >= LINK_FRAMES:
            raise BadSeal(f"more than {LINK_FRAMES} frames under one key")
        size = len(frame) - _TAG_BYTES
        if size == LINK_FRAME_BYTES:                    # a full one stays where it is opened, as a piece of its message
            plain = memoryview(self._spares.pop() if self._spares else bytearray(size))
        else:
            if len(self._plain) < size:
                self._plain = bytearray(size)
            plain = memoryview(self._plain)[:size]
        try:
            self._aead.decrypt_into(self._counter.to_bytes(_COUNTER_BYTES, "big"), frame, None, plain)
        except InvalidTag:
            raise BadSeal(f"frame {self._counter} does not open") from None
        self._counter += 1
        return plain

    def _announced(self, data: memoryview) -> int:
        """Length of the message that begins with ``data``."""
        length = declared_bytes(data[:PREFIX_BYTES])
        if length > self._max_bytes:
            raise TooLarge(f"a message of {length} bytes; at most {self._max_bytes}")
        return length


def _cut(pieces: Iterable[Piece], size: int) -> Iterator[list[memoryview]]:
    """Into stretches of ``size`` bytes; the last may be shorter."""
    stretch: list[memoryview] = []
    room = size
    for piece in pieces:
        left = memoryview(piece)
        while left:
            stretch.append(left[:room])
            left, room = left[room:], room - len(stretch[-1])
            if not room:
                yield stretch
                stretch, room = [], size
    if stretch:
        yield stretch


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise UsageError(f"a session key has {KEY_BYTES} bytes, not {len(key)}")
    return key
