"""The virtual machine of TON, through tonpy: one message in, one transaction out.

tonpy crashes the interpreter when it is imported before onnxruntime, so this
module belongs to a process that never imports the other.

Purity: shell (native code). Spec: docs/spec/devnet.md, rules DEV-3, DEV-13 and DEV-36.
"""

from __future__ import annotations

import base64
import re

from tonpy.libs.python_ton import globalSetVerbosity
from tonpy.tvm import TVM
from tonpy.tvm.c7 import C7
from tonpy.tvm.emulator import Emulator
from tonpy.types import Cell as NativeCell
from tonpy.types import Stack, VmDict

from cocoon.core.errors import Malformed
from cocoon.core.limits import DEVNET_METHOD_GAS, DEVNET_STATE_CELLS
from cocoon.core.values import Value
from cocoon.devnet.cells import Cell, pack, unpack
from cocoon.devnet.formats import Account, Executed, Holder, ShardAccount, read_shard_account, read_transaction

#: The library's C++ prints to standard error otherwise.
_SILENT = 0
_CONFIG_KEY_BITS = 32
_EXIT = re.compile(r"exit code (-?\d+)\s*$")
_LOG_TAIL = 256
_NO_GAS = "unhandled out-of-gas exception"
#: How the machine ends when an account cannot pay for the gas; it is not asked then, and names no code in its log.
OUT_OF_GAS = -14
#: What a get-method of an account without code ends with, as liteservers say it.
NO_CODE = -256


class Outcome(Value):
    """What a message did: the account afterwards, and the transaction."""

    account: ShardAccount
    executed: Executed


class Refused(Value):
    """The message was not executed: an external one that the contract did not accept, or one without lawful form.

    Attributes:
        exit_code: What the contract ended with before it accepted; None if it was not asked.
    """

    exit_code: int | None


class Answer(Value):
    """What a get-method left: its exit code, and its stack as a cell (``VmStack``)."""

    exit_code: int
    stack: Cell | None


class Executor:
    """Runs messages and get-methods under one configuration."""

    def __init__(self, config: Cell) -> None:
        """``config``: dictionary of all parameters."""
        globalSetVerbosity(_SILENT)
        self._config = _native(config)
        self._emulator = Emulator(VmDict(_CONFIG_KEY_BITS, False, self._config))

    def run(self, account: ShardAccount, message: Cell, at_s: int, lt: int, seed: bytes) -> Outcome | Refused:
        """Execute one message.

        Args:
            lt: Lowest logical time that the transaction may have.
            seed: 32 bytes; what contracts draw random numbers from.
        """
        self._emulator.set_rand_seed(seed.hex().upper())
        try:
            accepted = self._emulator.emulate_transaction(_native(account.cell()), _native(message), at_s, lt)
        except RuntimeError:  # what the binding makes of every C++ error; here: the message has no lawful form
            return Refused(None)
        if not accepted:
            return Refused(_exit_code(self._emulator.emulator.vm_log))
        after = read_shard_account(_own(self._emulator.account.to_cell()))
        return Outcome(after, read_transaction(_own(self._emulator.transaction.to_cell())))

    def query(
        self, holder: Holder, account: Account, method: int, stack: Cell | None, at_s: int, lt: int, seed: bytes
    ) -> Answer:
        """Run a get-method.

        Args:
            stack: Arguments as ``VmStack``, None for none.

        Raises:
            Malformed: the arguments are no stack.
        """
        if account.code is None:
            return Answer(NO_CODE, None)
        code = _native(account.code)
        machine = TVM(code=code, data=_native(account.data) if account.data else None)
        machine.set_c7(C7(
            time=at_s, block_lt=lt, trans_lt=lt, rand_seed=int.from_bytes(seed, "big"),
            balance_grams=account.balance_nanoton, address={"workchain": holder[0], "address": holder[1].hex()},
            global_config=self._config, my_code=code,
        ))
        machine.set_stack(_arguments(stack, method))
        machine.set_gas_limit(DEVNET_METHOD_GAS, DEVNET_METHOD_GAS)
        left = machine.run(unpack_stack=False, allow_non_success=True)
        return Answer(machine.exit_code, _own(left.serialize()))


def _exit_code(log: str) -> int | None:
    """The machine's last word in its log."""
    tail = log[-_LOG_TAIL:]
    if _NO_GAS in tail:
        return OUT_OF_GAS
    found = _EXIT.search(tail)
    return int(found[1]) if found else None


def _arguments(stack: Cell | None, method: int) -> Stack:
    try:
        values = Stack() if stack is None else Stack.deserialize(_native(stack).begin_parse())
    except RuntimeError as error:  # what the binding makes of every C++ exception
        raise Malformed("the arguments are no stack") from error
    values.append(method)
    return values


def _native(cell: Cell) -> NativeCell:
    return NativeCell(base64.b64encode(pack(cell)).decode())


def _own(cell: NativeCell) -> Cell:
    return unpack(base64.b64decode(cell.to_boc()), DEVNET_STATE_CELLS)
