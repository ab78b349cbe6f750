"""The bytes of the protocol have not moved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cocoon.wire.schema import kinds, unpack, unpack_body
from cocoon.wire.signing import open_signed
from tests.vectors import make, samples

MADE = make.all_vectors()
TEXTS = {name: (make.HERE / f"{name}.json").read_text(encoding="utf-8") for name in MADE}
WRITTEN = {name: json.loads(text) for name, text in TEXTS.items()}


@pytest.mark.parametrize("name", sorted(MADE))
def test_every_vector_is_byte_for_byte_what_the_code_makes(name: str) -> None:
    assert TEXTS[name] == make.text(MADE[name])


def test_every_message_kind_has_a_golden_vector() -> None:
    ours = {cls.shape.name for cls in kinds() if cls.__module__.startswith("cocoon.")}
    assert ours == set(WRITTEN["messages"])


@pytest.mark.parametrize("name", WRITTEN["messages"])
def test_a_golden_message_reads_back_as_its_example(name: str) -> None:
    data = bytes.fromhex(WRITTEN["messages"][name]["packed"])
    msg: Any = samples.MESSAGES[name]
    if msg.shape.signed_by is None:
        assert unpack(data, type(msg)) == msg
        return
    opened = open_signed(data, type(msg), signer=samples.SIGNERS[msg.shape.signed_by].key)
    assert opened.message == msg
    assert opened.digest.hex() == WRITTEN["messages"][name]["digest"]
    assert opened.pack() == data
    assert unpack_body(type(msg), opened.body) == msg
