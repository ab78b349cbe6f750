"""Recovery: an escrow's coins come back to the wallet by its owner's own messages.

These need neither journal nor lane key. Done twice: at once for what is
unlocked, and after the close delay for what was locked. Providers have that
long to claim what they hold vouchers for.

Purity: shell. Spec: docs/spec/wallet.md, rules WAL-14 to WAL-16; escrow.md.
"""

from __future__ import annotations

from typing import Any

from cocoon.core.limits import CLAIM_WAIT_S, ORDER_CARRY_NANOTON, PRUNE_LANES
from cocoon.ledger.audit import flow_of
from cocoon.ledger.escrow import (
    GAS_WITHDRAW,
    EscrowState,
    expire_all_body,
    lanes_gas,
    owner_withdraw_body,
    prune_body,
    value_nanoton,
)
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.wallet import Outgoing
from cocoon.node.money import EscrowSeen, Money
from cocoon.node.orders import Orders
from cocoon.wire.cells import Cell


async def recover(money: Money, orders: Orders) -> dict[str, Any]:
    """Prune what has expired, withdraw what is unlocked, bring every other lane's expiry forward.

    Args:
        orders: Those of the escrow; no order runs meanwhile.

    Returns:
        ``recovered_nanoton`` that left the escrow, ``locked_nanoton`` and ``free_at_s``, the chain time from which the
        last of it can be recovered (0: nothing is locked), and the wallet's ``balance_nanoton``.

    Raises:
        InsufficientFunds: the wallet has nothing to carry a message with.
        CapExceeded, ChainRefused, ChainUnreachable: what was done is done; call it again.
    """
    async with orders.turn() as turn:
        owner = _Owner(money, turn.seen)
        recovered_nanoton = await owner.run()
        state = owner.seen.state
    lanes = () if state is None else tuple(state.lanes.values())
    return {
        "recovered_nanoton": recovered_nanoton, "locked_nanoton": 0 if state is None else state.locked_nanoton,
        "free_at_s": max((lane.expires_s for lane in lanes), default=0),
        "balance_nanoton": await money.ledger.balance(),
    }


class _Owner:
    """The owner of one escrow, one message at a time."""

    def __init__(self, money: Money, seen: EscrowSeen) -> None:
        self.seen = seen
        self._money = money
        self._address = money.birth.address()

    async def run(self) -> int:
        """Everything that can be done now; what left the escrow, nanoton."""
        if (state := self.seen.state) is None:
            return 0
        expired = sorted(lane for lane, entry in state.lanes.items() if entry.expires_s <= self.seen.at_s)
        for first in range(0, len(expired), PRUNE_LANES):
            lanes = expired[first : first + PRUNE_LANES]
            await self._carry(prune_body(lanes[0], lanes), lanes_gas(len(lanes), self.seen.depth))
        recovered_nanoton = 0
        if self.seen.unlocked_nanoton > 0:
            done = await self._carry(owner_withdraw_body(self._state.order_number), GAS_WITHDRAW)
            recovered_nanoton = -flow_of([done]).left_nanoton   # the rest of what carried the message went back too
        if self._far_lanes():
            gas = lanes_gas(len(self._state.lanes), self.seen.depth)
            await self._carry(expire_all_body(self._state.order_number), gas)
        return recovered_nanoton

    @property
    def _state(self) -> EscrowState:
        assert self.seen.state is not None              # an escrow is never destroyed
        return self.seen.state

    def _far_lanes(self) -> bool:
        """Whether a lane lives longer than one whose expiry was brought forward now."""
        soon_s = self.seen.at_s + self._state.birth.close_delay_s
        return any(lane.expires_s > soon_s for lane in self._state.lanes.values())

    async def _carry(self, body: Cell, gas: int) -> Transaction:
        """Let the wallet carry ``body``; the escrow's transaction that executed it.

        Its name holds the block in which the escrow was seen, so that a call after a failed one sends anew: the
        escrow takes an owner's message only once.

        Raises:
            ChainRefused, ChainUnreachable: the escrow did not take it.
        """
        money, address = self._money, self._address
        name = b"owner:" + address + self.seen.seqno.to_bytes(8, "big") + body.hash()
        value = max(ORDER_CARRY_NANOTON, value_nanoton(await money.ledger.prices(), gas))
        sent = await money.ledger.submit(name, Outgoing(address, value, body))
        done = await money.executed(address, sent.lt, body, self.seen.at_s + CLAIM_WAIT_S)
        self.seen = await money.look(address)
        return done
