"""A peer's money over contracts in the real TVM: the wallet's messages arrive at once, time is trio's.

The wallet itself, its signer and its outbox are left out: a name is carried once, and a test may let a message fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from cocoon.config.network import ChainFacts
from cocoon.core.errors import CocoonError
from cocoon.identity.keys import KeyPair, key_pair
from cocoon.ledger.onchain import Account, Transaction
from cocoon.ledger.rows import Sent
from cocoon.ledger.tlb import read_transaction
from cocoon.ledger.wallet import Outgoing
from cocoon.node.money import Money
from cocoon.wire.cells import Cell, CellReader
from tests.tvm.chain import GENESIS_S, TON, Chain, Prices
from tests.tvm.parties import NETWORK, Escrow, key, provider
from tests.unit.node.scripted import Clock

BLOCK_S = 5
CLOSE_DELAY_S = 60


@dataclass
class TvmLedger:
    """A ledger and its chain, with what goes wrong on the way.

    Attributes:
        address: Of the wallet.
        failures: What the next calls of ``submit`` raise, the last one first.
        starved: So many of the next messages bring too little for their gas.
        names: The name of each call of ``submit``.
    """

    address: bytes
    chain: Chain = field(default_factory=Chain)
    balance_nanoton: int = 1_000 * TON
    failures: list[CocoonError] = field(default_factory=list)
    starved: int = 0
    names: list[bytes] = field(default_factory=list)
    _sent: dict[bytes, Sent] = field(default_factory=dict)

    def tick(self) -> None:
        """Let the chain's time follow trio's."""
        self.chain.now_s = max(self.chain.now_s, GENESIS_S + int(trio.current_time()))

    async def account(self, address: bytes) -> Account:
        await trio.lowlevel.checkpoint()
        self.tick()
        code, there = self.chain.code(address), self.chain.status(address) == "active"
        return Account(
            address, self.chain.balance(address), code.hash() if code else None,
            self.chain.data(address) if there else None, self.chain.lt, bytes(32),
            (self.chain.now_s - GENESIS_S) // BLOCK_S, self.chain.now_s,
        )

    async def transactions(self, address: bytes, after_lt: int = 0) -> list[Transaction]:
        await trio.lowlevel.checkpoint()
        found = (read_transaction(cell).transaction for cell in self.chain.transactions)
        return [one for one in found if one.address == address and one.lt > after_lt]

    async def wait_block(self, after: int) -> int:
        await trio.sleep(BLOCK_S)
        self.tick()
        return after + 1

    async def prices(self) -> Prices:
        return Prices(self.chain.gas_price)

    async def balance(self) -> int:
        return self.balance_nanoton

    def newest(self, prefix: bytes) -> None:
        """No earlier life of this wallet ordered anything."""

    async def submit(self, name: bytes, message: Outgoing) -> Sent:
        await trio.lowlevel.checkpoint()
        self.names.append(name)
        if self.failures:
            raise self.failures.pop()
        if name not in self._sent:
            self.tick()
            self._sent[name] = Sent(bytes(32), self.chain.lt, self.chain.now_s)
            value = 10_000 if self.starved else message.value_nanoton
            self.starved = max(0, self.starved - 1)
            done = self.chain.internal(
                message.dest, value, message.body or Cell(0, 0), source=self.address, state_init=message.state_init
            )
            self.chain.relay(done)
        return self._sent[name]

    async def send_external(self, message: Cell) -> None:
        await trio.lowlevel.checkpoint()
        reader = CellReader.of(message)
        reader.uint(4)
        self.chain.relay(self.chain.external_message(reader.address(), message))


def money_of(ledger: TvmLedger, one: Escrow, provider_key: KeyPair | None = None) -> Money:
    """Money of the owner of ``one``, or of a provider with this key."""
    facts: Any = ChainFacts(bytes(32), CLOSE_DELAY_S, CLOSE_DELAY_S, faucet=bytes(32))
    return Money(
        ledger, ledger, facts, NETWORK, key_pair(bytes(one.lane_key)),  # type: ignore[arg-type]
        provider_key or key_pair(bytes(provider(1))), one.birth, Clock(),
    )


def lane_of(one: Escrow, lane: int) -> Any:
    """The lane in the contract's state; None if it is not there."""
    return one.state.lanes.get(lane)


__all__: Sequence[str] = ("BLOCK_S", "CLOSE_DELAY_S", "Clock", "TvmLedger", "key", "lane_of", "money_of")
