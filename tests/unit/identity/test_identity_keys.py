"""Keys as arithmetic: file layouts, what is noticed, and what is never shown."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from cocoon.core.errors import Corrupt, UsageError
from cocoon.core.ids import peer_id
from cocoon.identity import keys

SEED = bytes(range(32))
HPKE = bytes(range(100, 196))


def test_the_public_key_is_that_of_rfc_8032():
    """RFC 8032, section 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert keys.public_key(seed).hex() == public
    identity = keys.identity_of(seed, HPKE, 1)
    assert (
        identity.sign(b"")
        .hex()
        .startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    )


def test_a_signature_verifies_under_the_peers_key():
    identity = keys.identity_of(SEED, HPKE, 1)
    VerifyKey(identity.key).verify(b"words", identity.sign(b"words"))
    assert identity.peer == peer_id(identity.key)


def test_key_files_come_back_as_they_were():
    assert keys.unpack_peer(keys.pack_peer(SEED)) == SEED
    assert keys.unpack_hpke(keys.pack_hpke(HPKE, 20_000)) == (HPKE, 20_000)
    assert len(keys.pack_peer(SEED)) == keys.PEER_FILE_BYTES
    assert len(keys.pack_hpke(HPKE, 0)) == keys.HPKE_FILE_BYTES


@given(at=st.integers(0, keys.PEER_FILE_BYTES - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_peer_key_is_noticed(at, bit):
    data = bytearray(keys.pack_peer(SEED))
    data[at] ^= 1 << bit
    with pytest.raises(Corrupt):
        keys.unpack_peer(bytes(data))


@given(at=st.integers(0, keys.HPKE_FILE_BYTES - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_hpke_key_is_noticed(at, bit):
    data = bytearray(keys.pack_hpke(HPKE, 20_000))
    data[at] ^= 1 << bit
    with pytest.raises(Corrupt):
        keys.unpack_hpke(bytes(data))


@given(st.binary(max_size=200))
def test_other_bytes_are_no_key_files(data):
    for unpack in (keys.unpack_peer, keys.unpack_hpke):
        with pytest.raises(Corrupt):
            unpack(data)


def test_a_key_is_stale_from_the_next_day_and_never_when_the_clock_goes_back():
    assert not keys.is_stale(10, 10)
    assert keys.is_stale(10, 11)
    assert not keys.is_stale(10, 9)


@given(seed=st.binary(min_size=32, max_size=32), hpke=st.binary(min_size=96, max_size=96))
def test_no_private_byte_is_shown(seed, hpke):
    """repr, str, format, and the errors of every check."""
    identity = keys.identity_of(seed, hpke, 1)
    texts = [repr(identity), str(identity), f"{identity}"]
    for broken in (lambda: keys.unpack_peer(seed), lambda: keys.unpack_hpke(hpke)):
        with pytest.raises(Corrupt) as caught:
            broken()
        texts.append(str(caught.value))
    for secret in (seed, hpke):
        for form in (secret.hex(), repr(secret)[2:-1]):
            assert not any(form in text for text in texts)


def test_an_identity_does_not_leave_its_process():
    identity = keys.identity_of(SEED, HPKE, 1)
    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(UsageError):
            leave(identity)


@pytest.mark.parametrize(("seed", "hpke"), [(SEED[1:], HPKE), (SEED, HPKE[1:]), (b"", HPKE)])
def test_lengths_are_checked_without_showing_bytes(seed, hpke):
    with pytest.raises(UsageError, match="bytes, not"):
        keys.identity_of(seed, hpke, 1)


def test_a_foreign_public_key_is_refused():
    with pytest.raises(UsageError):
        keys.Identity(keys.public_key(bytes(32)), SEED, HPKE, 1)
