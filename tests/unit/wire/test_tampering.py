"""No flipped byte of any message passes for the message.

A signed message is refused outright. An unsigned one travels only inside the
sealed link, or holds signed or hashed parts; a flip there can at most make
*another* message, in its one canonical spelling, never the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from cocoon.core.errors import BadSignature, Malformed, PeerFault, WrongField
from cocoon.wire import messages as m
from cocoon.wire.judged import Statement, Voucher, verify_cell
from cocoon.wire.manifest import model_id, unpack_manifest
from cocoon.wire.schema import pack, packed_digest, unpack
from cocoon.wire.signing import open_signed, sign, to_be_signed
from tests.vectors import samples
from tests.vectors.spelling import canonical

MASKS = (0x01, 0x80, 0xFF)
SIGNED = [name for name, msg in samples.MESSAGES.items() if msg.shape.signed_by]
UNSIGNED = [name for name in samples.MESSAGES if name not in SIGNED]


def flips(data: bytes) -> Iterator[bytes]:
    """``data`` with one byte changed, for every byte and mask."""
    for index in range(len(data)):
        for mask in MASKS:
            yield data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :]


@pytest.mark.parametrize("name", SIGNED)
def test_each_flipped_byte_of_a_signed_message_is_refused(name: str) -> None:
    msg = samples.MESSAGES[name]
    for flipped in flips(samples.packed(msg)):
        with pytest.raises((Malformed, BadSignature)):
            open_signed(flipped, type(msg))


@pytest.mark.parametrize("name", UNSIGNED)
def test_each_flipped_byte_of_an_unsigned_message_is_refused_or_makes_another_one(name: str) -> None:
    msg: Any = samples.MESSAGES[name]
    refused = 0
    for flipped in flips(samples.packed(msg)):
        try:
            other = unpack(flipped, type(msg))
        except Malformed:
            refused += 1
            continue
        assert other != msg
        assert pack(other) == flipped
    # Kind, version, headers and keys can never be flipped unnoticed.
    assert refused >= 3 * len(MASKS)


def _open_offer_reply(data: bytes) -> None:
    reply = unpack(data, m.OfferReply)
    offer = open_signed(reply.offer, m.Offer, signer=samples.PROVIDER.key).message
    if open_signed(reply.keys, m.KeyBundle, signer=samples.PROVIDER.key).digest != offer.keys_digest:
        raise BadSignature("keys")
    if packed_digest(reply.profile) != offer.profile_digest or unpack(reply.profile, m.Profile) is None:
        raise BadSignature("profile")


def _open_lease_open(data: bytes) -> None:
    opened = unpack(data, m.LeaseOpen)
    lease = open_signed(opened.lease, m.Lease, signer=samples.REQUESTER.key)
    if open_signed(opened.keybox, m.KeyBox, signer=samples.REQUESTER.key).message.lease != lease.digest:
        raise BadSignature("keybox")
    verify_cell(Voucher.unpack(opened.voucher).hash(), samples.REQUESTER.key, opened.signature)


def _open_receipt_issued(data: bytes) -> None:
    open_signed(unpack(data, m.ReceiptIssued).receipt, m.Receipt, signer=samples.PROVIDER.key)


def _open_countersign(data: bytes) -> None:
    both = unpack(data, m.Countersign)
    verify_cell(Voucher.unpack(both.voucher).hash(), samples.REQUESTER.key, both.signature)


def _open_manifest_reply(data: bytes) -> None:
    if model_id(unpack_manifest(unpack(data, m.ManifestReply).manifest)) != model_id(samples.MANIFEST):
        raise BadSignature("manifest")


@pytest.mark.parametrize(
    ("name", "opener"),
    [
        ("offer_reply", _open_offer_reply),
        ("lease_open", _open_lease_open),
        ("receipt_issued", _open_receipt_issued),
        ("countersign", _open_countersign),
        ("manifest_reply", _open_manifest_reply),
    ],
)
def test_each_flipped_byte_of_a_message_made_of_proofs_is_refused(name: str, opener: Any) -> None:
    """All bytes that these messages carry hang on a signature or an id."""
    data = samples.packed(samples.MESSAGES[name])
    opener(data)
    for flipped in flips(data):
        with pytest.raises(PeerFault):
            opener(flipped)


@pytest.mark.parametrize("name", SIGNED)
def test_a_message_signed_by_another_peer_is_wrong_in_its_role(name: str) -> None:
    msg = samples.MESSAGES[name]
    role = msg.shape.signed_by
    assert role is not None
    with pytest.raises(WrongField) as caught:
        open_signed(sign(msg, samples.STRANGER).pack(), type(msg), signer=samples.SIGNERS[role].key)
    assert caught.value.code == f"wrong_{role}"


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_never_stands_for_a_message_of_another_name(name: str) -> None:
    """The body of one kind, honestly signed as that kind, in the envelope of each other kind."""
    ours = samples.signed(samples.MESSAGES[name])
    for other in SIGNED:
        if other == name:
            continue
        cls = type(samples.MESSAGES[other])
        with pytest.raises(PeerFault):
            open_signed(
                _envelope(cls.shape.kind, ours.body, ours.signer, ours.signature),
                cls,
            )


def test_the_bytes_under_a_signature_are_domain_name_zero_and_digest() -> None:
    offer = samples.signed(samples.MESSAGES["offer"])
    digest = hashlib.sha256(offer.body).digest()
    assert to_be_signed(m.Offer.shape, offer.body) == b"cocoon/1/offer\0" + digest


def test_each_flipped_byte_of_a_voucher_changes_its_hash_or_is_refused() -> None:
    for judged in (*samples.VOUCHERS.values(), samples.STATEMENT):
        for flipped in flips(judged.pack()):
            try:
                other: Statement | Voucher = type(judged).unpack(flipped)
            except Malformed:
                continue
            assert other.hash() != judged.hash()
            assert other.pack() == flipped


def _envelope(kind: int, body: bytes, signer: bytes, signature: bytes) -> bytes:
    return canonical([kind, 1, body, signer, signature])
