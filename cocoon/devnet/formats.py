"""The forms of TON that a chain must read itself: messages, transactions, accounts.

Only what routing and accounting need; all else is the virtual machine's business.

Purity: pure. Spec: docs/spec/devnet.md, rule DEV-7; block.tlb of the TON source.
"""

from __future__ import annotations

from cocoon.core.errors import Malformed
from cocoon.core.values import Value
from cocoon.devnet.cells import Builder, Cell, Reader
from cocoon.devnet.hashmap import load_map

#: Workchain and account: who holds coins.
Holder = tuple[int, bytes]

_OUT_MESSAGE_KEY_BITS = 15


class Inbound(Value):
    """A message towards an account.

    Attributes:
        external: It comes from outside the chain and carries nothing.
        carried_nanoton: What arrives with it: value and forward fees.
        forward_nanoton: The part of it that the block earns when it arrives.
    """

    cell: Cell
    holder: Holder
    external: bool
    carried_nanoton: int = 0
    forward_nanoton: int = 0


class Executed(Value):
    """What one transaction says of itself; ``gas`` is 0 if no code ran."""

    cell: Cell
    account: bytes
    lt: int
    end_lt: int
    fees_nanoton: int
    gas: int
    in_message: Cell | None
    outs: tuple[Inbound, ...]


def read_message(cell: Cell) -> Inbound | None:
    """Where a message goes; None if it leaves the chain (an event for outside).

    Raises:
        Malformed: it is no message, or its destination is no plain address.
    """
    reader = cell.read()
    if not reader.uint(1):
        return _read_internal(cell, reader)
    if reader.uint(1):
        return None
    _skip_external_address(reader)
    return Inbound(cell, reader.address(), external=True)


def _read_internal(cell: Cell, reader: Reader) -> Inbound:
    reader.uint(3)  # ihr_disabled, bounce, bounced
    reader.address()
    holder = reader.address()
    value, ihr_fee, forward_fee = reader.currency(), reader.coins(), reader.coins()
    return Inbound(cell, holder, False, value + ihr_fee + forward_fee, forward_fee)


def _skip_external_address(reader: Reader) -> None:
    """``addr_none`` or ``addr_extern``."""
    kind = reader.uint(2)
    if kind > 1:
        raise Malformed("an external message has an internal source")
    if kind:
        reader.uint(reader.uint(9))


def read_transaction(cell: Cell) -> Executed:
    """What the machine did.

    Raises:
        Malformed: the cell is no transaction.
    """
    reader = cell.read()
    if reader.uint(4) != 0b0111:
        raise Malformed("the cell is no transaction")
    account, lt = reader.blob(32), reader.uint(64)
    reader.blob(32 + 8 + 4)  # previous transaction, time
    count = reader.uint(15)
    reader.uint(4)  # states before and after
    messages = reader.ref().read()
    fees = reader.currency()
    in_message = messages.maybe()
    outs = load_map(messages.maybe(), _OUT_MESSAGE_KEY_BITS)
    routed = (read_message(out.ref()) for out in outs.values())
    reader.ref()  # hashes before and after
    gas = _gas(reader.ref().read())
    return Executed(cell, account, lt, lt + count + 1, fees, gas, in_message, tuple(out for out in routed if out))


def _gas(phases: Reader) -> int:
    """Gas of an ordinary transaction's compute phase; storage and credit come before it."""
    if phases.uint(4):
        raise Malformed("the transaction is no ordinary one")
    phases.uint(1)  # credit first
    if phases.uint(1):
        phases.coins()
        if phases.uint(1):
            phases.coins()
        if phases.uint(1):
            phases.uint(1)  # frozen or deleted
    if phases.uint(1):
        if phases.uint(1):
            phases.coins()
        phases.currency()
    if not phases.uint(1):
        return 0
    details = phases.ref().read()
    return details.uint(8 * details.uint(3))


class ShardAccount(Value):
    """``account_descr``: the account's cell and its newest transaction."""

    account: Cell
    last_hash: bytes
    last_lt: int

    def cell(self) -> Cell:
        """As the machine takes it."""
        return Builder().ref(self.account).blob(self.last_hash).uint(self.last_lt, 64).end()


def read_shard_account(cell: Cell) -> ShardAccount:
    """The reverse of ``ShardAccount.cell``."""
    reader = cell.read()
    return ShardAccount(reader.ref(), reader.blob(32), reader.uint(64))


#: No account: one 0 bit.
NO_ACCOUNT = Builder().uint(0, 1).end()
NOBODY = ShardAccount(NO_ACCOUNT, bytes(32), 0)


class Account(Value):
    """What an account holds; code and data are None unless it is active."""

    balance_nanoton: int
    code: Cell | None
    data: Cell | None


def read_account(cell: Cell) -> Account | None:
    """Balance and state; None for no account.

    Raises:
        Malformed: it is no account.
    """
    reader = cell.read()
    if not reader.uint(1):
        return None
    reader.address()
    _skip_storage_info(reader)
    reader.uint(64)  # lt of the last transaction
    balance = reader.currency()
    if not reader.uint(1):
        return Account(balance, None, None)
    if reader.uint(1):
        reader.uint(5)  # split depth
    if reader.uint(1):
        reader.uint(2)  # tick, tock
    return Account(balance, reader.maybe(), reader.maybe())


def _skip_storage_info(reader: Reader) -> None:
    reader.uint(8 * reader.uint(3))  # cells
    reader.uint(8 * reader.uint(3))  # bits
    extra = reader.uint(3)
    if extra > 1:
        raise Malformed(f"an account whose storage has extra information of kind {extra}")
    if extra:
        reader.blob(32)
    reader.uint(32)  # last paid
    if reader.uint(1):
        reader.coins()  # due


def active_account(holder: Holder, balance_nanoton: int, code: Cell, data: Cell, paid_until_s: int) -> Cell:
    """A new account as a zerostate holds it."""
    state = Builder().uint(1, 1).uint(0, 2).maybe(code).maybe(data).uint(0, 1).end()
    storage = Builder().uint(0, 64).currency(balance_nanoton).inline(state).end()
    cells, bits = _size(storage)
    builder = Builder().uint(1, 1).address(*holder)
    for amount in (cells, bits):
        size = (amount.bit_length() + 7) // 8
        builder.uint(size, 3).uint(amount, 8 * size)
    return builder.uint(0, 3).uint(paid_until_s, 32).uint(0, 1).inline(storage).end()


def _size(root: Cell) -> tuple[int, int]:
    """Different cells of a tree and their bits."""
    seen: dict[bytes, int] = {}
    todo = [root]
    while todo:
        cell = todo.pop()
        if cell.hash not in seen:
            seen[cell.hash] = cell.bits
            todo.extend(cell.refs)
    return len(seen), sum(seen.values())
