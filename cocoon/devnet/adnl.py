"""ADNL over TCP, the server's side: key exchange, encrypted packets, checks. Bytes in, bytes out.

The client's first 256 bytes name the server's key and carry, under a shared
secret, four values of the client's choice: keys and initial counters of AES-CTR
for both directions. A packet is a length, 32 random bytes, the payload, and a
SHA-256 over both.

Purity: shell (nonces from the operating system). Spec: docs/spec/devnet.md, rule DEV-28.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from nacl.bindings import (
    crypto_scalarmult,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaclRuntimeError

from cocoon.core.errors import BadSeal, Malformed, TooLarge
from cocoon.core.values import Value

SEED_BYTES = 32
HANDSHAKE_BYTES = 256
LENGTH_BYTES = 4
_KEY_TAG = bytes.fromhex("c6b41348")
_NONCE_BYTES = 32
_DIGEST_BYTES = 32
_AROUND_BYTES = _NONCE_BYTES + _DIGEST_BYTES


class ServerKey(Value):
    """The liteserver's Ed25519 key; its seed never shows."""

    public: bytes
    _secret: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> ServerKey:
        """The key of a 32-byte seed."""
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(public, secret)

    @property
    def text(self) -> str:
        """The public key in base64, as lists of liteservers have it."""
        return base64.b64encode(self.public).decode("ascii")

    def shared_with(self, client: bytes) -> bytes:
        """X25519 secret with a client's Ed25519 key.

        Raises:
            BadSeal: that is no point of the curve.
        """
        try:
            theirs = crypto_sign_ed25519_pk_to_curve25519(client)
            return crypto_scalarmult(crypto_sign_ed25519_sk_to_curve25519(self._secret), theirs)
        except (CryptoError, NaclRuntimeError) as error:
            raise BadSeal("the client's key is no point of the curve") from error

    def __repr__(self) -> str:
        return f"ServerKey({self.text})"


class Session:
    """Both directions of one client after its handshake."""

    def __init__(self, key: ServerKey, handshake: bytes, most_bytes: int) -> None:
        """Accept a handshake of ``HANDSHAKE_BYTES``.

        Args:
            most_bytes: Largest payload that the client may send.

        Raises:
            BadSeal: it is for another server, or was changed.
        """
        server, client, digest, sealed = handshake[:32], handshake[32:64], handshake[64:96], handshake[96:]
        if server != hashlib.sha256(_KEY_TAG + key.public).digest():
            raise BadSeal("the client looks for another server")
        shared = key.shared_with(client)
        first = _stream(shared[:16] + digest[16:32], digest[:4] + shared[20:32])
        chosen = first.update(sealed)
        if hashlib.sha256(chosen).digest() != digest:
            raise BadSeal("the client's handshake was changed")
        self._out = _stream(chosen[0:32], chosen[64:80])
        self._in = _stream(chosen[32:64], chosen[80:96])
        self._most_bytes = most_bytes

    def length(self, data: bytes) -> int:
        """How many bytes follow the ``LENGTH_BYTES`` that a packet begins with.

        Raises:
            TooLarge, Malformed: no packet of ours has this length; nothing was allocated.
        """
        length = int.from_bytes(self._in.update(data), "little")
        if length > self._most_bytes + _AROUND_BYTES:
            raise TooLarge(f"a packet of {length} bytes; at most {self._most_bytes + _AROUND_BYTES} are taken")
        if length < _AROUND_BYTES:
            raise Malformed(f"a packet of {length} bytes has no room for its checks")
        return length

    def open(self, data: bytes) -> bytes:
        """Payload of the packet behind its length.

        Raises:
            BadSeal: it was changed on the way.
        """
        packet = self._in.update(data)
        if hashlib.sha256(packet[:-_DIGEST_BYTES]).digest() != packet[-_DIGEST_BYTES:]:
            raise BadSeal("a packet was changed on the way")
        return packet[_NONCE_BYTES:-_DIGEST_BYTES]

    def seal(self, payload: bytes) -> bytes:
        """A whole packet; they must leave in the order in which they were sealed."""
        body = os.urandom(_NONCE_BYTES) + payload
        length = (len(body) + _DIGEST_BYTES).to_bytes(LENGTH_BYTES, "little")
        return self._out.update(length + body + hashlib.sha256(body).digest())


def _stream(key: bytes, counter: bytes) -> CipherContext:
    """AES-CTR; encrypting and decrypting are the same."""
    return Cipher(AES(key), CTR(counter)).encryptor()
