"""Options that every command has.

Purity: shell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--home`` and ``--json``; the body gets ``home: str | None`` and a ``Printer``."""

    @click.option("--home", metavar="DIR", default=None, help="State directory instead of COCOON_HOME.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the last one sums up.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **options: Any) -> Any:
        from cocoon.cli.output import Printer

        return command(*args, printer=Printer(as_json), **options)

    return wrapped
