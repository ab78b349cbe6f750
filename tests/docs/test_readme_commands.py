"""Every command in the README and the guides exists, with the options it is shown with."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import cocoon
from cocoon.cli.main import cocoon as tree
from cocoon.sdk import Client, npz
from tests.docs.pages import blocks, pages, prose

ROOT = Path(__file__).resolve().parents[2]
#: Pages that people type from; the rest of the pages is held by the looser test of their inline commands.
TYPED = [page for page in pages(ROOT) if page.parent.name in (ROOT.name, "guides")]
COMMON = {"--help", "-h"}


def lines(page: Path) -> Iterator[str]:
    """Each command line of the page's shell blocks, without comments."""
    for language, text in blocks(page):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield line


def words_of(line: str) -> list[str]:
    """The words of a command behind its assignments; ``.venv/bin/cocoon`` is ``cocoon``."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    for end, word in enumerate(words):
        if word in (">", ">>", "|", "&&"):
            words = words[:end]
            break
    if words[:3] == [".venv/bin/python", "-m", "cocoon"]:
        words = words[2:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []


def parse(words: list[str]) -> None:
    """Read the words as the command line does, options, types and required ones; nothing is run."""
    command: click.Command = tree
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        inner = command.commands.get(name)
        assert inner is not None, f"there is no command {name!r}"
        command = inner
    if isinstance(command, click.Group) and set(words) & {"--version", *COMMON}:
        return
    needs = isinstance(command, click.Group) and not command.invoke_without_command
    assert not needs, f"{command.name} needs a subcommand"
    if not set(words) & COMMON:
        command.make_context(command.name or "", list(words)).close()


def targets() -> tuple[set[str], set[str]]:
    """Phony targets of the Makefile, and the variables that a user may set."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    rules = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    return set(phony[1].split()) & rules, set(re.findall(r"^([A-Z]+) \?=", text, re.MULTILINE))


def check_make(words: list[str]) -> None:
    """Targets and variables exist."""
    known, variables = targets()
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (variables if is_variable else known), f"make knows no {word!r}"


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_line_of_a_shell_block_could_be_typed(page: Path) -> None:
    for line in lines(page):
        match words_of(line):
            case ["cocoon", *rest]:
                parse(rest)
            case ["make", *rest]:
                check_make(rest)
            case ["python", "-c", code]:
                compile(code, str(page), "exec")
            case ["python", "-m", "pytest", *rest]:
                assert all((ROOT / word).exists() for word in rest if "/" in word)
            case ["export" | "cd", *_]:
                pass
            case other:
                pytest.fail(f"{page.name}: nobody knows whether {other} works")


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_running_text_exists_with_its_options(page: Path) -> None:
    for ticked in re.findall(r"`((?:cocoon|make) [^`\n]+)`", prose(page)):
        words = re.sub(r"[\[\]]|\.\.\.", " ", ticked).split()
        if words[0] == "make":
            check_make([word for word in words[1:] if not word.isupper()])
            continue
        command: click.Command = tree
        for word in words[1:]:
            if word.startswith("-"):
                known = {name for p in command.params for name in p.opts} | COMMON | {"--version"}
                assert word.rstrip(",") in known, f"{page.name}: {ticked!r}: no option {word}"
            elif isinstance(command, click.Group) and not word.isupper():
                assert word in command.commands, f"{page.name}: {ticked!r}: no command {word}"
                command = command.commands[word]


def test_the_reference_of_the_command_line_shows_every_command_and_option() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    missing = []
    for path, command in commands(tree, ()):
        own = {name for p in command.params if isinstance(p, click.Option) for name in p.opts}
        missing += [f"{' '.join(path)} {name}" for name in own if f"`{name}" not in text]
        if path and path[0] not in text:
            missing.append(path[0])
    assert missing == []


def commands(group: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below ``group`` that does something."""
    if isinstance(group, click.Group):
        for name, inner in group.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path, group


def test_a_wrong_command_is_seen() -> None:
    """The checks above refuse what does not exist."""
    for line in ("cocoon fly", "cocoon run m.onnx", "cocoon up --fast", "cocoon receipts", "cocoon up --role king"):
        with pytest.raises((AssertionError, click.ClickException)):
            parse(words_of(line)[1:])
    for line in ("make money", "make demo SPEED=9"):
        with pytest.raises(AssertionError):
            check_make(words_of(line)[1:])
    assert words_of("A=b .venv/bin/cocoon demo --json x > y  # why") == ["cocoon", "demo", "--json", "x"]


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_use_names_and_arguments_that_exist(page: Path) -> None:
    for language, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "client":
                    assert hasattr(Client, node.attr), node.attr
                if node.value.id == "cocoon":
                    assert node.attr in cocoon.__all__ or node.attr in ("sdk", "core"), node.attr
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "client":
                    known = inspect.signature(getattr(Client, node.func.attr)).parameters
                    assert all(keyword.arg in known for keyword in node.keywords), ast.unparse(node)


def test_names_of_the_client_library_in_the_guides_exist() -> None:
    assert callable(npz.save) and callable(npz.load)
    import cocoon.core.errors
    import cocoon.sdk

    for page in TYPED:
        for dotted in re.findall(r"`(cocoon(?:\.\w+)+)`", prose(page)):
            _, *names = dotted.split(".")
            found: object = cocoon
            for name in names:
                found = getattr(found, name)
