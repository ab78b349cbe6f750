"""The contracts recompiled, and the recorded story in a second TVM (``make crosscheck``; needs node).

Without the tools of ``make crosscheck`` these are skipped: users and most changes never need them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.tvm.chain import GAS_PRICE, Step, config
from tests.tvm.story import as_input, tell
from tests.tvm.test_recorded import RECORDED
from tools import bytecode

pytestmark = pytest.mark.skipif(
    "COCOON_CROSSCHECK" not in os.environ, reason="needs node; `make crosscheck` installs it and runs this"
)


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """The story as the first TVM told it."""
    return tell()


def replay(config_base64: str, steps: list[Step], root: Path) -> list[dict[str, str | int | None]]:
    """Hashes of each step in the second TVM; of a refused one what the code ended with."""
    done = subprocess.run(
        [bytecode.NODE, root / "contracts" / "replay.mjs", bytecode.MODULES],
        input=json.dumps(as_input(config_base64, steps)),
        capture_output=True, text=True, timeout=200, check=True,
    )
    found: list[dict[str, str | int | None]] = json.loads(done.stdout)
    return found


def test_both_tvms_make_the_same_transactions_and_accounts(steps: list[Step], root: Path) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    found = replay(config(), steps, root)
    for step, theirs in zip(recorded, found, strict=True):
        assert (theirs["transaction"], theirs["account"]) == (step["transaction"], step["account"]), step["label"]
        if not step["transaction"]:  # else the exit code is in the transaction
            assert theirs["exit_code"] == step["exit_code"], step["label"]
    assert sum(bool(step["transaction"]) for step in found) >= 40
    assert {step["exit_code"] for step in found if not step["transaction"]} >= {7, 102, 103, 120, 121}


def test_a_flipped_price_makes_the_comparison_fail(steps: list[Step], root: Path) -> None:
    """One nanoton per gas more: every transaction that ran code has another hash."""
    found = replay(config(GAS_PRICE + 1), steps, root)
    differ = sum(step.transaction != theirs["transaction"] for step, theirs in zip(steps, found, strict=True))
    assert differ >= 40


@pytest.mark.parametrize("path", bytecode.TARGETS, ids=lambda path: path.stem)
def test_recompiling_gives_the_committed_code(path: Path) -> None:
    made = bytecode.compile_all()
    assert bytecode.render(made, *bytecode.TARGETS[path]) == path.read_text(encoding="utf-8"), "run `make bytecode`"
