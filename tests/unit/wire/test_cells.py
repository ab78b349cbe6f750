"""Cells hash as pytoniq-core hashes them, and vouchers have the prototype's layout."""

from __future__ import annotations

from typing import Any

import pytest
from pytoniq_core import Address, begin_cell
from pytoniq_core import Cell as TheirCell

from cocoon.core.errors import BadSignature, Malformed, UsageError
from cocoon.core.values import replace
from cocoon.wire.cells import Cell, CellBuilder, CellReader
from cocoon.wire.judged import (
    NO_ESCROW,
    STATEMENT_BYTES,
    VOUCHER_BYTES,
    Statement,
    Voucher,
    sign_cell,
    verify_cell,
)
from tests.vectors import samples

VOUCHER, STATEMENT = samples.VOUCHERS["full"], samples.STATEMENT


def their_voucher(v: Voucher) -> TheirCell:
    """The order of stores of the escrow prototype that ran on the real TVM."""
    return (
        begin_cell()
        .store_uint(0x0C0C7A01, 32)
        .store_uint(v.network_tag, 32)
        .store_address(Address((0, v.escrow)))
        .store_uint(v.lane, 32)
        .store_uint(v.seq, 32)
        .store_uint(v.total_nanoton, 64)
        .store_uint(int.from_bytes(v.head, "big"), 256)
        .end_cell()
    )


def their_statement(s: Statement) -> TheirCell:
    builder = begin_cell().store_uint(0x0C0C7A05, 32).store_bytes(s.lease).store_uint(s.number, 32)
    builder.store_uint(s.input_alg, 4).store_uint(s.output_alg, 4).store_bytes(s.input).store_bytes(s.output)
    builder.store_uint(s.units, 32).store_uint(s.price_nanoton, 64).store_uint(s.queued_us, 32)
    return builder.store_uint(s.ran_us, 32).store_uint(s.joined, 8).store_uint(s.place, 8).end_cell()


@pytest.mark.parametrize("name", samples.VOUCHERS)
def test_a_voucher_is_the_cell_that_contracts_judge(name: str) -> None:
    ours, theirs = samples.VOUCHERS[name], their_voucher(samples.VOUCHERS[name])
    assert ours.hash() == theirs.hash
    assert ours.cell().bits == len(theirs.bits) == 715
    assert ours.pack() == bytes(theirs.get_data_bytes())
    assert len(ours.pack()) == VOUCHER_BYTES
    assert Voucher.unpack(ours.pack()) == ours


def test_a_statement_is_the_cell_that_contracts_judge() -> None:
    theirs = their_statement(STATEMENT)
    assert STATEMENT.hash() == theirs.hash
    assert STATEMENT.cell().bits == len(theirs.bits) == 1_016
    assert STATEMENT.pack() == bytes(theirs.get_data_bytes())
    assert len(STATEMENT.pack()) == STATEMENT_BYTES
    assert Statement.unpack(STATEMENT.pack()) == STATEMENT


@pytest.mark.parametrize("bits", [*range(18), 255, 256, 267, 1_015, 1_016, 1_017, 1_022, 1_023])
def test_a_cell_of_any_length_hashes_as_pytoniq_does(bits: int) -> None:
    value = int.from_bytes(samples.word("bits", 128), "big") >> (1_024 - bits)
    theirs = begin_cell().store_uint(value, bits).end_cell() if bits else begin_cell().end_cell()
    cell = CellBuilder().uint(value, bits).end()
    assert cell.hash() == theirs.hash
    assert cell.data() == bytes(theirs.get_data_bytes())
    reader = CellReader(cell.data(), bits)
    assert reader.uint(bits) == value
    reader.end()


def test_a_tree_of_cells_hashes_as_pytoniq_does() -> None:
    ours, theirs = CellBuilder().uint(1, 7).end(), begin_cell().store_uint(1, 7).end_cell()
    for level in range(3):
        ours = CellBuilder().uint(level, 9).ref(ours).ref(ours).end()
        theirs = begin_cell().store_uint(level, 9).store_ref(theirs).store_ref(theirs).end_cell()
    assert ours.hash() == theirs.hash
    assert ours.depth() == 3


