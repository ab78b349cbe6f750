"""A chain in one process: the real TVM, one account at a time, every nanoton accounted for.

Messages go in by hand or are relayed from transaction to transaction. After each transaction the chain
compares what was there and came with what is there and left, so no test can lose a coin unnoticed. Every
step is recorded with the hashes of its transaction and account, for the comparison with a second TVM.
"""

from __future__ import annotations

import base64
import functools
import re
from dataclasses import dataclass, field

import onnxruntime  # noqa: F401 (before tonpy; the other order crashes the interpreter)
from tonpy import Cell as NativeCell
from tonpy import VmDict
from tonpy.libs.python_ton import globalSetVerbosity
from tonpy.tvm.emulator import Emulator

from cocoon.devnet import configuration
from cocoon.devnet.cells import pack as pack_config
from cocoon.wire import boc
from cocoon.wire.cells import Cell, CellBuilder, CellReader
from cocoon.wire.dictionary import read_dictionary

TON = 10**9
GENESIS_S = 1_790_000_000
GAS_PRICE = 400
#: What the carrier's own network took for the message; part of the message, not of its value.
FORWARD_NANOTON = 266_669
_LT_STEP = 1_000_000
_EXIT = re.compile(r"exit code (-?\d+)\s*$")
#: What a message from outside meets at an account that cannot pay for the gas to judge it.
OUT_OF_GAS = -14
NOBODY = CellBuilder().ref(CellBuilder().uint(0, 1).end()).blob(bytes(32), 32).uint(0, 64).end()


@functools.cache
def config(gas_price: int = GAS_PRICE) -> str:
    """The devnet's configuration (base64) at a gas price; forward prices follow in proportion."""
    return base64.b64encode(pack_config(configuration.configuration(bytes(16), gas_price))).decode()


@functools.cache
def _emulator(config_base64: str) -> Emulator:
    globalSetVerbosity(0)
    made = Emulator(VmDict(32, False, NativeCell(config_base64)))
    made.set_rand_seed(0)
    return made


