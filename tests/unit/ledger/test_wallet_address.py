"""Addresses as text, against pytoniq (WAL-13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address

from cocoon.core.errors import UsageError
from cocoon.ledger.address import format_address, parse_address

hashes = st.binary(min_size=32, max_size=32)


@given(hashes, st.booleans(), st.booleans())
def test_an_address_is_spelt_as_pytoniq_spells_it_and_reads_back(address, bounceable, test_only):
    text = format_address(address, bounceable=bounceable, test_only=test_only)
    theirs = Address((0, address)).to_str(is_bounceable=bounceable, is_test_only=test_only)
    assert text == theirs
    assert parse_address(text) == address
    assert parse_address(text.replace("-", "+").replace("_", "/")) == address
    assert parse_address("0:" + address.hex()) == address


@given(hashes, st.data())
def test_a_mistyped_address_is_refused(address, data):
    text = format_address(address)
    at = data.draw(st.integers(0, 47))
    typed = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != text[at]))
    with pytest.raises(UsageError):
        parse_address(text[:at] + typed + text[at + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "", "0:", "0:" + "g" * 64, "-1:" + "0" * 64, Address((-1, bytes(32))).to_str(), "A" * 48, "0:" + "0" * 63,
        "é" * 48,
    ],
)
def test_what_is_no_address_in_workchain_0_is_refused(text):
    with pytest.raises(UsageError):
        parse_address(text)


def test_another_length_is_our_own_mistake():
    with pytest.raises(UsageError):
        format_address(b"short")
