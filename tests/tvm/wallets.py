"""Wallets V5R1 on the test chain: the real code, as users have it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nacl.signing import SigningKey

from cocoon.ledger import wallet
from cocoon.ledger.wallet import Outgoing
from tests.tvm.chain import TON, Chain, Result
from tests.tvm.parties import EMPTY, public

TESTNET = -3


@dataclass(slots=True)
class Wallet:
    """One wallet of ``key``, funded, deployed with its first message."""

    chain: Chain
    key: SigningKey
    seqno: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.chain.internal(self.address, 100 * TON, EMPTY, bounce=False)

    @property
    def address(self) -> bytes:
        """Where it is."""
        return wallet.wallet_address(public(self.key), TESTNET)

    @property
    def balance(self) -> int:
        """Its coins."""
        return self.chain.balance(self.address)

    def send(self, *messages: Outgoing) -> list[Result]:
        """One external message with all of ``messages``; returns every transaction that it caused."""
        unsigned = wallet.unsigned_transfer(TESTNET, self.seqno, self.chain.now_s + 60, messages)
        body = wallet.signed_body(unsigned, self.key.sign(unsigned.hash()).signature)
        init = None if self.seqno else wallet.wallet_state_init(public(self.key), TESTNET)
        first = self.chain.external(self.address, body, init)
        assert first.ok, first
        self.seqno += 1
        return [first, *self.chain.relay(first)]