@dataclass(frozen=True, slots=True)
class Prices:
    """What a configuration charges (``cocoon.ledger.escrow.Fees``), at ``gas_price`` nanoton per gas."""

    gas_price: int = GAS_PRICE

    def gas_fee_nanoton(self, gas: int) -> int:
        """The flat price of the first 100 gas is that of 100 gas."""
        return max(gas, 100) * self.gas_price

    def forward_fee_nanoton(self, cells: int, bits: int) -> int:
        """Lump, bit and cell price; the last two in 2^-16 nanoton, rounded up."""
        lump, bit, cell = (price * self.gas_price // GAS_PRICE for price in (400_000, 26_214_400, 2_621_440_000))
        return lump + -(-(bits * bit + cells * cell) // 65_536)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that left an account. ``forward_nanoton`` was paid on top of its value."""

    dest: bytes
    value: int
    forward_nanoton: int
    bounced: bool
    body: Cell
    cell: Cell


@dataclass(frozen=True, slots=True)
class Result:
    """One transaction, or the refusal of an external message (``accepted`` False, nothing set but the exit code)."""

    dest: bytes
    accepted: bool
    #: Of the compute phase; None if it was skipped, or no code was asked.
    exit_code: int | None = None
    action_code: int | None = None
    gas: int = 0
    fees: int = 0
    storage: int = 0
    before: int = 0
    after: int = 0
    brought: int = 0
    outs: tuple[Sent, ...] = ()
    hash: bytes = b""

    @property
    def ok(self) -> bool:
        """The contract did what it was asked."""
        return self.accepted and self.exit_code == 0 and not self.action_code

    @property
    def delta(self) -> int:
        """How the account's balance changed."""
        return self.after - self.before

    @property
    def burnt(self) -> int:
        """What the network took: nobody has it any more."""
        return self.brought - self.delta - sum(out.value for out in self.outs)


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded step. Hashes are empty where an external message was refused."""

    label: str
    exit_code: int | None
    account: str
    message: str
    now_s: int
    lt: int
    transaction: str
    account_after: str


@dataclass(slots=True)
class Chain:
    """Accounts, time, and what happened."""

    gas_price: int = GAS_PRICE
    now_s: int = GENESIS_S
    lt: int = 10**13
    accounts: dict[bytes, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    transactions: list[Cell] = field(default_factory=list)
    #: Brought from outside, taken by the network, and out of accounts but not delivered.
    minted: int = 0
    burnt: int = 0
    in_flight: int = 0

    def balance(self, address: bytes) -> int:
        """Nanoton at an address; 0 if nothing is there."""
        account = self._account(address)
        return account.balance if account else 0

    def data(self, address: bytes) -> Cell:
        """Data of a deployed contract."""
        account = self._account(address)
        assert account is not None and account.data is not None
        return account.data

    def code(self, address: bytes) -> Cell | None:
        """Code of a deployed contract; None if none is deployed."""
        account = self._account(address)
        return account.code if account else None

    def status(self, address: bytes) -> str:
        """``none``, ``uninit``, ``frozen`` or ``active``."""
        account = self._account(address)
        return account.status if account else "none"

    def internal(
        self, dest: bytes, value: int, body: Cell, *, source: bytes = bytes(32), state_init: Cell | None = None,
        bounce: bool = True, label: str = "",
    ) -> Result:
        """A message with coins from outside, delivered now."""
        self.lt += _LT_STEP
        builder = CellBuilder().uint(0b01, 2).uint(bounce, 1).uint(0, 1).address(source).address(dest)
        builder.coins(value).uint(0, 1).coins(0).coins(FORWARD_NANOTON).uint(self.lt - 1, 64).uint(self.now_s, 32)
        self.minted += value
        return self._run(dest, _close(builder, state_init, body), value, label or "internal")

    def external(self, dest: bytes, body: Cell, state_init: Cell | None = None, label: str = "") -> Result:
        """A message from outside the chain."""
        self.lt += _LT_STEP
        builder = CellBuilder().uint(0b1000, 4).address(dest).coins(0)
        return self._run(dest, _close(builder, state_init, body), 0, label or "external")

    def external_message(self, dest: bytes, message: Cell, label: str = "") -> Result:
        """A whole external message as somebody else made it."""
        self.lt += _LT_STEP
        return self._run(dest, message, 0, label or "external")

    def deliver(self, sent: Sent, label: str = "") -> Result:
        """Carry one message of an earlier transaction to its destination."""
        self.lt += _LT_STEP
        self.in_flight -= sent.value + sent.forward_nanoton
        self.burnt += sent.forward_nanoton
        return self._run(sent.dest, sent.cell, sent.value, label or "relayed")

    def relay(self, result: Result) -> list[Result]:
        """Carry all messages of a transaction, and all that these cause."""
        todo, done = list(result.outs), []
        while todo:
            done.append(self.deliver(todo.pop(0)))
            todo += done[-1].outs
        return done

    def set_balance(self, address: bytes, balance: int) -> None:
        """Take coins from an account and out of the world, as storage would in time."""
        shard = CellReader.of(_cell(self.accounts[address]))
        account = shard.ref()
        reader = CellReader.of(account)
        _skip_to_balance(reader)
        head = CellBuilder().uint(account.value >> reader.bits_left, account.bits - reader.bits_left)
        self.burnt += reader.coins() - balance
        changed = head.coins(balance).inline(reader.rest()).end()
        self.accounts[address] = _b64(CellBuilder().ref(changed).inline(shard.rest()).end())

    def check_supply(self) -> None:
        """Every nanoton that came is somewhere."""
        there = sum(self.balance(address) for address in self.accounts)
        assert self.minted == there + self.burnt + self.in_flight

    def _account(self, address: bytes) -> _Account | None:
        found = self.accounts.get(address)
        return _read_account(found) if found else None

    def _run(self, dest: bytes, message: Cell, brought: int, label: str) -> Result:
        before_boc = self.accounts.get(dest) or _b64(NOBODY)
        before, message_boc = self.balance(dest), _b64(message)
        emulator = _emulator(config(self.gas_price))
        refused_with = None
        try:
            done = emulator.emulate_transaction(NativeCell(before_boc), NativeCell(message_boc), self.now_s, self.lt)
            if not done:
                refused_with = _exit_code(emulator.emulator.vm_log)
        except RuntimeError as error:  # what the binding makes of every C++ exception; no code was asked
            assert "rejected by account" in str(error), error
            done = False
        hashes = ("", "")
        if done:
            transaction = _cell(emulator.transaction.to_cell().to_boc())
            self.transactions.append(transaction)
            self.accounts[dest] = emulator.account.to_cell().to_boc()
            hashes = (transaction.hash().hex(), _cell(self.accounts[dest]).hash().hex())
        result = Result(dest, accepted=False, exit_code=refused_with)
        if done:
            result = _read_transaction(transaction, dest, before, self.balance(dest), brought)
        self.steps.append(Step(label, result.exit_code, before_boc, message_boc, self.now_s, self.lt, *hashes))
        if not done:
            return result
        left = sum(out.value + out.forward_nanoton for out in result.outs)
        assert result.before + brought == result.after + left + result.fees, "a transaction lost or made coins"
        self.burnt += result.fees
        self.in_flight += left
        return result


@dataclass(frozen=True, slots=True)
class _Account:
    balance: int
    status: str
    code: Cell | None
    data: Cell | None


def _exit_code(log: str) -> int | None:
    """The machine's last word in its log; None if it was not asked, because the account could pay for no gas at all."""
    if not log:
        return None
    if "unhandled out-of-gas exception" in log:
        return OUT_OF_GAS
    found = _EXIT.search(log)
    assert found is not None, log
    return int(found[1])


def _b64(cell: Cell) -> str:
    return base64.b64encode(boc.pack(cell)).decode()


def _cell(text: str) -> Cell:
    return boc.unpack(base64.b64decode(text))


def _close(builder: CellBuilder, state_init: Cell | None, body: Cell) -> Cell:
    if state_init is None:
        builder.uint(0, 1)
    else:
        builder.uint(0b11, 2).ref(state_init)
    return builder.uint(1, 1).ref(body).end()


def _currency(reader: CellReader) -> int:
    coins = reader.coins()
    reader.maybe()
    return coins


def _number(reader: CellReader, length_bits: int = 3) -> int:
    return reader.uint(8 * reader.uint(length_bits))


def _skip_to_balance(reader: CellReader) -> bool:
    """Over address, storage figures and debt; False if there is no account."""
    if not reader.uint(1):
        return False
    reader.address()
    _number(reader), _number(reader)
    if reader.uint(3):
        reader.blob(32)
    reader.uint(32)
    if reader.uint(1):
        reader.coins()
    reader.uint(64)
    return True


@functools.lru_cache(maxsize=1024)
def _read_account(shard_account: str) -> _Account | None:
    reader = CellReader.of(CellReader.of(_cell(shard_account)).ref())
    if not _skip_to_balance(reader):
        return None
    balance = _currency(reader)
    if not reader.uint(1):
        return _Account(balance, "frozen" if reader.uint(1) else "uninit", None, None)
    reader.uint(2)  # no split depth, no special
    return _Account(balance, "active", reader.maybe(), reader.maybe())


def _read_transaction(cell: Cell, dest: bytes, before: int, after: int, brought: int) -> Result:
    reader = CellReader.of(cell)
    reader.uint(4)
    reader.blob(32), reader.uint(64), reader.blob(32), reader.uint(64), reader.uint(32), reader.uint(19)
    messages = CellReader.of(reader.ref())
    fees = _currency(reader)
    reader.ref()  # hashes before and after
    messages.maybe()
    outs = tuple(_read_sent(out.ref()) for out in read_dictionary(messages.maybe(), 15, 255).values())
    phases = CellReader.of(reader.ref())
    phases.uint(5)  # an ordinary transaction; credit first
    storage = 0
    if phases.uint(1):
        storage = phases.coins()
        if phases.uint(1):
            phases.coins()
        if phases.uint(1):
            phases.uint(1)
    if phases.uint(1):
        if phases.uint(1):
            phases.coins()
        _currency(phases)
    exit_code, gas = _compute(phases)
    action = _action(phases.ref()) if phases.uint(1) else None
    return Result(dest, True, exit_code, action, gas, fees, storage, before, after, brought, outs, cell.hash())


def _compute(phases: CellReader) -> tuple[int | None, int]:
    if not phases.uint(1):
        if phases.uint(2) == 0b11:
            phases.uint(1)
        return None, 0
    phases.uint(3)
    phases.coins()
    details = CellReader.of(phases.ref())
    gas = _number(details)
    _number(details)
    if details.uint(1):
        _number(details, 2)
    details.uint(8)
    return _signed(details.uint(32)), gas


def _action(cell: Cell) -> int:
    reader = CellReader.of(cell)
    reader.uint(3)
    if reader.uint(1):
        reader.uint(1)
    for _ in range(2):
        if reader.uint(1):
            reader.coins()
    return _signed(reader.uint(32))


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _read_sent(cell: Cell) -> Sent:
    reader = CellReader.of(cell)
    reader.uint(3)
    bounced = bool(reader.uint(1))
    reader.address()
    dest, value = reader.address(), _currency(reader)
    reader.coins()
    forward = reader.coins()
    reader.uint(96)
    if reader.uint(1):
        if reader.uint(1):
            reader.ref()
        else:
            reader.uint(2)  # neither split nor special
            reader.maybe(), reader.maybe(), reader.maybe()
    body = reader.ref() if reader.uint(1) else reader.rest()
    return Sent(dest, value, forward, bounced, body, cell)
