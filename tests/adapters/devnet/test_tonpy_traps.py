"""What tonpy does that one would not expect; when one of these fails the library has changed."""

from __future__ import annotations

import resource
import subprocess
import sys

from cocoon.devnet.cells import Builder, Cell
from cocoon.devnet.configuration import configuration
from cocoon.devnet.executor import OUT_OF_GAS, Executor
from cocoon.devnet.faucet import faucet
from cocoon.devnet.formats import ShardAccount, active_account, read_account

BORN_S = 1_790_000_000
HOLDER, ACCOUNT = faucet(BORN_S)


def imports(*names: str) -> int:
    """Exit code of an interpreter that imports these in this order."""

    def no_core() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    statement = "; ".join(f"import {name}" for name in names)
    ended = subprocess.run([sys.executable, "-c", statement], capture_output=True, check=False, preexec_fn=no_core)
    return ended.returncode


def test_tonpy_before_onnxruntime_crashes_the_interpreter_and_the_other_order_does_not():
    assert imports("onnxruntime", "tonpy.tvm") == 0
    assert imports("tonpy.tvm", "onnxruntime") < 0


def test_arguments_that_are_no_stack_are_taken_for_none_without_a_word():
    executor = Executor(configuration(bytes(16)))
    answer = executor.query(HOLDER, read_account(ACCOUNT), 85143, Cell(5, 24), BORN_S, 1, bytes(32))
    assert answer.exit_code == 11


def test_nothing_is_said_on_standard_error_about_a_bad_message(capfd):
    executor = Executor(configuration(bytes(16)))
    broken = Builder().uint(0b1000, 4).address(*HOLDER).coins(0).uint(0b10, 2).uint(31, 5).end()
    account = ShardAccount(ACCOUNT, bytes(32), 0)
    refused = executor.run(account, broken, BORN_S, 10**13, bytes(32))
    assert refused.exit_code is None
    assert capfd.readouterr().err == ""


def test_an_account_that_cannot_pay_for_gas_refuses_with_the_machines_code():
    """The machine's log names no exit code then; liteservers say -14."""
    executor = Executor(configuration(bytes(16)))
    faucet_now = read_account(ACCOUNT)
    just_above_import = 500_000  # of which the import of the message takes 400,000
    poor = active_account(HOLDER, just_above_import, faucet_now.code, faucet_now.data, BORN_S)
    message = Builder().uint(0b1000, 4).address(*HOLDER).coins(0).uint(0, 2).end()
    refused = executor.run(ShardAccount(poor, bytes(32), 0), message, BORN_S, 10**13, bytes(32))
    assert refused.exit_code == OUT_OF_GAS
