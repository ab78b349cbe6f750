"""Parties of an escrow on the test chain: a requester that signs, providers that claim, a carrier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nacl.signing import SigningKey

from cocoon.ledger import escrow
from cocoon.ledger.acts import EscrowHistory, history_of
from cocoon.ledger.escrow import EscrowBirth, EscrowState
from cocoon.ledger.tlb import read_transaction
from cocoon.wire import orders
from cocoon.wire.cells import Cell
from cocoon.wire.judged import Voucher
from cocoon.wire.orders import NewLane, OrderHead, TopUp
from tests.tvm.chain import TON, Chain, Result

NETWORK = 0xC0FFEE01
DAY_S = 86_400
CAP = TON // 10
EMPTY = Cell(0, 0)


def address(name: str) -> bytes:
    """Some address."""
    return hashlib.sha256(name.encode()).digest()


def key(name: str) -> SigningKey:
    """Some key."""
    return SigningKey(hashlib.sha256(f"key of {name}".encode()).digest())


def public(secret: SigningKey) -> bytes:
    """Its public half."""
    return bytes(secret.verify_key)


OWNER, CARRIER = address("owner"), address("carrier")


def payout(lane: int) -> bytes:
    """The provider's address of a lane."""
    return address(f"payout {lane}")


def provider(lane: int) -> SigningKey:
    """The provider's key of a lane."""
    return key(f"provider {lane}")


@dataclass(slots=True)
class Escrow:
    """One escrow on ``chain`` and whoever uses it."""

    chain: Chain
    birth: EscrowBirth = field(
        default_factory=lambda: EscrowBirth(OWNER, public(key("lane")), NETWORK, 0, DAY_S)
    )
    lane_key: SigningKey = field(default_factory=lambda: key("lane"))

    @property
    def address(self) -> bytes:
        """Where it is."""
        return self.birth.address()

    @property
    def state(self) -> EscrowState:
        """Its data, read as peers read them."""
        return escrow.read_state(self.chain.data(self.address))

    @property
    def history(self) -> EscrowHistory:
        """Its life, as an audit reads it off its transactions."""
        found = (read_transaction(cell).transaction for cell in self.chain.transactions)
        return history_of(tx for tx in found if tx.address == self.address)

    @property
    def balance(self) -> int:
        """Its coins."""
        return self.chain.balance(self.address)

    def head(self, **other: Any) -> OrderHead:
        """The next order's head, for an hour; ``other`` replaces fields."""
        deployed = self.chain.status(self.address) == "active"
        fields: dict[str, Any] = {
            "network_tag": self.birth.network_tag,
            "escrow": self.address,
            "number": self.state.order_number if deployed else 0,
            "valid_until_s": self.chain.now_s + 3_600,
        }
        return OrderHead(**{**fields, **other})

    def new(self, ids: Iterable[int], cap: int = CAP, life_s: int = 30 * DAY_S) -> list[NewLane | TopUp]:
        """New lanes."""
        until = self.chain.now_s + life_s
        return [NewLane(i, cap, until, payout(i), public(provider(i))) for i in ids]

    def send(
        self, order: Cell, *, value: int = TON // 5, keep: int = 0, source: bytes = CARRIER,
        signer: SigningKey | None = None, provider_key: SigningKey | None = None, label: str = "",
        state_init: Cell | None = None,
    ) -> Result:
        """Carry an order."""
        signature = (signer or self.lane_key).sign(order.hash()).signature
        second = provider_key.sign(order.hash()).signature if provider_key else None
        body = escrow.order_body(1, keep, signature, order, second)
        return self.chain.internal(self.address, value, body, source=source, state_init=state_init, label=label)

    def deploy(
        self, ids: Iterable[int] = (0,), cap: int = CAP, deposit: int = 2 * TON, life_s: int = 30 * DAY_S
    ) -> Result:
        """Deploy, deposit and open lanes in one message."""
        order = orders.open_order(self.head(), self.new(ids, cap, life_s))
        result = self.send(
            order, value=deposit + TON, keep=deposit, source=OWNER, state_init=self.birth.state_init(), label="deploy"
        )
        assert result.ok, result
        return result

    def open(self, lanes: list[NewLane | TopUp], **how: Any) -> Result:
        """Open or top up."""
        return self.send(orders.open_order(self.head(), lanes), **{"label": "open", **how})

    def top_up(self, lane: int, cap: int, life_s: int = 30 * DAY_S, **how: Any) -> Result:
        """Raise one lane."""
        return self.open([TopUp(lane, cap, self.chain.now_s + life_s)], **{"label": "top up", **how})

    def expire(self, lanes: list[int], **how: Any) -> Result:
        """Bring expiries forward."""
        return self.send(orders.expire_order(self.head(), lanes), **{"label": "expire", **how})

    def close(self, lane: int, total: int, **how: Any) -> Result:
        """Close cooperatively."""
        order = orders.close_order(self.head(), lane, total)
        return self.send(order, **{"provider_key": provider(lane), "label": "close", **how})

    def withdraw(self, amount: int = 0, payload: Cell | None = None, **how: Any) -> Result:
        """Withdraw by order."""
        return self.send(orders.withdraw_order(self.head(), amount, payload), **{"label": "withdraw", **how})

    def voucher(self, lane: int, total: int, **other: Any) -> Voucher:
        """A promise of the requester; ``other`` replaces fields."""
        fields: dict[str, Any] = {
            "network_tag": self.birth.network_tag, "escrow": self.address, "lane": lane, "seq": 1,
            "total_nanoton": total, "head": bytes(31) + b"\5",
        }
        return Voucher(**{**fields, **other})

    def claim_body(self, voucher: Voucher, signer: SigningKey | None = None) -> Cell:
        """A claim of a voucher."""
        return escrow.claim_body(2, (signer or self.lane_key).sign(voucher.hash()).signature, voucher.cell())

    def claim(self, lane: int, total: int, *, value: int = TON // 20, label: str = "claim", **how: Any) -> Result:
        """Claim by the provider's wallet; ``how`` names signer, source, or fields of the voucher."""
        signer, source = how.pop("signer", None), how.pop("source", payout(lane))
        body = self.claim_body(self.voucher(lane, total, **how), signer)
        return self.chain.internal(self.address, value, body, source=source, label=label)

    def external_body(
        self, voucher: Voucher, signer: SigningKey | None = None, provider_key: SigningKey | None = None
    ) -> Cell:
        """An external claim of a voucher."""
        asked = escrow.external_claim_hash(voucher.hash())
        second = (provider_key or provider(voucher.lane)).sign(asked).signature
        return escrow.external_claim_body(
            second, (signer or self.lane_key).sign(voucher.hash()).signature, voucher.cell()
        )

    def external_claim(self, lane: int, total: int, **other: Any) -> Result:
        """Claim without a coin."""
        body = self.external_body(self.voucher(lane, total, **other))
        return self.chain.external(self.address, body, label="external claim")

    def owner(self, body: Cell, value: int = TON // 5, source: bytes = OWNER, label: str = "owner") -> Result:
        """A plain message of the owner, or of somebody who plays the owner."""
        return self.chain.internal(self.address, value, body, source=source, label=label)

    def prune(self, lanes: list[int], value: int = TON // 5, label: str = "prune") -> Result:
        """Delete expired lanes."""
        return self.chain.internal(
            self.address, value, escrow.prune_body(3, lanes), source=CARRIER, label=label
        )

    def deposit(self, amount: int, body: Cell = EMPTY, label: str = "deposit") -> Result:
        """Coins without an order."""
        return self.chain.internal(self.address, amount, body, source=OWNER, label=label)
