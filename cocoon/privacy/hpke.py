"""The sealed header: a lease's link keys under the provider's hybrid post-quantum key.

HPKE (RFC 9180) single shot with ML-KEM-768 + X25519, HKDF-SHA256 and
AES-256-GCM. The box is bound to the lease and to both peers by its ``info``,
and fails to open anywhere else. HPKE here does not say who sealed: the sender
signs the box (``KeyBox``).

Purity: shell (adapter): encapsulation draws randomness inside ``cryptography``,
where no argument can replace it. Everything else here is a function of its
arguments; only ``node`` imports this module.
Spec: docs/spec/sealing.md, rules SEA-1 to SEA-3.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from cocoon.core.errors import BadSeal, UsageError
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.privacy.link import KEY_BYTES, LinkKeys

#: Number of this suite in a ``KeyBundle``.
SUITE = 1
#: ML-KEM seed (64) and X25519 scalar (32), as stored and as drawn from the operating system.
SEED_BYTES = 96
#: ML-KEM encapsulation key (1,184) and X25519 public key (32).
PUBLIC_BYTES = 1_216
#: Encapsulation (1,088 + 32), two keys, tag.
BOX_BYTES = 1_200
_MLKEM_SEED_BYTES = 64
_MLKEM_PUBLIC_BYTES = 1_184
_LABEL = b"cocoon/1/link\0"
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def public_bytes(seed: bytes) -> bytes:
    """The 1,216 public bytes of a 96-byte seed, as a ``KeyBundle`` carries them."""
    mlkem, x25519 = _private(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def seal_keys(public: bytes, lease: LeaseId, keys: LinkKeys, *, sender: PeerKey, receiver: PeerKey) -> bytes:
    """Seal both directions' keys of ``lease`` to the holder of ``public``.

    Args:
        public: 1,216 bytes from the provider's signed ``KeyBundle``.
        sender: The requester's peer key, which will sign the box.
        receiver: The provider's peer key.

    Returns:
        1,200 bytes, different at every call.

    Raises:
        BadSeal: ``public`` is no key of this suite.
    """
    try:
        key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
        )
        # A low-order X25519 point gives an all-zero secret, which is refused only here.
        return _SUITE.encrypt(keys.pack(), key, info=_info(lease, sender, receiver))
    except ValueError as error:
        raise BadSeal(f"the provider's public key cannot be used: {error}") from None


def open_keys(seed: bytes, lease: LeaseId, box: bytes, *, sender: PeerKey, receiver: PeerKey) -> LinkKeys:
    """Open a box that ``seal_keys`` made for the same lease and peers.

    Args:
        seed: The provider's own 96 bytes.

    Raises:
        BadSeal: changed, truncated, for another key, lease or pair of peers, or
            holding anything but two different keys.
    """
    mlkem, x25519 = _private(seed)
    private = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
    try:
        material = _SUITE.decrypt(box, private, info=_info(lease, sender, receiver))
    except (InvalidTag, ValueError):
        raise BadSeal(f"the key box of {len(box)} bytes does not open for this lease") from None
    if len(material) != 2 * KEY_BYTES or material[:KEY_BYTES] == material[KEY_BYTES:]:
        raise BadSeal(f"the key box holds {len(material)} bytes that are not two keys")
    return LinkKeys.from_bytes(material)


def _private(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(seed) != SEED_BYTES:
        raise UsageError(f"an HPKE seed has {SEED_BYTES} bytes, not {len(seed)}")
    return (
        MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(seed[_MLKEM_SEED_BYTES:]),
    )


def _info(lease: bytes, sender: bytes, receiver: bytes) -> bytes:
    # Fixed lengths, so that no two triples share an info.
    for name, value in (("lease id", lease), ("sender", sender), ("receiver", receiver)):
        if len(value) != 32:
            raise UsageError(f"{name} of {len(value)} bytes; it has 32")
    return _LABEL + lease + sender + receiver
