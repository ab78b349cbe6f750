"""docs/reference/cli.md names every command and every option, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from cocoon.cli.main import BROKEN_PIPE, INTERRUPTED, cocoon


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below ``group`` with its full name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_the_reference_has_every_command_and_option(root: Path) -> None:
    text = (root / "docs/reference/cli.md").read_text(encoding="utf-8")
    known = {"--help", "--json", "--home"}
    for name, command in commands(cocoon):
        group, _, last = name.rpartition(" ")
        assert re.search(rf"`cocoon {group or last}[ `]", text), name
        assert re.search(rf"[` ]{last}[` ]", text), name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                known |= set(parameter.opts)
                assert all(option in text for option in parameter.opts), (name, parameter.opts)
    assert set(re.findall(r"--[a-z][a-z-]*", text)) == known


def test_the_reference_has_the_codes_that_are_no_errors(root: Path) -> None:
    text = (root / "docs/reference/cli.md").read_text(encoding="utf-8")
    for code in (0, 1, 2, INTERRUPTED, BROKEN_PIPE):
        assert f"\n| {code} |" in text


def test_every_command_has_help_and_json() -> None:
    for name, command in commands(cocoon):
        assert command.help, name
        assert any("--json" in parameter.opts for parameter in command.params), name
