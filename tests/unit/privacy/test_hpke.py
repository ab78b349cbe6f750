"""The sealed header opens for one lease and one pair of peers, or not at all (SEA-1 to SEA-3)."""

import hashlib

import pytest

from cocoon.core.errors import BadSeal, UsageError
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.privacy import hpke
from cocoon.privacy.link import LinkKeys

SEED = bytes(range(96))
LEASE = LeaseId(b"\x11" * 32)
REQUESTER = PeerKey(b"\x22" * 32)
PROVIDER = PeerKey(b"\x33" * 32)
KEYS = LinkKeys(b"\x44" * 32, b"\x55" * 32)
PEERS = {"sender": REQUESTER, "receiver": PROVIDER}


def box() -> bytes:
    return hpke.seal_keys(hpke.public_bytes(SEED), LEASE, KEYS, **PEERS)


def test_the_provider_opens_what_was_sealed_to_it() -> None:
    sealed = box()
    assert len(sealed) == hpke.BOX_BYTES
    assert hpke.open_keys(SEED, LEASE, sealed, **PEERS) == KEYS


def test_equal_seeds_give_equal_public_keys_of_the_announced_size() -> None:
    public = hpke.public_bytes(SEED)
    assert len(public) == hpke.PUBLIC_BYTES == 1216
    assert public == hpke.public_bytes(SEED) != hpke.public_bytes(SEED[::-1])


def test_the_public_key_of_a_seed_never_changes() -> None:
    """Golden: a stored identity must keep its key across versions of the library."""
    digest = hashlib.sha256(hpke.public_bytes(SEED)).hexdigest()
    assert digest == "d99e4496af749b54ee4a2d270c8057450624ecc5dc0866295ffc504a26134ad4"


def test_sealing_twice_gives_different_boxes() -> None:
    assert box() != box()


@pytest.mark.parametrize(
    ("lease", "sender", "receiver"),
    [
        (b"\x12" * 32, REQUESTER, PROVIDER), (LEASE, PROVIDER, REQUESTER),
        (LEASE, b"\x23" * 32, PROVIDER), (LEASE, REQUESTER, b"\x34" * 32),
    ],
)
def test_a_box_does_not_open_for_another_lease_or_peer(lease: bytes, sender: bytes, receiver: bytes) -> None:
    with pytest.raises(BadSeal):
        hpke.open_keys(SEED, LeaseId(lease), box(), sender=PeerKey(sender), receiver=PeerKey(receiver))


def test_a_box_does_not_open_under_another_seed() -> None:
    with pytest.raises(BadSeal):
        hpke.open_keys(SEED[::-1], LEASE, box(), **PEERS)


def test_every_flipped_byte_of_a_box_is_refused() -> None:
    sealed = box()
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1 << index % 8
        # X25519 ignores the top bit of a public key's last byte; the KEM hashes the key as sent.
        with pytest.raises(BadSeal):
            hpke.open_keys(SEED, LEASE, bytes(changed), **PEERS)


@pytest.mark.parametrize("length", [0, 1, 40, 1119, 1120, 1199, 1201])
def test_a_box_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(BadSeal):
        hpke.open_keys(SEED, LEASE, (box() + b"\0")[:length], **PEERS)


@pytest.mark.parametrize("material", [b"", b"\x44" * 32, b"\x44" * 64, bytes(range(65))])
def test_a_box_that_holds_no_two_keys_is_refused(material: bytes) -> None:
    class Odd:
        def pack(self) -> bytes:
            return material

    sealed = hpke.seal_keys(hpke.public_bytes(SEED), LEASE, Odd(), **PEERS)  # type: ignore[arg-type]
    with pytest.raises(BadSeal):
        hpke.open_keys(SEED, LEASE, sealed, **PEERS)


@pytest.mark.parametrize("public", [b"", bytes(1215), b"\xff" * 1216, bytes(1217), bytes(1216)])
def test_an_unusable_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(BadSeal):
        hpke.seal_keys(public, LEASE, KEYS, **PEERS)


def test_wrong_lengths_of_our_own_are_usage_errors() -> None:
    with pytest.raises(UsageError):
        hpke.public_bytes(SEED[:95])
    with pytest.raises(UsageError):
        hpke.seal_keys(hpke.public_bytes(SEED), LeaseId(b"short"), KEYS, **PEERS)
    with pytest.raises(UsageError):
        LinkKeys.from_bytes(b"\x44" * 64)
    with pytest.raises(UsageError):
        LinkKeys.from_bytes(bytes(range(63)))


def test_keys_never_show_in_a_repr() -> None:
    assert "44" not in repr(KEYS) and "D" not in repr(KEYS).replace("LinkKeys", "")
