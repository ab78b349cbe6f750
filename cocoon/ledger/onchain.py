"""What is read off the chain: accounts, transactions, prices. Proven before it gets here.

Addresses are the 32-byte hash parts of workchain 0; amounts are nanoton; times
are the chain's own, Unix seconds.

Purity: pure. Spec: docs/spec/chain.md, rules CHN-5 to CHN-9.
"""

from __future__ import annotations

from cocoon.core.values import Value
from cocoon.wire.cells import Cell

_FRACTION_BITS = 16


class Account(Value):
    """A proven state of one account.

    Attributes:
        code_hash, data: None while no contract is deployed there.
        last_lt: Logical time of its newest transaction; 0 if it had none.
        last_hash: That transaction's hash; zeros if it had none.
        seqno: Masterchain block in which this state is proven.
        at_s: Chain time of the proving block.
    """

    address: bytes
    balance_nanoton: int
    code_hash: bytes | None
    data: Cell | None
    last_lt: int
    last_hash: bytes
    seqno: int
    at_s: int

    @property
    def deployed(self) -> bool:
        """Whether a contract is there."""
        return self.data is not None


class OutMessage(Value):
    """An internal message that a transaction sent."""

    dest: bytes
    value_nanoton: int
    forward_fee_nanoton: int
    body: Cell
    bounced: bool


class Transaction(Value):
    """One transaction, linked by hash to a proven account state.

    Attributes:
        fees_nanoton: Total fees collected in this transaction (without the forward fees of its messages).
        in_source: Who sent the message; None for an external one.
        in_hash: Representation hash of the message that caused it; zeros without one.
        in_bounced: Whether the message came back from where it could not be taken.
        exit_code: Of the contract; None if it was not run.
        success: Neither compute nor action phase failed.
    """

    address: bytes
    lt: int
    hash: bytes
    at_s: int
    fees_nanoton: int
    in_source: bytes | None
    in_value_nanoton: int
    in_hash: bytes
    in_body: Cell | None
    in_bounced: bool
    outs: tuple[OutMessage, ...]
    exit_code: int | None
    success: bool


class Prices(Value):
    """What the network's configuration asks of workchain 0.

    ``gas``, ``bit`` and ``cell`` prices, and those of storage, are in 2^-16 nanoton, as TON keeps them.
    """

    gas_price: int
    flat_gas_limit: int
    flat_gas_nanoton: int
    lump_nanoton: int
    bit_price: int
    cell_price: int
    #: Share of a forward fee that the sending side keeps, in 2^-16.
    first_fraction: int
    storage_bit_price: int
    storage_cell_price: int

    @property
    def gas_nanoton(self) -> int:
        """Nanoton per gas, rounded up."""
        return -(-self.gas_price >> _FRACTION_BITS)

    def gas_fee_nanoton(self, gas: int) -> int:
        """Fee of so much gas in one transaction."""
        if gas <= self.flat_gas_limit:
            return self.flat_gas_nanoton
        more = -(-(gas - self.flat_gas_limit) * self.gas_price >> _FRACTION_BITS)
        return self.flat_gas_nanoton + more

    def forward_fee_nanoton(self, cells: int, bits: int) -> int:
        """Whole fee of a message; ``cells`` and ``bits`` are those below its root cell."""
        more = -(-(bits * self.bit_price + cells * self.cell_price) >> _FRACTION_BITS)
        return self.lump_nanoton + more

    def storage_fee_nanoton(self, cells: int, bits: int, seconds: int) -> int:
        """Rent of an account of that size for that long."""
        price = bits * self.storage_bit_price + cells * self.storage_cell_price
        return -(-price * seconds >> _FRACTION_BITS)
