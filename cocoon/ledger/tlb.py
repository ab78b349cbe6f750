"""TON's own records, read from cells: transactions, account states, prices.

Only what workchain 0 and ordinary transactions have; our contracts make no
others. Every failure is ``Malformed``.

Purity: pure. Spec: docs/spec/chain.md, rules CHN-7 and CHN-8; TON's block.tlb.
"""

from __future__ import annotations

from cocoon.core.errors import Malformed
from cocoon.core.limits import OUT_MESSAGES
from cocoon.core.values import Value
from cocoon.ledger.onchain import OutMessage, Prices, Transaction
from cocoon.ledger.supply import Carried, Moves
from cocoon.wire.cells import Cell, CellReader
from cocoon.wire.dictionary import read_dictionary

_OUT_KEY_BITS = 15
_CONFIG_KEY_BITS = 32
_STORAGE_PRICES = 8
_ADDR_NONE, _ADDR_EXTERN, _ADDR_STD = 0b00, 0b01, 0b10


class AccountRecord(Value):
    """The content of an account's state cell."""

    balance_nanoton: int
    code: Cell | None
    data: Cell | None


class Linked(Value):
    """A transaction, and the one before it on the same account."""

    transaction: Transaction
    previous_hash: bytes
    previous_lt: int


class _Message(Value):
    source: bytes | None
    dest: bytes | None
    value_nanoton: int
    forward_fee_nanoton: int
    bounced: bool
    body: Cell


def read_account(cell: Cell) -> AccountRecord:
    """Read an ``Account``; one that does not exist has balance 0.

    Raises:
        Malformed: it is none.
    """
    reader = CellReader.of(cell)
    if not reader.uint(1):
        return AccountRecord(0, None, None)
    _internal_address(reader)
    for _ in range(2):  # cells and bits that it uses
        reader.uint(8 * reader.uint(3))
    extra = reader.uint(3)
    if extra == 1:
        reader.blob(32)
    elif extra:
        raise Malformed(f"an account with storage information {extra}")
    reader.uint(32)
    if reader.uint(1):
        reader.coins()
    reader.uint(64)
    balance = read_currencies(reader)
    if not reader.uint(1):
        return AccountRecord(balance, None, None)  # not deployed, or frozen
    code, data = _state_init(reader)
    return AccountRecord(balance, code, data)


def read_transaction(cell: Cell) -> Linked:
    """Read a ``Transaction`` of workchain 0.

    Raises:
        Malformed: it is none.
    """
    reader = CellReader.of(cell)
    if reader.uint(4) != 0b0111:
        raise Malformed("this cell is no transaction")
    address, lt, previous_hash, previous_lt = reader.blob(32), reader.uint(64), reader.blob(32), reader.uint(64)
    at_s = reader.uint(32)
    reader.uint(15 + 2 + 2)
    messages = CellReader.of(reader.ref())
    caused_by = messages.maybe()
    outs = read_dictionary(messages.maybe(), _OUT_KEY_BITS, OUT_MESSAGES)
    fees = read_currencies(reader)
    reader.ref()
    exit_code, success = _outcome(CellReader.of(reader.ref()))
    message = None if caused_by is None else _read_message(CellReader.of(caused_by))
    sent = [_read_message(CellReader.of(entry.ref())) for entry in outs.values()]
    transaction = Transaction(
        address=address, lt=lt, hash=cell.hash(), at_s=at_s, fees_nanoton=fees,
        in_source=None if message is None else message.source,
        in_value_nanoton=0 if message is None else message.value_nanoton,
        in_hash=bytes(32) if caused_by is None else caused_by.hash(),
        in_body=None if message is None else message.body,
        in_bounced=message is not None and message.bounced,
        outs=tuple(
            OutMessage(m.dest, m.value_nanoton, m.forward_fee_nanoton, m.body, m.bounced)
            for m in sent if m.dest is not None
        ),
        exit_code=exit_code, success=success,
    )
    return Linked(transaction, previous_hash, previous_lt)


def read_moves(cell: Cell) -> Moves:
    """Read of a ``Transaction``, of any workchain, what it adds to the sums of a chain.

    Raises:
        Malformed: it is none.
    """
    reader = CellReader.of(cell)
    if reader.uint(4) != 0b0111:
        raise Malformed("this cell is no transaction")
    reader.blob(32 + 8 + 32 + 8 + 4)
    reader.uint(15 + 2 + 2)
    messages = CellReader.of(reader.ref())
    taken = messages.maybe()
    outs = read_dictionary(messages.maybe(), _OUT_KEY_BITS, OUT_MESSAGES)
    made = [carried for entry in outs.values() if (carried := _carried(entry.ref())) is not None]
    return Moves(read_currencies(reader), None if taken is None else _carried(taken), tuple(made))


def _carried(cell: Cell) -> Carried | None:
    """What an internal message carries; an external one carries nothing."""
    if cell.bits and cell.value >> cell.bits - 1:
        return None
    message = _read_message(CellReader.of(cell))
    return Carried(cell.hash(), message.value_nanoton, message.forward_fee_nanoton)


