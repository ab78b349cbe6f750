"""Addresses as text, against pytoniq (WAL-13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address

from cocoon.core.errors import UsageError
from cocoon.ledger.address import format_address

hashes = st.binary(min_size=32, max_size=32)


@given(hashes, st.booleans(), st.booleans())
def test_an_address_is_spelt_as_pytoniq_spells_it(address, bounceable, test_only):
    text = format_address(address, bounceable=bounceable, test_only=test_only)
    assert text == Address((0, address)).to_str(is_bounceable=bounceable, is_test_only=test_only)
    assert Address(text).hash_part == address


def test_another_length_is_our_own_mistake():
    with pytest.raises(UsageError):
        format_address(b"short")
