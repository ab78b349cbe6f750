"""Signed messages: who said what, for one kind of message only.

A signed message is the array ``[kind, version, body, signer, signature]``, where
``body`` is the canonical map as a byte string. The signature covers
``"cocoon/1/" + name + 0x00 + SHA-256(body)``, so it can never stand for a message
of another name, and optional fields that we do not know stay covered.

Purity: pure (signing itself is behind ``Signer``). Spec: docs/spec/wire.md, rules WIR-13 to WIR-16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from cocoon.core.errors import Malformed, UsageError, wrong
from cocoon.core.ids import PeerKey
from cocoon.core.values import Value
from cocoon.wire import ed25519
from cocoon.wire.codec import Reader, pack_plain
from cocoon.wire.schema import Message, Shape, body_bytes, read_kind, unpack_body
from cocoon.wire.widths import KEY_BYTES, SIGNATURE_BYTES

M = TypeVar("M", bound=Message)
#: Key, message and signature; raises ``BadSignature``.
Verify = Callable[[bytes, bytes, bytes], None]


class Signer(Protocol):
    """Holds an Ed25519 key."""

    @property
    def key(self) -> PeerKey:
        """The public key, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""


class Signed(Value, Generic[M], dict=True):
    """A message whose signature is known to be good, with the bytes that it covers."""

    message: M
    body: bytes
    signer: PeerKey
    signature: bytes

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the body, 32 bytes: the id of this message, unknown fields included."""
        return hashlib.sha256(self.body).digest()

    def pack(self) -> bytes:
        """The bytes that travel."""
        shape = self.message.shape
        return pack_plain([shape.kind, shape.version, self.body, bytes(self.signer), self.signature])


def sign(msg: M, signer: Signer) -> Signed[M]:
    """Sign ``msg`` with ``signer``.

    Raises:
        UsageError: a field is out of bounds, or this kind is never signed.
    """
    if msg.shape.signed_by is None:
        raise UsageError(f"{msg.shape.name} is never signed")
    body = body_bytes(msg)
    return Signed(msg, body, signer.key, signer.sign(to_be_signed(msg.shape, body)))


def open_signed(
    data: bytes, cls: type[M], *, signer: PeerKey | None = None, verify: Verify = ed25519.verify
) -> Signed[M]:
    """Read a signed message of one kind and check its signature.

    Args:
        signer: Who must have signed; None accepts anybody (the caller looks at ``.signer``).
        verify: Only a simulator, which makes all signatures itself, has another one.

    Raises:
        UnknownKind, UnknownVersion, TooLarge, NonCanonical, Malformed: no such message.
        BadSignature: body, signer and signature do not belong together.
        WrongField: a good signature of somebody else than ``signer``, or than the
            peer that the message names in this role (``wrong_provider``, ``wrong_requester``).
    """
    role = cls.shape.signed_by
    if role is None:
        raise UsageError(f"{cls.shape.name} is never signed")
    body, key, signature = _envelope(data, cls)
    verify(key, to_be_signed(cls.shape, body), signature)
    message = unpack_body(cls, body)
    for due in (signer, getattr(message, role, None)):
        if due is not None and due != key:
            raise wrong(role, f"{cls.shape.name} is signed by {key.hex()[:16]}, not by {due.hex()[:16]}")
    return Signed(message, body, PeerKey(key), signature)


def claimed(data: bytes, cls: type[M]) -> tuple[PeerKey, M]:
    """Who a packed message says has signed it, and what it says; the signature is *not* checked.

    For deciding whether that is worth the effort; errors as ``open_signed``, but no ``BadSignature``.
    """
    body, key, _ = _envelope(data, cls)
    return PeerKey(key), unpack_body(cls, body)


def to_be_signed(shape: Shape, body: bytes) -> bytes:
    """What the signature of a message with this body covers."""
    return b"cocoon/1/" + shape.name.encode() + b"\0" + hashlib.sha256(body).digest()


def _envelope(data: bytes, cls: type[M]) -> tuple[bytes, bytes, bytes]:
    """Body, signer and signature of a packed signed message; nothing verified yet."""
    reader = Reader(data, cls.shape.max_bytes)
    if reader.array(5) != 5:
        raise Malformed("a signed message is an array of 5 items")
    read_kind(reader, (cls,))
    body = reader.blob(cls.shape.max_body_bytes)
    key, signature = reader.blob(KEY_BYTES), reader.blob(SIGNATURE_BYTES)
    reader.end()
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise Malformed("a signer has 32 bytes and a signature 64")
    return body, key, signature
