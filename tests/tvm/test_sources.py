"""What is committed fits what it was made from, as far as that shows without node."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from cocoon.core import limits
from cocoon.devnet import faucet_code
from cocoon.ledger import anchor, bytecode, escrow
from cocoon.wire import judged, orders
from cocoon.wire.cells import Cell

MODULES = {"escrow": bytecode, "anchor": bytecode, "faucet": faucet_code}


@pytest.mark.parametrize("name", MODULES)
def test_the_committed_code_is_of_the_committed_source(name: str, root: Path) -> None:
    """A change of a source without `make bytecode` is seen also where there is no compiler."""
    module = MODULES[name]
    source = (root / "contracts" / f"{name}.tolk").read_bytes()
    assert getattr(module, f"{name.upper()}_SOURCE_SHA256") == hashlib.sha256(source).hexdigest()
    code: Cell = getattr(module, f"{name}_code")()
    assert code.hash() == getattr(module, f"{name.upper()}_CODE_HASH")
    assert code.depth() == getattr(module, f"{name.upper()}_CODE_DEPTH")
    assert module.COMPILER == "Tolk 1.1.0"


def constants(text: str) -> dict[str, int]:
    """Numbers of a contract's source."""
    found = {}
    for name, value in re.findall(r"^const (\w+) = ([^;]+);", text, re.MULTILINE):
        ton = re.fullmatch(r'ton\("([\d.]+)"\)', value)
        found[name] = round(float(ton[1]) * 10**9) if ton else int(value, 0)
    return found


def test_peers_and_contracts_agree_in_every_number(root: Path) -> None:
    ours = constants((root / "contracts" / "escrow.tolk").read_text(encoding="utf-8"))
    for name, value in {
        "MAX_LANES": limits.ESCROW_LANES,
        "MAX_GAP": limits.LANE_GAP,
        "MAX_ORDER": escrow.ORDER_LIFE_S,
        "MAX_LIFE": escrow.LANE_LIFE_S,
        "MIN_LANE": escrow.LANE_FLOOR_NANOTON,
        "RESERVE": escrow.RESERVE_NANOTON,
        "RESERVE_LANE": escrow.RESERVE_LANE_NANOTON,
        "RESERVE_EMPTY": escrow.RESERVE_EMPTY_NANOTON,
        "GAS_EXTERNAL": escrow.GAS_EXTERNAL,
        "GAS_LEVEL": escrow.GAS_LEVEL,
        "EXTERNAL_BITS": escrow.EXTERNAL_BITS,
        "EXTERNAL_CELLS": escrow.EXTERNAL_CELLS,
        "TAG_VOUCHER": judged.VOUCHER_TAG,
        "TAG_ORDER": orders.ORDER_TAG,
        "TAG_EXTERNAL_CLAIM": escrow.EXTERNAL_CLAIM_TAG,
        "ORDER_OPEN": orders.OPEN,
        "ORDER_EXPIRE": orders.EXPIRE,
        "ORDER_CLOSE": orders.CLOSE,
        "ORDER_WITHDRAW": orders.WITHDRAW,
        "ORDER_CANCEL": orders.CANCEL,
        "OP_EXTERNAL_CLAIM": escrow.OP_EXTERNAL_CLAIM,
    }.items():
        assert ours[name] == value, name
    for name in ("ORDER", "CLAIM", "EXPIRE_ALL", "WITHDRAW", "PRUNE", "TOP_UP"):
        assert ours["OP_BASE"] + ours[f"OP_{name}"] == getattr(escrow, f"OP_{name}")
    theirs = constants((root / "contracts" / "anchor.tolk").read_text(encoding="utf-8"))
    assert (theirs["RING"], theirs["RESERVE"]) == (anchor.ANCHOR_RING, anchor.RESERVE_NANOTON)
    assert (theirs["OP_ANCHOR"], theirs["OP_PROVE"]) == (anchor.OP_ANCHOR, anchor.OP_PROVE)


@pytest.mark.parametrize("name", ["escrow", "anchor"])
def test_the_specification_has_every_code_and_the_codes_hash(name: str, root: Path) -> None:
    source = (root / "contracts" / f"{name}.tolk").read_text(encoding="utf-8")
    page = (root / "docs" / "spec" / f"{name}.md").read_text(encoding="utf-8")
    codes = {number for key, number in constants(source).items() if key.startswith("E_")}
    rows = {int(code) for code in re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)}
    assert codes <= rows and len(codes) > 4
    assert getattr(MODULES[name], f"{name.upper()}_CODE_HASH").hex() in page


def test_the_node_packages_are_pinned_by_hash_and_name_no_place(root: Path) -> None:
    lock = json.loads((root / "contracts" / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 10
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-") and "resolved" not in entry, name
    wanted = json.loads((root / "contracts" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