def read_prices(gas: Cell, forward: Cell, storage: Cell) -> Prices:
    """Prices of workchain 0 from configuration parameters 21, 25 and 18.

    Raises:
        Malformed: one of them is something else.
    """
    reader = CellReader.of(gas)
    flat_limit = flat_price = 0
    tag = reader.uint(8)
    if tag == 0xD1:
        flat_limit, flat_price, tag = reader.uint(64), reader.uint(64), reader.uint(8)
    if tag not in (0xDD, 0xDE):
        raise Malformed(f"gas prices with tag 0x{tag:02x}")
    gas_price = reader.uint(64)
    reader = CellReader.of(forward)
    if (tag := reader.uint(8)) != 0xEA:
        raise Malformed(f"forward prices with tag 0x{tag:02x}")
    lump, bit, cell = reader.uint(64), reader.uint(64), reader.uint(64)
    reader.uint(32)
    first = reader.uint(16)
    ages = read_dictionary(storage, _CONFIG_KEY_BITS, _STORAGE_PRICES)
    if not ages:
        raise Malformed("no storage prices")
    rent = ages[max(ages)]
    if rent.uint(8) != 0xCC:
        raise Malformed("storage prices with another tag")
    rent.uint(32)
    return Prices(
        gas_price=gas_price, flat_gas_limit=flat_limit, flat_gas_nanoton=flat_price, lump_nanoton=lump,
        bit_price=bit, cell_price=cell, first_fraction=first,
        storage_bit_price=rent.uint(64), storage_cell_price=rent.uint(64),
    )


def _read_message(reader: CellReader) -> _Message:
    value = forward_fee = 0
    bounced = False
    source: bytes | None = None
    dest: bytes | None = None
    if not reader.uint(1):
        bounced = bool(reader.uint(3) & 1)
        source, dest = _internal_address(reader), _internal_address(reader)
        value = read_currencies(reader)
        reader.coins()
        forward_fee = reader.coins()
        reader.uint(64 + 32)
    elif not reader.uint(1):
        _external_address(reader)
        dest = _internal_address(reader)
        reader.coins()
    else:
        source = _internal_address(reader)
        _external_address(reader)
        reader.uint(64 + 32)
    if reader.uint(1):
        _state_init(CellReader.of(reader.ref()) if reader.uint(1) else reader)
    body = reader.ref() if reader.uint(1) else reader.rest()
    return _Message(source, dest, value, forward_fee, bounced, body)


def _outcome(reader: CellReader) -> tuple[int | None, bool]:
    """Exit code and success from a transaction's description."""
    if reader.uint(4) != 0b0000:
        return None, True  # no message caused it: storage, a tick
    reader.uint(1)
    if reader.uint(1):
        reader.coins()
        if reader.uint(1):
            reader.coins()
        if reader.uint(1):
            reader.uint(1)
    if reader.uint(1):
        if reader.uint(1):
            reader.coins()
        read_currencies(reader)
    exit_code, computed = _compute_phase(reader)
    action = reader.maybe()
    acted = action is None or bool(CellReader.of(action).uint(1))
    aborted = bool(reader.uint(1))
    return exit_code, computed and acted and not aborted


def _compute_phase(reader: CellReader) -> tuple[int | None, bool]:
    if not reader.uint(1):
        if reader.uint(2) == 0b11:
            reader.uint(1)
        return None, False
    success = bool(reader.uint(3) >> 2)
    reader.coins()
    more = CellReader.of(reader.ref())
    for _ in range(2):
        more.uint(8 * more.uint(3))
    if more.uint(1):
        more.uint(8 * more.uint(2))
    more.uint(8)
    code = more.uint(32)
    return code - (1 << 32 if code >> 31 else 0), success


def _state_init(reader: CellReader) -> tuple[Cell | None, Cell | None]:
    if reader.uint(1):
        reader.uint(5)
    if reader.uint(1):
        reader.uint(2)
    code, data = reader.maybe(), reader.maybe()
    reader.maybe()
    return code, data


def read_currencies(reader: CellReader) -> int:
    """An amount of coins, nanoton; other currencies beside it are passed over."""
    amount = reader.coins()
    reader.maybe()
    return amount


def _internal_address(reader: CellReader) -> bytes | None:
    """32 bytes for workchain 0, 36 for another one, None for nobody: no two addresses have one form."""
    kind = reader.uint(2)
    if kind == _ADDR_NONE:
        return None
    if kind != _ADDR_STD or reader.uint(1):
        raise Malformed("an address that is neither none nor a plain addr_std")
    workchain, account = reader.blob(1), reader.blob(32)
    return account if workchain == b"\0" else b"\0\0\0" + workchain + account


def _external_address(reader: CellReader) -> None:
    kind = reader.uint(2)
    if kind == _ADDR_EXTERN:
        reader.uint(reader.uint(9))
    elif kind != _ADDR_NONE:
        raise Malformed("an internal address where an external one is due")
