"""TL: the same numbers and bytes as pytoniq's, and nothing that is not whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.tl.generator import TlGenerator

from cocoon.core.errors import Malformed, UsageError
from cocoon.devnet import tl

THEIRS = TlGenerator.with_default_schemas().generate()
BLOCK = {"workchain": -1, "shard": -(1 << 63), "seqno": 7, "root_hash": b"\x11" * 32, "file_hash": b"\x22" * 32}


def test_every_constructor_has_the_number_that_pytoniq_gives_it():
    for name, constructor in tl.CONSTRUCTORS.items():
        assert THEIRS.get_by_name(name).little_id() == constructor.number, name


@given(st.binary(max_size=600), st.integers(0, 1 << 30))
def test_what_is_written_is_read_again_by_us_and_by_pytoniq(data, count):
    packed = tl.encode("liteServer.blockData", id=BLOCK, data=data)
    assert tl.decode_whole(packed) == ("liteServer.blockData", {"id": BLOCK, "data": data})
    asked = tl.encode("liteServer.listBlockTransactions", id=BLOCK, mode=39, count=count, want_proof=True)
    theirs, _ = THEIRS.deserialize(asked)
    assert (theirs["count"], theirs["id"]["seqno"]) == (count, 7)
    assert tl.decode_whole(asked)[1]["want_proof"] is True


@given(st.binary(max_size=200))
def test_noise_is_malformed_or_has_one_spelling(data):
    for front in (b"", *(constructor.number for constructor in tl.CONSTRUCTORS.values())):
        try:
            name, values, rest = tl.decode(front + data)
        except Malformed:
            continue
        whole = front + data
        # Padding bytes are free in TL; all else comes back as it was.
        assert len(tl.encode(name, **values)) == len(whole) - len(rest)


@pytest.mark.parametrize("data", [
    tl.encode("liteServer.getBlock", id=BLOCK)[:-1], tl.encode("liteServer.sendMessage", body=bytes(300))[:-1],
    tl.encode("liteServer.sendMessage", body=b"")[:4] + b"\xfe\xff\xff\xff", b"\x00\x00\x00",
    tl.encode("liteServer.sendMessage", body=b"")[:4] + b"\xff" * 12,
    tl.encode("liteServer.getLibraries", library_list=[])[:4] + b"\xff\xff\xff\xff",
    tl.encode("liteServer.getShardInfo", id=BLOCK, workchain=0, shard=0, exact=True)[:-4] + b"true",
])
def test_a_value_that_is_cut_off_or_claims_too_much_is_malformed(data):
    with pytest.raises(Malformed):
        tl.decode(data)


def test_what_has_no_form_is_not_written():
    with pytest.raises(UsageError):
        tl.encode("adnl.message.query", query_id=b"short", query=b"")
    with pytest.raises(UsageError):
        tl.encode("liteServer.sendMessage", body=bytes(1 << 24))
