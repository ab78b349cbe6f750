"""Orders to our escrow, one at a time: numbered, signed by the lane key, carried by the wallet, watched until executed.

Purity: shell. Spec: docs/spec/lanes.md, rule LAN-28; docs/spec/escrow.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from cocoon.core.errors import CapExceeded, ChainRefused, InsufficientFunds, OrderOvertaken
from cocoon.core.limits import CREDIT_TRANCHES, ORDER_CARRY_NANOTON, TRANCHE_NANOTON
from cocoon.ledger.closing import OrderDesk
from cocoon.ledger.escrow import EscrowState, carried_order, order_body, reserve_nanoton, value_nanoton
from cocoon.ledger.wallet import Outgoing
from cocoon.node.money import EscrowSeen, Money
from cocoon.wire.cells import Cell
from cocoon.wire.judged import sign_cell
from cocoon.wire.orders import OrderHead

#: Kept unlocked beside what lanes lock: what lets a provider give credit to a lease whose lane is still on its way.
#: Twice what it asks for: the escrow's rent comes out of it.
_FLOAT_NANOTON = 2 * CREDIT_TRANCHES * TRANCHE_NANOTON
#: What the wallet's names of orders begin with.
_NAME = b"order:"


@dataclass(slots=True)
class OrderTurn:
    """The right to give the escrow its next order. The order is made under ``head``."""

    money: Money
    head: OrderHead
    seen: EscrowSeen
    sent: bool = field(default=False, init=False)

    async def send(
        self, order: Cell, gas: int, *, locks_nanoton: int = 0, lanes: int = 0, provider_signature: bytes | None = None
    ) -> EscrowSeen:
        """Carry the order and return the escrow once it was executed.

        Args:
            gas: Most that it takes; the message brings more than its price, and what is left returns.
            locks_nanoton, lanes: What it locks beyond now, and the lanes that it adds; the deposit covers both.
            provider_signature: Of a cooperative close.

        Raises:
            InsufficientFunds, CapExceeded: nothing was sent.
            ChainRefused: the escrow refused the order; the text has its exit code.
            OrderOvertaken: because another order used the number up: whoever was asked to agree to a close can
                carry it. Nothing of this one ran; it may be made anew.
            ChainUnreachable: not executed while it was valid.
        """
        money, escrow = self.money, self.head.escrow
        keep = deposit_nanoton(self.seen, locks_nanoton, lanes)
        carry = max(ORDER_CARRY_NANOTON, value_nanoton(await money.ledger.prices(), gas))
        body = order_body(self.head.number, keep, sign_cell(order.hash(), money.lane_key), order, provider_signature)
        deploy = money.birth.state_init() if self.seen.state is None else None
        self.sent = True
        carrier = Outgoing(escrow, keep + carry, body, deploy)
        try:
            sent = await money.ledger.submit(_NAME + order.hash(), carrier)
        except (InsufficientFunds, CapExceeded):
            self.sent = False                           # given up unsent: the number is free at once
            raise
        try:
            await money.executed(escrow, sent.lt, body, self.head.valid_until_s)
        except ChainRefused as error:
            seen = await money.look(escrow)
            if seen.state is not None and seen.state.order_number > self.head.number:
                raise OrderOvertaken(f"another order ran under number {self.head.number}: {error.text}") from None
            raise
        return await money.look(escrow)


def deposit_nanoton(seen: EscrowSeen, locks_nanoton: int, lanes: int) -> int:
    """What must come with an order, so that everything locked, the reserve and the float are covered.

    Args:
        locks_nanoton, lanes: What the order locks, and the lanes that it adds.
    """
    if not locks_nanoton and not lanes:
        return 0
    live, locked = (len(seen.state.lanes), seen.state.locked_nanoton) if seen.state is not None else (0, 0)
    needed = locked + locks_nanoton + reserve_nanoton(live + lanes) + _FLOAT_NANOTON
    return max(0, needed - seen.balance_nanoton)


class Orders:
    """Gives turns, one at a time."""

    def __init__(self, money: Money) -> None:
        self._money = money
        self._address = money.birth.address()
        self._desk = OrderDesk()
        self._lock = trio.Lock()

    def restore(self) -> None:
        """Take up the order that an earlier life of this peer gave to its wallet: it may still be executed."""
        row = self._money.ledger.newest(_NAME)
        if row is not None and row.message.body is not None:
            head = carried_order(row.message.body)
            self._desk.resume(head.number, head.valid_until_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[OrderTurn]:
        """Wait until no other order may still be executed, and hold the next number for the block.

        Raises:
            ChainUnreachable: the escrow cannot be read.
        """
        money, address = self._money, self._address
        async with self._lock:
            seen = await money.look(address)
            state = seen.state or EscrowState(money.birth, 0, 0, 0, {})
            while (taken := self._desk.take(state, seen.at_s)) is None:
                seen = await money.next_look(address, seen.seqno)
                state = seen.state or state
            number, until_s = taken
            turn = OrderTurn(money, OrderHead(money.network_tag, address, number, until_s), seen)
            try:
                yield turn
            finally:
                if not turn.sent:
                    self._desk.drop(number)             # a provider may hold a close of it: ``executed`` would notice
