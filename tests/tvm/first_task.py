"""What a first task with a new provider costs both parties for good, with real wallets.

``python -m tests.tvm.first_task`` prints it at two prices of gas.
"""

from __future__ import annotations

from dataclasses import dataclass

from cocoon.ledger import anchor, escrow
from cocoon.ledger.escrow import EscrowBirth
from cocoon.ledger.wallet import Outgoing
from cocoon.wire import orders
from cocoon.wire.cells import Cell
from cocoon.wire.orders import NewLane
from tests.tvm.chain import GAS_PRICE, TON, Chain, Prices, Result
from tests.tvm.parties import CAP, DAY_S, NETWORK, Escrow, key, provider, public
from tests.tvm.wallets import Wallet

DEPOSIT = TON
CLAIMED, TOTAL = 5 * 10**7, 6 * 10**7


@dataclass(frozen=True)
class Bill:
    """Nanoton that nobody has any more, by act; and what is only elsewhere."""

    lines: dict[str, int]
    kept: dict[str, int]

    @property
    def total(self) -> int:
        """All that left for good."""
        return sum(self.lines.values())

    def text(self) -> str:
        """As people read it."""
        parts = [f"  {what:<46}{amount / TON:>12.6f} TON" for what, amount in self.lines.items()]
        parts.append(f"  {'left both accounts for good':<46}{self.total / TON:>12.6f} TON")
        parts += [f"  {what + ', still theirs':<46}{amount / TON:>12.6f} TON" for what, amount in self.kept.items()]
        return "\n".join(parts)


def first_task(gas_price: int = GAS_PRICE) -> Bill:
    """Both wallets exist; deploy with the first lane, a claim, then close and first anchor in one message."""
    chain, prices = Chain(gas_price), Prices(gas_price)
    requester, seller = Wallet(chain, key("requester")), Wallet(chain, key("seller"))
    for one in (requester, seller):
        one.send(Outgoing(one.address, 0, bounce=False))
    lane_key = key("lane")
    made = Escrow(chain, EscrowBirth(requester.address, public(lane_key), NETWORK, 0, 60))
    before = requester.balance + seller.balance
    lines: dict[str, int] = {}

    def act(what: str, results: list[Result]) -> None:
        assert all(not result.action_code and result.exit_code in (0, None) for result in results), results
        lines[what] = chain.burnt - sum(lines.values()) - begun

    begun = chain.burnt
    lane = NewLane(0, CAP, chain.now_s + 30 * DAY_S, seller.address, public(provider(0)))
    order = orders.open_order(made.head(), [lane])
    body = escrow.order_body(1, DEPOSIT, lane_key.sign(order.hash()).signature, order)
    value = escrow.value_nanoton(prices, escrow.lanes_gas(1, 1), DEPOSIT)
    act("deploy, deposit and first lane", requester.send(Outgoing(made.address, value, body, made.birth.state_init())))
    claim = made.claim_body(made.voucher(0, CLAIMED))
    value = escrow.value_nanoton(prices, escrow.claim_gas(0))
    act("claim", seller.send(Outgoing(made.address, value, claim)))
    act("cooperative close and first anchor", seller.send(*_last(made, seller, prices)))
    chain.check_supply()
    kept = {"in the escrow": made.balance, "in the anchor": chain.balance(_anchor(seller).address())}
    assert before - requester.balance - seller.balance == sum(lines.values()) + sum(kept.values())
    return Bill(lines, kept)


def _last(made: Escrow, seller: Wallet, prices: Prices) -> tuple[Outgoing, Outgoing]:
    order = orders.close_order(made.head(), 0, TOTAL)
    signatures = (made.lane_key.sign(order.hash()).signature, provider(0).sign(order.hash()).signature)
    body: Cell = escrow.order_body(1, 0, signatures[0], order, signatures[1])
    birth = _anchor(seller)
    root = anchor.anchor_body(1, 1, bytes(32), 64)
    value = anchor.RESERVE_NANOTON + prices.gas_fee_nanoton(anchor.GAS_ANCHOR)
    return (
        Outgoing(made.address, escrow.value_nanoton(prices, escrow.close_gas(0)), body),
        Outgoing(birth.address(), value, root, birth.state_init()),
    )


def _anchor(seller: Wallet) -> anchor.AnchorBirth:
    return anchor.AnchorBirth(seller.address, public(key("peer")), NETWORK)


if __name__ == "__main__":
    for price in (GAS_PRICE, GAS_PRICE // 6):
        print(f"first task with a new provider, {price} nanoton per gas")
        print(first_task(price).text())