def test_a_cell_refuses_what_does_not_fit() -> None:
    leaf = CellBuilder().end()
    for build in (
        lambda: CellBuilder().uint(1, 0),
        lambda: CellBuilder().uint(256, 8),
        lambda: CellBuilder().uint(-1, 8),
        lambda: CellBuilder().uint(0, 1_024),
        lambda: CellBuilder().uint(0, 1_023).uint(0, 1),
        lambda: CellBuilder().blob(bytes(31), 32),
        lambda: CellBuilder().address(bytes(33)),
        lambda: CellBuilder().ref(leaf).ref(leaf).ref(leaf).ref(leaf).ref(leaf),
    ):
        with pytest.raises(UsageError):
            build()


@pytest.mark.parametrize("judged", [VOUCHER, STATEMENT], ids=["voucher", "statement"])
def test_a_judged_cell_of_another_length_or_tag_is_malformed(judged: Any) -> None:
    data = judged.pack()
    for other in (b"", data[:-1], data + b"\0", b"\0" + data, b"\0" + data[1:], bytes(len(data))):
        with pytest.raises(Malformed):
            type(judged).unpack(other)


def test_a_voucher_and_a_statement_never_pass_for_one_another() -> None:
    assert VOUCHER.pack()[:4] != STATEMENT.pack()[:4]
    with pytest.raises(Malformed, match="tag"):
        Voucher.unpack(STATEMENT.pack()[:4] + VOUCHER.pack()[4:])


@pytest.mark.parametrize("ending", [0b00000, 0b00001, 0b01000, 0b10001, 0b11000, 0b11111])
def test_only_the_completion_tag_may_follow_the_data(ending: int) -> None:
    """715 bits leave 5 in the last byte: 10000."""
    data = VOUCHER.pack()
    assert data[-1] & 31 == 0b10000
    with pytest.raises(Malformed, match="completion tag"):
        Voucher.unpack(data[:-1] + bytes([data[-1] & ~31 | ending]))


def _with_address(prefix: int, prefix_bits: int) -> bytes:
    """A voucher-long cell whose address begins with other bits."""
    value = VOUCHER.cell().value
    shift = 715 - 64 - prefix_bits
    mask = ((1 << prefix_bits) - 1) << shift
    return Cell(value & ~mask | prefix << shift, 715).data()


@pytest.mark.parametrize(
    ("prefix", "bits"),
    [(0b00, 2), (0b01, 2), (0b11, 2), (0b101, 3), (0b100_11111111, 11), (0b100_00000001, 11)],
    ids=["none", "external", "var", "anycast", "masterchain", "workchain_1"],
)
def test_any_other_form_of_escrow_address_is_malformed(prefix: int, bits: int) -> None:
    with pytest.raises(Malformed, match="address"):
        Voucher.unpack(_with_address(prefix, bits))


