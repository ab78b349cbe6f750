"""The demonstration's books: what must be closed, paid and anchored before it may say so."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import AuditFailed
from cocoon.demo.errors import BooksNotClosed
from cocoon.demo.purses import FUNDS_NANOTON, Purses
from cocoon.demo.screen import Screen

PRICE = 1_500_000
FEES = {"requester": 30_000_000, "provider-1": 10_000_000}
KEPT = {"requester": 280_000_000, "provider-1": 20_000_000}


class Party:
    """What the SDK tells of one peer that did everything right; a test changes it to what went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.funded = 0
        got = PRICE if name == "provider-1" else -PRICE
        end = FUNDS_NANOTON[name] - FEES[name] - KEPT[name] + got
        self.settled: dict[str, Any] = {
            "unsettled_leases": 0, "lanes_open": 0, "lanes_waiting": 0, "anchor": "ab" * 32, "anchor_tx": "cd" * 32,
            "anchored_receipts": 3, "anchored_roots": 1,
        }  # fmt: skip
        self.earned: dict[str, Any] = {"claimed_nanoton": PRICE, "earned_nanoton": PRICE, "lanes": [{"lane": 1}]}
        flow = {
            "received_nanoton": FUNDS_NANOTON[name] + max(got, 0), "sent_nanoton": KEPT[name] - min(got, 0),
            "fees_nanoton": FEES[name],
        }  # fmt: skip
        self.audited: dict[str, Any] = {"clean": True, "wallet": flow, "balance_nanoton": end}
        self.chain: dict[str, Any] = {
            "conserved": True, "genesis_nanoton": 9, "balances_nanoton": 7, "fees_nanoton": 2, "transactions": 14,
            "blocks": 20, "accounts": 5, "under_way_nanoton": 0,
        }  # fmt: skip

    def wallet(self) -> dict[str, Any]:
        is_requester = self.name == "requester"
        return {
            "balance_nanoton": self.funded, "deployment_nanoton": 3 if self.funded == 0 else 0,
            "escrow": "ef" * 32, "escrow_locked_nanoton": 0, "lanes": [],
            "escrow_balance_nanoton": KEPT[self.name] if is_requester else 0,
            "anchor_balance_nanoton": 0 if is_requester else KEPT[self.name],
        }  # fmt: skip

    def fund(self, amount_nanoton: int) -> dict[str, Any]:
        self.funded += amount_nanoton
        return {"address": "01" * 32, "balance_nanoton": self.funded}

    def settle(self) -> dict[str, Any]:
        return self.settled

    def earnings(self) -> dict[str, Any]:
        return self.earned

    def audit(self) -> dict[str, Any]:
        return self.audited

    def supply(self) -> dict[str, Any]:
        return self.chain


class Market:
    """Two parties, their purses, and what a person read."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parties = {name: Party(name) for name in ("provider-1", "requester")}
        self.purses = Purses(self.parties, Screen(self.lines.append))  # type: ignore[arg-type]
        self.purses.fill()

    def close(self) -> dict[str, Any]:
        self.purses.settle()
        return self.purses.close(PRICE, 3)


def test_closed_books_are_told_with_both_sums() -> None:
    market = Market()
    totals = market.close()
    assert totals["conserved"] and totals["anchor_tx"] == "cd" * 32
    assert totals["left_nanoton"] == sum(FEES.values()) and totals["deployment_nanoton"] == 6
    told = "\n".join(market.lines)
    assert "0 TON, then 2 TON from the faucet" in told
    assert "start 0 + received 501500000 - sent 20000000 - fees 10000000 = end 471500000" in told
    assert "genesis 9 = balances 7 + fees 2" in told and "every nanoton is accounted for" in told


@pytest.mark.parametrize(
    ("who", "what", "field", "value", "told"),
    [
        ("requester", "settled", "unsettled_leases", 1, "1 unsettled leases"),
        ("requester", "settled", "lanes_open", 1, "1 lanes open"),
        ("requester", "settled", "lanes_waiting", 2, "2 lanes waiting"),
        ("provider-1", "earned", "claimed_nanoton", PRICE - 1, f"{PRICE - 1} paid"),
        ("provider-1", "earned", "claimed_nanoton", PRICE + 1, f"{PRICE + 1} paid"),
        ("provider-1", "earned", "earned_nanoton", PRICE + 1, f"{PRICE + 1} vouched"),
        ("provider-1", "settled", "anchored_receipts", 2, "2 of 3 receipts anchored"),
        ("provider-1", "settled", "anchor_tx", "", "receipts anchored"),
    ],
)
def test_what_is_left_open_fails_the_demonstration(who: str, what: str, field: str, value: object, told: str) -> None:
    market = Market()
    getattr(market.parties[who], what)[field] = value
    with pytest.raises(BooksNotClosed, match=told):
        market.close()
    assert "closed at once" not in "\n".join(market.lines)


def test_sums_that_do_not_hold_are_shown_and_fail_the_demonstration() -> None:
    for spoil in (
        lambda parties: parties["requester"].chain.update(conserved=False),
        lambda parties: parties["provider-1"].audited.update(clean=False),
        lambda parties: parties["provider-1"].audited.update(balance_nanoton=1),
        lambda parties: parties["requester"].audited["wallet"].update(fees_nanoton=1),
    ):
        market = Market()
        spoil(market.parties)
        with pytest.raises(AuditFailed):
            market.close()
        assert "does NOT add up" in "\n".join(market.lines)
