"""Ed25519 verification, with libsodium's strictness: canonical scalars, no small-order keys.

Purity: pure.
"""

from __future__ import annotations

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from cocoon.core.errors import BadSignature
from cocoon.wire.widths import KEY_BYTES, SIGNATURE_BYTES


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Return if ``signature`` (64 bytes) of ``message`` was made by ``key`` (32 bytes).

    Raises:
        BadSignature: it was not, or a length is wrong.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"key of {len(key)} and signature of {len(signature)} bytes; 32 and 64 are due")
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        raise BadSignature("the signature does not fit its message and signer") from None
