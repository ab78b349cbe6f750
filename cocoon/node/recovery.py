"""Recovery: an escrow's coins come back to the wallet by its owner's own messages.

These need neither journal nor lane key. Done twice: at once for what is
unlocked, and after the close delay for what was locked. Providers have that
long to claim what they hold vouchers for.

Purity: shell. Spec: docs/spec/wallet.md, rules WAL-14 to WAL-16; escrow.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cocoon.core.errors import ChainRefused
from cocoon.core.limits import CLAIM_WAIT_S, ORDER_CARRY_NANOTON, PRUNE_LANES
from cocoon.ledger.escrow import EscrowState, expire_all_body, owner_withdraw_body, prune_body
from cocoon.ledger.wallet import Outgoing
from cocoon.node.money import EscrowSeen, Money
from cocoon.node.orders import Orders
from cocoon.wire.cells import Cell


async def recover(money: Money, orders: Orders) -> dict[str, Any]:
    """Prune what has expired, bring every other lane's expiry forward, withdraw what is unlocked.

    Args:
        orders: Those of the escrow; no order runs meanwhile.

    Returns:
        ``recovered_nanoton`` that left the escrow, ``locked_nanoton`` and ``free_at_s``, the chain time from which the
        last of it can be recovered (0: nothing is locked), and the wallet's ``balance_nanoton``.

    Raises:
        InsufficientFunds: the wallet has nothing to carry a message with.
        CapExceeded, ChainUnreachable: what was done is done; call it again.
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
            await self._prune(expired[first : first + PRUNE_LANES])
        if self._far_lanes():
            await self._send(expire_all_body(self._number))
        before_nanoton = self.seen.balance_nanoton
        if self.seen.unlocked_nanoton > 0:
            await self._send(owner_withdraw_body(self._number))
        return max(0, before_nanoton - self.seen.balance_nanoton)

    @property
    def _state(self) -> EscrowState:
        assert self.seen.state is not None              # an escrow is never destroyed
        return self.seen.state

    @property
    def _number(self) -> int:
        return self._state.order_number

    def _far_lanes(self) -> bool:
        """Whether a lane lives longer than one whose expiry was brought forward now."""
        soon_s = self.seen.at_s + self._state.birth.close_delay_s
        return any(lane.expires_s > soon_s for lane in self._state.lanes.values())

    async def _send(self, body: Cell) -> None:
        """Send an owner's message that uses an order number up, and wait until it was executed."""
        number = self._number
        await self._carry(body, number.to_bytes(4, "big"), lambda: self._number > number)

    async def _prune(self, lanes: Sequence[int]) -> None:
        await self._carry(prune_body(lanes[0], lanes), b"", lambda: not set(lanes) & self._state.lanes.keys())

    async def _carry(self, body: Cell, place: bytes, done: Callable[[], bool]) -> None:
        """Let the wallet carry ``body``; return once the escrow's proven state shows that it was executed.

        Raises:
            ChainRefused: the escrow did not take it.
        """
        money, address = self._money, self._address
        await money.ledger.submit(
            b"owner:" + address + place + body.hash(), Outgoing(address, ORDER_CARRY_NANOTON, body)
        )
        end_s = self.seen.at_s + CLAIM_WAIT_S
        while not done():
            if self.seen.at_s >= end_s:
                raise ChainRefused(f"the escrow did not take its owner's message within {CLAIM_WAIT_S} s")
            self.seen = await money.next_look(address, self.seen.seqno)
