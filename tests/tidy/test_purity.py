"""What import-linter cannot see of purity: names inside foreign packages, dynamic imports, built-in IO."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.contracts import FORBIDDEN_DEEPER, FORBIDDEN_IN_PURE, classify, modules

#: Built-ins that do IO, run text as code, or open a way round an import contract.
FORBIDDEN_NAMES = {
    "open",
    "eval",
    "exec",
    "compile",
    "__import__",
    "__builtins__",
    "__loader__",
    "__spec__",
    "breakpoint",
    "globals",
}
#: The same, unless the module gives the name a meaning of its own (a parameter called ``input``).
FORBIDDEN_UNLESS_BOUND = {"input", "print", "vars", "locals"}


def impurities(source: str) -> Iterator[str]:
    """Every forbidden thing that a pure module's source does, as ``line N: what``."""
    tree = ast.parse(source)
    forbidden = FORBIDDEN_NAMES | (FORBIDDEN_UNLESS_BOUND - _bound(tree))
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.partition(".")[0] in FORBIDDEN_IN_PURE or _within(name, FORBIDDEN_DEEPER):
                yield f"line {getattr(node, 'lineno', 0)}: imports {name}"
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in forbidden:
            yield f"line {node.lineno}: uses {node.id}"
        if isinstance(node, ast.Attribute) and node.attr in {"__builtins__", "__subclasses__", "__globals__"}:
            yield f"line {node.lineno}: uses .{node.attr}"


def _bound(tree: ast.Module) -> set[str]:
    nodes = list(ast.walk(tree))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.arg for n in nodes if isinstance(n, ast.arg)}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_every_module_says_whether_it_is_pure_or_shell() -> None:
    assert [name for name, kind in classify().items() if kind == "unsaid"] == []


def test_no_pure_module_does_io_or_imports_dynamically() -> None:
    kinds = classify()
    found = [
        f"{name}: {what}"
        for name, path in modules()
        if kinds[name] == "pure" and name not in EXEMPT
        for what in impurities(path.read_text(encoding="utf-8"))
    ]
    assert found == []


#: ``all_errors`` walks the classes of its own module.
EXEMPT = {"cocoon.core.errors"}


@pytest.mark.parametrize(
    "line",
    [
        "open('x')",
        "eval('1')",
        "exec('1')",
        "__import__('time')",
        "print('x')",
        "f = open",
        "compile('1', '', 'eval')",
        "import datetime",
        "import secrets",
        "import uuid",
        "import subprocess",
        "import logging",
        "import importlib",
        "from pathlib import Path",
        "import nacl.utils",
        "from nacl import utils",
        "from nacl.utils import random",
        "import os.path",
        "__builtins__['open']",
        "().__class__.__base__.__subclasses__()",
        "import builtins",
        "def f():\n    import time",
        "import sys",
    ],
)
def test_each_forbidden_thing_is_seen(line: str) -> None:
    assert list(impurities(line))


@pytest.mark.parametrize(
    "line",
    [
        "import hashlib",
        "def f(input): return input",
        "class Door:\n    open: bool",
        "from nacl.signing import VerifyKey",
        "import numpy",
        "import struct",
    ],
)
def test_allowed_things_pass(line: str) -> None:
    assert not list(impurities(line))


def test_an_unsaid_module_is_noticed(tmp_path: Path) -> None:
    for package in ("cocoon", "sim"):
        (tmp_path / package).mkdir()
    (tmp_path / "cocoon/silent.py").write_text('"""Says nothing."""\nX = 1\n')
    (tmp_path / "cocoon/empty.py").write_text('"""A docstring only is pure by nature."""\n')
    (tmp_path / "cocoon/loud.py").write_text('"""Loud.\n\nPurity: shell (why).\n"""\nX = 1\n')
    assert classify(tmp_path) == {"cocoon.empty": "pure", "cocoon.loud": "shell", "cocoon.silent": "unsaid"}
