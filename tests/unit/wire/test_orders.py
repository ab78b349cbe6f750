"""Orders have one layout, one tag and one reference at most, and hash as pytoniq-core hashes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address, begin_cell
from pytoniq_core import Cell as TheirCell

from cocoon.core.errors import Malformed, UsageError
from cocoon.core.limits import ESCROW_LANES, ORDER_LANES_LISTED
from cocoon.core.values import replace
from cocoon.wire import orders
from cocoon.wire.cells import Cell, CellReader
from cocoon.wire.judged import STATEMENT_TAG, VOUCHER_TAG, Statement, Voucher
from cocoon.wire.orders import CloseOrder, NewLane, OrderHead, TopUp
from tests.vectors import samples

HEAD = OrderHead(0x0C0C0A0A, samples.word("escrow"), 7, 1_790_003_600)
NEW = NewLane(3, 100_000_000, 1_792_592_000, samples.word("payout"), samples.word("provider key"))
UP = TopUp(1, 200_000_000, 1_792_592_001)
CLOSE = CloseOrder(HEAD, 3, 60_000_000)
ORDERS = {
    "open": orders.open_order(HEAD, [UP, NEW]),
    "expire": orders.expire_order(HEAD, [1, 3]),
    "close": CLOSE.cell(),
    "withdraw": orders.withdraw_order(HEAD, 5),
    "withdraw_payload": orders.withdraw_order(HEAD, 0, Cell(0b1011, 4)),
    "cancel": orders.cancel_order(HEAD),
}
GOLDEN = Path(__file__).resolve().parents[2] / "vectors" / "orders.json"


def their_head(kind: int) -> Any:
    """The order of stores that the contract reads."""
    builder = begin_cell().store_uint(0x0C0C7A02, 32).store_uint(HEAD.network_tag, 32)
    builder.store_address(Address((0, HEAD.escrow))).store_uint(HEAD.number, 32)
    return builder.store_uint(HEAD.valid_until_s, 32).store_uint(kind, 8)


def their_open() -> TheirCell:
    """A top-up, then a new lane."""
    last = begin_cell().store_uint(NEW.lane, 32).store_uint(NEW.cap_nanoton, 64).store_uint(NEW.expires_s, 32)
    last.store_address(Address((0, NEW.payout))).store_bytes(NEW.provider_key)
    first = begin_cell().store_uint(UP.lane, 32).store_uint(UP.cap_nanoton, 64).store_uint(UP.expires_s, 32)
    return their_head(1).store_uint(2, 8).store_ref(first.store_ref(last.end_cell()).end_cell()).end_cell()


THEIRS = {
    "open": their_open(),
    "expire": their_head(2).store_uint(2, 8).store_uint(1, 32).store_uint(3, 32).end_cell(),
    "close": their_head(3).store_uint(3, 32).store_uint(60_000_000, 64).end_cell(),
    "withdraw": their_head(4).store_uint(5, 64).end_cell(),
    "withdraw_payload": their_head(4).store_uint(0, 64).store_uint(0b1011, 4).end_cell(),
    "cancel": their_head(5).end_cell(),
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_the_cell_that_the_contract_judges(name: str) -> None:
    ours, theirs = ORDERS[name], THEIRS[name]
    assert ours.hash() == theirs.hash
    assert (ours.bits, len(ours.refs)) == (len(theirs.bits), len(theirs.refs))
    assert len(ours.refs) == (name == "open")


@pytest.mark.parametrize("name", ORDERS)
def test_an_orders_bytes_never_move(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden[name] == {"data": ORDERS[name].data().hex(), "hash": ORDERS[name].hash().hex()}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_begins_with_its_head_and_kind(name: str) -> None:
    kinds = {"open": 1, "expire": 2, "close": 3, "withdraw": 4, "withdraw_payload": 4, "cancel": 5}
    assert orders.read_head(CellReader.of(ORDERS[name])) == (HEAD, kinds[name])


def test_every_field_of_a_head_changes_the_hash() -> None:
    found = {orders.cancel_order(HEAD).hash()}
    for name in HEAD.__struct_fields__:
        value = getattr(HEAD, name)
        other = samples.word("other") if isinstance(value, bytes) else value ^ 1
        found.add(orders.cancel_order(replace(HEAD, **{name: other})).hash())
    assert len(found) == 5


def test_every_field_of_a_lane_is_covered_by_the_orders_hash() -> None:
    for lane in (NEW, UP):
        found = {orders.open_order(HEAD, [lane]).hash()}
        for name in lane.__struct_fields__:
            value = getattr(lane, name)
            other: Any = samples.word("other") if isinstance(value, bytes) else value ^ 1
            found.add(orders.open_order(HEAD, [replace(lane, **{name: other})]).hash())
        assert len(found) == 1 + len(lane.__struct_fields__)


def test_a_close_is_read_back() -> None:
    assert CloseOrder.unpack(CLOSE.pack()) == CLOSE
    assert CLOSE.hash() == THEIRS["close"].hash
    assert len(CLOSE.pack()) == orders.CLOSE_BYTES == 63


@pytest.mark.parametrize("name", ["expire", "withdraw", "cancel"])
def test_another_kind_of_order_is_no_close(name: str) -> None:
    with pytest.raises(Malformed):
        CloseOrder.unpack(ORDERS[name].data())


def test_a_close_with_another_kind_tag_length_or_padding_is_malformed() -> None:
    data = CLOSE.pack()
    kind = Cell(CLOSE.cell().value ^ (3 ^ 4) << 96, orders.CLOSE_BITS).data()
    with pytest.raises(Malformed, match="cooperative close"):
        CloseOrder.unpack(kind)
    with pytest.raises(Malformed, match="tag"):
        CloseOrder.unpack(VOUCHER_TAG.to_bytes(4, "big") + data[4:])
    for other in (b"", data[:-1], data + b"\0", data[:-1] + bytes([data[-1] | 1])):
        with pytest.raises(Malformed):
            CloseOrder.unpack(other)


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_never_passes_for_a_voucher_or_a_statement(name: str) -> None:
    data = ORDERS[name].data()
    for kind, sample in ((Voucher, samples.VOUCHER), (Statement, samples.STATEMENT)):
        packed = sample.pack()
        assert kind.unpack(packed) == sample
        # As long as the other, an order still begins with its own tag.
        for order in (data, data[:4] + packed[4:]):
            with pytest.raises(Malformed):
                kind.unpack(order)
    assert len({orders.ORDER_TAG, VOUCHER_TAG, STATEMENT_TAG}) == 3


@pytest.mark.parametrize(
    "build",
    [
        lambda: orders.open_order(HEAD, []),
        lambda: orders.open_order(HEAD, [UP] * (ESCROW_LANES + 1)),
        lambda: orders.open_order(HEAD, [replace(UP, cap_nanoton=1 << 64)]),
        lambda: orders.open_order(HEAD, [replace(NEW, payout=bytes(33))]),
        lambda: orders.expire_order(HEAD, []),
        lambda: orders.expire_order(HEAD, range(ORDER_LANES_LISTED + 1)),
        lambda: orders.close_order(HEAD, 1 << 32, 0),
        lambda: orders.withdraw_order(HEAD, 0, Cell(0, orders.PAYLOAD_BITS + 1)),
        lambda: orders.withdraw_order(HEAD, 0, Cell(0, 0, (Cell(0, 0),))),
        lambda: orders.cancel_order(replace(HEAD, number=1 << 32)),
    ],
)
def test_an_order_that_has_no_form_is_never_made(build: Any) -> None:
    with pytest.raises(UsageError):
        build()


def test_the_longest_orders_fit() -> None:
    assert orders.expire_order(HEAD, range(ORDER_LANES_LISTED)).bits <= 1_023
    assert orders.withdraw_order(HEAD, 0, Cell(0, orders.PAYLOAD_BITS)).bits == 1_023
    assert orders.open_order(HEAD, [NEW] * ESCROW_LANES).depth() == ESCROW_LANES
