"""``cocoon models``: what this peer holds and serves.

Purity: shell.
"""

from __future__ import annotations

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer


@click.group()
def models() -> None:
    """Give models to the peer, and list them."""


@models.command("add")
@click.argument("path", metavar="MODEL")
@click.option("--public", is_flag=True, help="Announce it on the network and serve it to anybody.")
@common
def add(path: str, public: bool, home: str | None, printer: Printer) -> None:
    """Add the ONNX file MODEL and print its id."""
    from cocoon.sdk import connect

    answer = connect(home).add_model(path, public)
    printer.fields(answer)
    printer.summary(answer)


@models.command("ls")
@common
def ls(home: str | None, printer: Printer) -> None:
    """List the models that the peer holds."""
    from cocoon.cli.output import shown
    from cocoon.sdk import connect

    found = connect(home).models()
    for model in found:
        printer.item(model)
    columns = list(dict.fromkeys(key for model in found for key in model))
    if found:
        printer.table(columns, [[shown(model.get(column, "")) for column in columns] for model in found])
    else:
        printer.line("the peer holds no models; `cocoon models add MODEL` adds one")
    printer.summary({"models": len(found)})
