"""The matrix of lies names every field that somebody signs, and only those."""

from __future__ import annotations

from cocoon.core.errors import all_errors
from tests.attack.matrix import FREE, LIES, signed_fields


def test_every_field_of_every_signed_message_and_judged_cell_has_a_case() -> None:
    found = set(signed_fields())
    assert {name for name, _ in found} == {
        "offer", "key_bundle", "bid", "lease", "key_box", "lease_accept", "receipt", "statement", "voucher",
    }, "another kind is signed now: it needs lies, and a peer that tells them"
    told = {(lie.message, lie.field) for lie in LIES}
    assert not told & FREE.keys(), "a field is either judged or free"
    assert told | FREE.keys() == found


def test_every_code_of_the_matrix_exists() -> None:
    assert {lie.code for lie in LIES} <= {error.code for error in all_errors()}
