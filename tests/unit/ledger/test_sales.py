"""Sales by model or day: the parts add up to what the lanes promise (LAN-30)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.limits import SALES_GROUPS
from cocoon.core.values import replace
from cocoon.ledger.sales import Sales, Sold
from cocoon.ledger.verify import ReceiptFacts, verify_record
from tests.unit.ledger.test_record import settled

PAID = verify_record(settled(3, paid=True))
FREE = verify_record(settled(2))


def receipt(total_nanoton: int, **changes: Any) -> ReceiptFacts:
    return replace(PAID, total_nanoton=total_nanoton, **changes)


def test_a_receipt_earns_by_how_much_it_raises_its_lane() -> None:
    sales = Sales[str]()
    for total, day in ((100, "monday"), (130, "tuesday"), (200, "tuesday")):
        sales.take(day, receipt(total))
    sales.take("tuesday", receipt(7, lane=PAID.lane + 1))
    assert sales.groups == {"monday": Sold(3, 100, 1), "tuesday": Sold(9, 107, 3)}


def test_a_free_receipt_counts_with_its_units() -> None:
    sales = Sales[bytes]()
    sales.take(FREE.model, FREE)
    assert sales.by_earned() == [(FREE.model, Sold(2, 0, 1))]


def test_what_earned_most_is_first() -> None:
    sales = Sales[str]()
    for name, total in (("little", 1), ("much", 100), ("none", 100)):
        sales.take(name, receipt(total))
    assert [name for name, _ in sales.by_earned()] == ["much", "little", "none"]


def test_strangers_with_ever_new_models_cost_no_more_than_one_group() -> None:
    sales = Sales[int]()
    for model in range(SALES_GROUPS + 5):
        sales.take(model, FREE)
    assert len(sales.groups) == SALES_GROUPS + 1
    assert sales.groups[None].receipts == 5
    sales.take(0, FREE)
    assert sales.groups[0].receipts == 2


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 3), st.integers(0, 1_000))))
def test_the_groups_add_up_to_the_newest_total_of_each_lane(
    receipts: list[tuple[int, int, int, int]]
) -> None:
    sales, totals = Sales[int](), dict[tuple[bytes, int], int]()
    for group, escrow, lane, more in receipts:
        where = bytes([escrow]) * 32, lane
        totals[where] = totals.get(where, 0) + more
        sales.take(group, receipt(totals[where], escrow=where[0], lane=lane))
    found = sales.groups.values()
    assert sum(sold.earned_nanoton for sold in found) == sum(totals.values())
    assert sum(sold.receipts for sold in found) == len(receipts)
    assert all(sold.units == 3 * sold.receipts for sold in found)
