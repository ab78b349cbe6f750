"""A file fits one idea and 500 lines, a function fits a screen, and nobody swallows everything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = 500
FUNCTION_LINES = 70
FOLDERS = ("cocoon", "sim", "tests", "tools", "bench", "examples")

#: Supervisors that may catch everything, as ``module:function``. Each logs a typed record and decides:
#: restart the task or stop the peer. A handler that always ends in a bare ``raise`` needs no entry.
GROUPS = {"ExceptionGroup", "BaseExceptionGroup"}
BORDERS_FILE = Path(__file__).with_name("borders.txt")


def _sources(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def _borders() -> set[str]:
    lines = (line.partition("#")[0].strip() for line in BORDERS_FILE.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def long_functions(source: str) -> list[str]:
    """Functions of more than 70 lines, as ``name: lines``; the docstring counts."""
    return [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]


def broad_handlers(source: str) -> list[tuple[str, int]]:
    """Every place that catches everything and does not raise it again: (function, line)."""
    found: list[tuple[str, int]] = []

    def walk(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = node.name if not function else f"{function}.{node.name}"
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _reraises(node):
            found.append((function, node.lineno))
        if isinstance(node, ast.Call) and _callee(node) == "suppress" and any(map(_is_broad, node.args)):
            found.append((function, node.lineno))
        for child in ast.iter_child_nodes(node):
            walk(child, function)

    walk(ast.parse(source), "")
    return found


def _caught(caught: ast.expr | None) -> set[str]:
    if caught is None:
        return {"BaseException"}
    if isinstance(caught, ast.Tuple):
        return set().union(*map(_caught, caught.elts))
    return {getattr(caught, "id", getattr(caught, "attr", ""))}


def _is_broad(caught: ast.expr | None) -> bool:
    return not _caught(caught).isdisjoint(GROUPS | {"Exception", "BaseException"})


def _reraises(handler: ast.ExceptHandler) -> bool:
    """Ends in a bare ``raise``; or takes only groups apart and raises what it found in them."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and (last.exc is None or _caught(handler.type) <= GROUPS)


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_no_file_is_longer_than_500_lines(root: Path) -> None:
    lengths = {
        str(p.relative_to(root)): len(p.read_text(encoding="utf-8").splitlines())
        for p in _sources(root, *FOLDERS)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_70_lines(root: Path) -> None:
    found = {
        str(p.relative_to(root)): long_functions(p.read_text(encoding="utf-8"))
        for p in _sources(root, *FOLDERS)
    }
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_only_named_supervisors_catch_everything(root: Path) -> None:
    places = {}
    for path in _sources(root, "cocoon", "sim"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for function, line in broad_handlers(path.read_text(encoding="utf-8")):
            places[f"{module}:{function}"] = line
    unnamed = {place: f"line {line}" for place, line in places.items() if place not in _borders()}
    assert unnamed == {}, "catch the error you expect, or name the supervisor in tests/tidy/borders.txt"
    assert _borders() - set(places) == set(), "borders.txt names a supervisor that is gone"


@pytest.mark.parametrize(
    "handler",
    [
        "except:",
        "except Exception:",
        "except BaseException:",
        "except (ValueError, Exception):",
        "except* Exception:",
        "except ExceptionGroup:",
        "except builtins.Exception as e:",
    ],
)
def test_each_broad_handler_is_seen(handler: str) -> None:
    assert broad_handlers(f"def f():\n    try:\n        g()\n    {handler}\n        pass\n") == [("f", 4)]


def test_broad_suppress_is_seen_and_a_bare_reraise_is_not() -> None:
    assert broad_handlers("with contextlib.suppress(Exception):\n    g()\n") == [("", 1)]
    assert broad_handlers("try:\n    g()\nexcept BaseException:\n    h()\n    raise\n") == []
    assert broad_handlers("try:\n    g()\nexcept ExceptionGroup as e:\n    raise cause(e)\n") == []
    assert broad_handlers("try:\n    g()\nexcept Exception as e:\n    raise Typed(e)\n") == [("", 3)]
    assert broad_handlers("try:\n    g()\nexcept ValueError:\n    pass\n") == []


def test_a_long_function_is_seen() -> None:
    assert long_functions("def f():\n" + "    x = 1\n" * 70) == ["f: 71 lines"]
    assert long_functions("def f():\n" + "    x = 1\n" * 69) == []
