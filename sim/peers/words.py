"""Signatures in the simulator: real ones in small worlds, names for them in large ones.

Up to ``REAL_SIGNERS`` peers every signature is Ed25519. Above that the envelope of
a message carries a keyed hash in its place, which proves nothing but costs little;
cells (vouchers, orders) are signed for real everywhere, because machines check
those themselves. Whoever reports a run says which of the two it was. A world remembers
what it signed for real: shown again it fits, and only what differs is computed.

Purity: pure. Spec: docs/spec/simulation.md, rule SIM-7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cocoon.core.errors import BadSignature, wrong
from cocoon.core.ids import PeerKey
from cocoon.core.rng import stream
from cocoon.identity.keys import key_pair
from cocoon.ledger.terms import LeaseTerms, terms_of
from cocoon.wire import ed25519
from cocoon.wire.messages import Lease
from cocoon.wire.schema import Message
from cocoon.wire.signing import Signed, claimed, open_signed

M = TypeVar("M", bound=Message)
#: Key, message and signature of what was signed.
Made = set[tuple[bytes, bytes, bytes]]

#: Peers of a world whose signatures are all real.
REAL_SIGNERS = 200
#: Messages whose check is remembered; then all are forgotten.
_REMEMBERED = 1 << 16
_ENVELOPE = b"cocoon/1/"


class RealSigner:
    """An Ed25519 key drawn from the seed."""

    is_real = True

    def __init__(self, seed: int, name: bytes) -> None:
        draws = stream(seed, name, "key")
        self._pair = key_pair(b"".join(draws.bits64().to_bytes(8, "big") for _ in range(4)))
        self.key = PeerKey(self._pair.key)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._pair.sign(message)


class KnownSigner(RealSigner):
    """The same key, and the world's memory of what it signed."""

    def __init__(self, seed: int, name: bytes, made: Made) -> None:
        super().__init__(seed, name)
        self._made = made

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        signature = super().sign(message)
        if len(self._made) >= _REMEMBERED:
            self._made.clear()                          # what is forgotten is verified
        self._made.add((self.key, message, signature))
        return signature


class FakeSigner(RealSigner):
    """The same key, with envelopes that are only named."""

    is_real = False

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return named(self.key, message) if message.startswith(_ENVELOPE) else super().sign(message)


def named(key: bytes, message: bytes) -> bytes:
    """What stands in for a signature."""
    return hashlib.blake2b(message, key=key, digest_size=64).digest()


@dataclass(slots=True)
class Words:
    """Reads signed messages; the same bytes are checked once, because a check has no other outcome later."""

    are_real: bool
    #: A signature of this world that is shown again fits, which needs no arithmetic; any other is verified.
    made: Made = field(default_factory=set)
    _checked: dict[tuple[bytes, type[Message]], Signed[Any]] = field(default_factory=dict)
    _terms: dict[bytes, LeaseTerms] = field(default_factory=dict)
    _claimed: dict[bytes, tuple[PeerKey, Any]] = field(default_factory=dict)

    def open(self, data: bytes, cls: type[M], *, signer: PeerKey | None = None) -> Signed[M]:
        """As ``wire.signing.open_signed``.

        Raises:
            PeerFault: no such message, or not signed by who is due.
        """
        found = self._checked.get((data, cls))
        if found is None:
            found = open_signed(data, cls, verify=self.verify if self.are_real else _verify_name)
            if len(self._checked) >= _REMEMBERED:
                self._checked.clear()
            self._checked[data, cls] = found
        if signer is not None and found.signer != signer:
            raise wrong(cls.shape.signed_by or "provider", f"{cls.shape.name} is signed by another peer than is due")
        return found

    def terms(self, lease: Signed[Lease]) -> LeaseTerms:
        """As ``ledger.terms.terms_of``, which computes an escrow's address from its birth each time."""
        found = self._terms.get(lease.digest)
        if found is None:
            found = self._terms[lease.digest] = terms_of(lease)
        return found

    def claimed(self, data: bytes, cls: type[M]) -> tuple[PeerKey, M]:
        """As ``wire.signing.claimed``."""
        if data not in self._claimed:
            if len(self._claimed) >= _REMEMBERED:
                self._claimed.clear()
            self._claimed[data] = claimed(data, cls)
        return self._claimed[data]

    def verify(self, key: bytes, message: bytes, signature: bytes) -> None:
        """As ``wire.ed25519.verify``."""
        if (key, message, signature) not in self.made:
            ed25519.verify(key, message, signature)


def _verify_name(key: bytes, message: bytes, signature: bytes) -> None:
    if signature != named(key, message):
        raise BadSignature("the name of a signature does not fit its message and signer")