def test_no_escrow_is_the_zero_address_of_workchain_0_and_not_addr_none() -> None:
    voucher = samples.VOUCHERS["price_0"]
    assert voucher.escrow == NO_ESCROW == bytes(32)
    assert voucher.hash() == their_voucher(voucher).hash
    none = begin_cell().store_uint(0x0C0C7A01, 32).store_uint(voucher.network_tag, 32).store_address(None)
    rest = none.store_uint(0, 32).store_uint(1, 32).store_uint(0, 64).store_bytes(voucher.head).end_cell()
    assert voucher.hash() != rest.hash
    with pytest.raises(Malformed):
        Voucher.unpack(bytes(rest.get_data_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        {"network_tag": 1 << 32},
        {"escrow": bytes(31)},
        {"lane": -1},
        {"seq": 1 << 32},
        {"total_nanoton": 1 << 64},
        {"head": bytes(33)},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_voucher_with_a_field_out_of_its_bits_is_never_packed(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(VOUCHER, **change).pack()


@pytest.mark.parametrize("name", ["input_alg", "output_alg"])
@pytest.mark.parametrize("alg", [0, 3, 15])
def test_a_commitment_algorithm_that_does_not_exist_is_refused(name: str, alg: int) -> None:
    with pytest.raises(UsageError):
        replace(STATEMENT, **{name: alg}).pack()
    data = bytearray(STATEMENT.pack())
    data[40] = data[40] & 0x0F | alg << 4 if name == "input_alg" else data[40] & 0xF0 | alg
    with pytest.raises(Malformed, match="algorithm"):
        Statement.unpack(bytes(data))


@pytest.mark.parametrize(("joined", "place"), [(0, 0), (1, 1), (8, 8), (8, 255)])
def test_a_run_that_stands_outside_of_its_execution_is_refused(joined: int, place: int) -> None:
    with pytest.raises(UsageError):
        replace(STATEMENT, joined=joined, place=place).pack()
    data = STATEMENT.pack()[:-2] + bytes((joined, place))
    with pytest.raises(Malformed, match="position"):
        Statement.unpack(data)


def test_every_field_of_a_judged_cell_changes_its_hash() -> None:
    for judged in (VOUCHER, STATEMENT):
        for name in judged.__struct_fields__:
            value = getattr(judged, name)
            if isinstance(value, bytes):
                other: Any = value[:-1] + bytes([value[-1] ^ 1])
            else:
                # Algorithms are 1 and 2; everything else may be any number.
                other = value ^ (3 if "alg" in name else 1)
            assert replace(judged, **{name: other}).hash() != judged.hash(), name


def test_a_cell_signature_is_over_the_bare_hash() -> None:
    """As CHKSIGNU has it; the domain is the tag inside the cell."""
    signature = sign_cell(VOUCHER.hash(), samples.REQUESTER)
    samples.REQUESTER.secret.verify_key.verify(VOUCHER.hash(), signature)
    verify_cell(VOUCHER.hash(), samples.REQUESTER.key, signature)
    for key, hash_, sig in (
        (samples.PROVIDER.key, VOUCHER.hash(), signature),
        (samples.REQUESTER.key, STATEMENT.hash(), signature),
        (samples.REQUESTER.key, VOUCHER.hash(), bytes(64)),
        (samples.REQUESTER.key, VOUCHER.hash(), signature[:-1]),
        (samples.REQUESTER.key[:-1], VOUCHER.hash(), signature),
        (bytes(32), VOUCHER.hash(), signature),
    ):
        with pytest.raises(BadSignature):
            verify_cell(hash_, key, sig)
    with pytest.raises(UsageError):
        sign_cell(b"short", samples.REQUESTER)


def test_a_malleated_signature_is_refused() -> None:
    """S + L is the same scalar in a second spelling."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = sign_cell(VOUCHER.hash(), samples.REQUESTER)
    scalar = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(BadSignature):
        verify_cell(VOUCHER.hash(), samples.REQUESTER.key, signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize("amount", [0, 1, 255, 256, 10**9, (1 << 120) - 1])
def test_an_amount_has_one_spelling_and_is_read_back(amount: int) -> None:
    cell = CellBuilder().coins(amount).end()
    assert cell.hash() == begin_cell().store_coins(amount).end_cell().hash
    reader = CellReader.of(cell)
    assert reader.coins() == amount
    reader.end()


@pytest.mark.parametrize(("value", "bits"), [(0x1_00, 12), (0x2_00_01, 20), (0x2_01, 12), (0xF, 4)])
def test_an_amount_with_a_leading_zero_or_too_short_is_malformed(value: int, bits: int) -> None:
    with pytest.raises(Malformed):
        CellReader.of(Cell(value, bits)).coins()


def test_references_are_read_in_order_and_none_may_be_left() -> None:
    first, second = CellBuilder().uint(1, 1).end(), CellBuilder().uint(2, 2).end()
    cell = CellBuilder().uint(5, 3).maybe(first).maybe(None).ref(second).end()
    reader = CellReader.of(cell)
    assert reader.uint(3) == 5
    assert (reader.maybe(), reader.maybe()) == (first, None)
    with pytest.raises(Malformed, match="references"):
        reader.end()
    assert reader.ref() == second
    with pytest.raises(Malformed, match="reference"):
        reader.ref()
    reader.end()
    assert CellBuilder().inline(cell).end() == cell


def test_what_is_left_of_a_cell_is_a_cell() -> None:
    leaf = CellBuilder().end()
    reader = CellReader.of(CellBuilder().uint(0xABC, 12).ref(leaf).end())
    reader.uint(4)
    assert reader.bits_left == 8
    assert reader.rest() == CellBuilder().uint(0xBC, 8).ref(leaf).end()
    reader.end()


@pytest.mark.parametrize(
    "build",
    [
        lambda: Cell(2, 1),
        lambda: Cell(-1, 4),
        lambda: Cell(0, 1_024),
        lambda: Cell(0, 0, (Cell(0, 0),) * 5),
        lambda: CellBuilder().coins(1 << 120),
        lambda: CellBuilder().coins(-1),
    ],
)
def test_a_cell_that_cannot_be_is_never_made(build: Any) -> None:
    with pytest.raises(UsageError):
        build()
