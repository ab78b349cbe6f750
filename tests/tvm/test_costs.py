"""What it costs: the tables of the specification, the bounds that peers reckon with, and a first task."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.ledger import escrow
from cocoon.ledger.wallet import Outgoing, deployment_nanoton
from tests.tvm import gas
from tests.tvm.chain import GAS_PRICE, TON, Chain, Prices
from tests.tvm.first_task import first_task
from tests.tvm.parties import Escrow, key, public
from tests.tvm.wallets import TESTNET, Wallet


@pytest.mark.parametrize(("page", "rows"), [("escrow", gas.escrow_rows), ("anchor", gas.anchor_rows)])
def test_the_specification_has_the_gas_that_is_measured(page: str, rows, root: Path) -> None:  # type: ignore[no-untyped-def]
    text = (root / "docs" / "spec" / f"{page}.md").read_text(encoding="utf-8")
    assert gas.table(rows()) in text, "run `python -m tests.tvm.gas` and write it into the page"


@pytest.mark.parametrize("rows", [gas.escrow_rows, gas.anchor_rows])
def test_no_operation_takes_more_gas_than_peers_reckon_with(rows) -> None:  # type: ignore[no-untyped-def]
    for row in rows():
        assert row.result.gas <= row.bound, row.what


@pytest.mark.parametrize("price", [GAS_PRICE, GAS_PRICE // 6, 1])
def test_the_value_that_peers_send_is_taken_and_what_it_costs_is_covered(price: int) -> None:
    one, prices = Escrow(Chain(price)), Prices(price)
    one.deploy(range(9), deposit=5 * TON)
    depth = one.state.depth
    for gas_bound, act in (
        (escrow.claim_gas(depth), lambda value: one.claim(1, 10**7, value=value)),
        (escrow.lanes_gas(1, depth + 1), lambda value: one.open(one.new([9]), value=value)),
        (escrow.lanes_gas(2, depth), lambda value: one.expire([1, 2], value=value)),
        (escrow.close_gas(depth), lambda value: one.close(3, 10**7, value=value)),
        (escrow.GAS_WITHDRAW, lambda value: one.withdraw(TON, value=value)),
        (escrow.lanes_gas(len(one.state.lanes), depth), lambda value: one.owner(escrow.expire_all_body(1), value)),
    ):
        result = act(escrow.value_nanoton(prices, gas_bound))
        assert result.ok, (gas_bound, result)
        assert result.burnt <= escrow.cost_nanoton(prices, gas_bound, sends=2)


def test_prices_are_those_of_the_machine() -> None:
    """Gas and forward fees that a transaction reports are those that ``Prices`` computes."""
    for price in (GAS_PRICE, GAS_PRICE // 6):
        one = Escrow(Chain(price))
        result = one.deploy()
        assert result.burnt == Prices(price).gas_fee_nanoton(result.gas) + Prices(price).forward_fee_nanoton(0, 0)


@pytest.mark.parametrize("price", [GAS_PRICE, GAS_PRICE // 6])
def test_a_wallets_first_message_costs_what_its_deployment_is_said_to_cost_more(price: int) -> None:
    wallet = Wallet(Chain(price), key("requester"))
    gift = Outgoing(wallet.address, 0, bounce=False)
    first, second = (wallet.send(gift)[0] for _ in range(2))
    said = deployment_nanoton(Prices(price), public(wallet.key), TESTNET)
    assert said > 0 and abs(first.burnt - second.burnt - said) <= 1, "each fee is rounded up by itself"


@pytest.mark.parametrize(("price", "most"), [(GAS_PRICE, 45_000_000), (GAS_PRICE // 6, 8_000_000)])
def test_a_first_task_costs_little(price: int, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    bill = first_task(price)
    print(bill.text())
    assert bill.total <= most
