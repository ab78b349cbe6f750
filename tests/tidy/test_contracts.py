"""The import contracts of setup.cfg: kept by the tree, complete, and each red when it is broken."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.contracts import DOORS, ROOT, classify, compress, modules, render, replace_block

SECTION = "importlinter:contract:"


def _config(root: Path = ROOT) -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(root / "setup.cfg", encoding="utf-8")
    return config


def _contracts() -> list[str]:
    return [section.removeprefix(SECTION) for section in _config().sections() if section.startswith(SECTION)]


def _option(contract: str, option: str) -> list[str]:
    return _config().get(SECTION + contract, option, fallback="").split()


def _lint(tree: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of import-linter on the packages of ``tree``."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-logo", "--no-cache", "--config", "setup.cfg", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tree_keeps_every_import_contract(root: Path) -> None:
    status, output = _lint(root)
    assert status == 0, output


def test_the_generated_contracts_name_every_module(root: Path) -> None:
    config = (root / "setup.cfg").read_text(encoding="utf-8")
    assert replace_block(config, render(classify(root))) == config, "run `make contracts`"


def test_no_contract_names_a_module_that_is_gone() -> None:
    """import-linter passes a wildcard that matches nothing, and an allowed importer is a door left open."""
    known = set(classify())
    named = {
        name.removesuffix(".**")
        for contract in _contracts()
        for option in (
            "source_modules",
            "forbidden_modules",
            "protected_modules",
            "allowed_importers",
            "modules",
        )
        for name in _option(contract, option)
        if name.split(".")[0] in ("cocoon", "sim")
    }
    layers = {
        part.strip() for line in _option("layers", "layers") for part in line.split("|") if part.strip()
    }
    assert (named | {f"cocoon.{layer.strip('()')}" for layer in layers}) - known == set()


def test_every_named_door_is_used(root: Path) -> None:
    """A door that nobody goes through is an allowance to be taken back."""
    text = {name: path.read_text(encoding="utf-8") for name, path in modules(root)}
    unused = {
        f"{door} does not import {giant}"
        for giant, doors in DOORS.items()
        if any(door in text for door in doors)
        for door in doors
        if not re.search(rf"^\s*(import|from) {giant}\b", text.get(door, ""), re.MULTILINE)
    }
    assert unused == set()


def test_wildcards_stand_for_whole_packages_only() -> None:
    universe = ["a", "a.b", "a.b.c", "a.d", "ab"]
    assert compress({"a.b", "a.b.c"}, universe) == ["a.b", "a.b.**"]
    assert compress({"a.b.c"}, universe) == ["a.b.**"]
    assert compress({"a", "a.b", "a.d"}, universe) == ["a", "a.b", "a.d"]
    assert compress(set(universe), universe) == ["a", "a.**", "ab"]


# --- each contract, broken on purpose --------------------------------------

#: For the contracts that are written by hand: a module, and the import it must not have.
BREACHES = {
    "layers": ("cocoon.core", "cocoon.wire"),
    "siblings": ("cocoon.p2p", "cocoon.privacy"),
    "sdk": ("cocoon.sdk", "cocoon.store"),
    "demo": ("cocoon.demo", "cocoon.core.limits"),
    "no-sim": ("cocoon.cli", "sim"),
    "purity": ("cocoon.core.rng", "time"),
    "pure-shell": ("cocoon.core.rng", "cocoon.identity.service"),
    "sim": ("sim", "cocoon.identity.service"),
    "worker": ("cocoon.node", "onnxruntime"),
}


def _breach(contract: str) -> tuple[str, str]:
    if contract.startswith(("guard-", "door-")):
        return "cocoon.demo", _option(contract, "protected_modules")[0].removesuffix(".**")
    return BREACHES[contract]


def _file(tree: Path, module: str) -> Path:
    path = tree.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def copied(target: Path) -> Path:
    """The product and its contracts in another place."""
    for package in ("cocoon", "sim"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", target)
    return target


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that a test may spoil; each cleans up after itself."""
    return copied(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def spoil(tree: Path) -> Iterator[object]:
    """``spoil(module, line)`` appends a line to a module until the test ends."""
    before: dict[Path, str] = {}

    def append(module: str, line: str) -> None:
        path = _file(tree, module)
        text = path.read_text(encoding="utf-8")
        before.setdefault(path, text)
        path.write_text(f"{text}\n{line}\n", encoding="utf-8")

    yield append
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def reasons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter says of each contract, by its title, where all of them are broken at once."""
    tree = copied(tmp_path_factory.mktemp("broken"))
    for module, forbidden in map(_breach, _contracts()):
        with _file(tree, module).open("a", encoding="utf-8") as file:
            file.write(f"\nimport {forbidden}\n")
    status, output = _lint(tree)
    assert status == 1, output
    # A title stands above a line of as many dashes.
    _, *parts = re.split(r"^(\S.*)\n-+\n", output.split("Broken contracts\n")[1], flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("contract", _contracts())
def test_a_breach_turns_its_contract_red(contract: str, reasons: dict[str, str]) -> None:
    module, forbidden = _breach(contract)
    assert f" {module} -> {forbidden} (l." in reasons[_config().get(SECTION + contract, "name")]


@pytest.mark.parametrize(
    "line",
    [
        "def f() -> None:\n    import time",
        "from datetime import datetime",
        "import os.path",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket",
    ],
)
def test_purity_sees_late_deep_and_typing_imports(line: str, tree: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    spoil("cocoon.core.rng", line)
    status, output = _lint(tree, "--contract", "purity")
    assert status == 1 and "BROKEN" in output, output


def test_purity_sees_an_import_through_another_module(tree: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    """The shell module between must not hide the clock."""
    (tree / "cocoon" / "core" / "between.py").write_text('"""Between."""\nimport time\n', encoding="utf-8")
    spoil("cocoon.core.rng", "from cocoon.core import between")
    status, output = _lint(tree, "--contract", "purity")
    (tree / "cocoon" / "core" / "between.py").unlink()
    assert status == 1 and "cocoon.core.rng -> cocoon.core.between" in output, output


def test_a_package_without_a_layer_turns_the_layers_red(tree: Path) -> None:
    extra = tree / "cocoon" / "extra"
    extra.mkdir()
    (extra / "__init__.py").write_text('"""New."""\n', encoding="utf-8")
    status, output = _lint(tree, "--contract", "layers")
    shutil.rmtree(extra)
    assert status == 1 and "extra" in output, output
