"""Every error has one code, is documented, and is declared in one place."""

from __future__ import annotations

import ast
from pathlib import Path

from cocoon.core import errors
from tools import errors_reference
from tools.contracts import modules


def _declared() -> list[type[errors.CocoonError]]:
    return [cls for cls in errors.all_errors() if cls.__module__ in errors_reference.PLACES]


def test_the_reference_lists_every_error_with_exit_code_and_remedy(root: Path) -> None:
    written = (root / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert written == errors_reference.render(), "run `make docs`"
    exported = {cls for cls in _declared() if cls.__module__.startswith(errors.__name__)}
    named = {cls.__name__ for cls in exported if errors.WrongField not in cls.__bases__}
    assert len(named) > 50 and named <= set(errors.__all__)
    for cls in _declared():
        assert f"`{cls.code}`" in written
        assert cls.remedy


def test_no_two_errors_share_a_code() -> None:
    codes = [cls.code for cls in _declared()]
    assert sorted(codes) == sorted(set(codes))


def test_exit_codes_tell_errors_from_success_signals_and_shells() -> None:
    assert all(0 < cls.exit_code < 126 for cls in _declared())


def test_each_exit_code_stands_for_one_error_of_its_own() -> None:
    own = [(cls.exit_code, cls.code) for cls in _declared() if "exit_code" in vars(cls)]
    assert len({exit_code for exit_code, _ in own}) == len(own), sorted(own)


def test_codes_are_declared_where_the_reference_looks_for_them() -> None:
    """A subclass elsewhere may refine a type, not invent a code that no table knows."""
    found = []
    for name, path in modules():
        if name in errors_reference.PLACES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and _is_error(node) and _sets_code(node):
                found.append(f"{name}.{node.name}")
    assert found == []


def _is_error(node: ast.ClassDef) -> bool:
    known = {cls.__name__ for cls in _declared()}
    return any(getattr(base, "id", getattr(base, "attr", "")) in known for base in node.bases)


def _sets_code(node: ast.ClassDef) -> bool:
    targets = [t for n in node.body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
    return any(getattr(t, "id", "") in {"code", "exit_code"} for t in targets)
