"""``cocoon models``: packages, and what this peer holds, fetches and serves.

Purity: shell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer
from cocoon.core.errors import UsageError
from cocoon.core.units import format_bytes


@click.group()
def models() -> None:
    """Make packages of models, give them to the peer, fetch, list and remove them."""


@models.command("pack")
@click.argument("source", metavar="DIR|FILE")
@click.option("--name", default=None, help="What people call the model.")
@click.option("--version", default=None, help="Of the model, in any form.")
@click.option("--licence", metavar="SPDX", default=None, help="Such as Apache-2.0, or 'MIT OR Apache-2.0'.")
@click.option("--kind", default=None, help="infer, embed, map or generate.")
@click.option("--unit", default=None, help="What is counted: run, item, prompt_token, output_token ...")
@click.option("--main", metavar="PATH", default=None, help="The file that runs, if it is not model.onnx.")
@click.option("--before", metavar="STEP", multiple=True, help="What is done to inputs before the model; repeatable.")
@click.option("--after", metavar="STEP", multiple=True, help="What is done to outputs after the model; repeatable.")
@click.option("--joinable", metavar="PPM NANO", type=click.IntRange(0, (1 << 32) - 1), nargs=2, default=None,
              help="How far a run in a shared batch was from the same run alone: of the value, and in billionths.")
@click.option("--determinism", default=None, help="exact, profile, close or free.")
@click.option("--output", metavar="DIR", default=None,
              help="A new directory for the package; without it DIR itself becomes one.")
@common
def pack(source: str, output: str | None, home: str | None, printer: Printer, **declared: Any) -> None:
    """Make a package of a model file or of a directory with one.

    A worker loads the model first, and says what goes in and out. No peer is needed.
    """
    from cocoon.node.packing import make_package

    if not Path(source).exists():
        raise UsageError(f"there is no file or directory {source!r}")
    told = make_package(Path(source), Path(output) if output else None, declared)
    printer.fields(told)
    printer.summary(told)


@models.command("add")
@click.argument("path", metavar="MODEL")
@click.option("--public", is_flag=True, help="Announce it on the network and serve it to anybody.")
@common
def add(path: str, public: bool, home: str | None, printer: Printer) -> None:
    """Add MODEL, an ONNX file or a package, and print its id."""
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


@models.command("inspect")
@click.argument("model", metavar="MODEL")
@common
def inspect(model: str, home: str | None, printer: Printer) -> None:
    """Show what MODEL (file, package, id or alias) says of itself, and whether the peer holds and serves it."""
    from cocoon.sdk import connect

    answer = connect(home).inspect_model(model)
    printer.summary(answer)
    files = answer.pop("files")
    printer.fields(answer | {side: _ends(answer[side]) for side in ("inputs", "outputs") if side in answer})
    printer.table(["path", "size_bytes", "root"], [[file["path"], file["size_bytes"], file["root"]] for file in files])


def _ends(ends: list[dict[str, Any]]) -> str:
    return "; ".join(f"{end['name']} {end['dtype']} ({', '.join(end['axes'])})" for end in ends)


@models.command("pull")
@click.argument("model", metavar="ID|ALIAS")
@common
def pull(model: str, home: str | None, printer: Printer) -> None:
    """Fetch a public model from the peers that announce it, several at once, and keep it.

    What an earlier pull left is not fetched again.
    """
    from cocoon.sdk import connect

    def hear(event: dict[str, Any]) -> None:
        here, total = format_bytes(event["here_bytes"]), format_bytes(event["total_bytes"])
        printer.progress(f"{here} of {total}, {event['holders']} holders")

    answer = connect(home).pull_model(model, hear)
    printer.end_progress()
    printer.fields(answer)
    printer.summary(answer)


@models.command("rm")
@click.argument("model", metavar="ID|ALIAS")
@common
def rm(model: str, home: str | None, printer: Printer) -> None:
    """Delete a public model from the peer, unless an open lease runs it; and what a broken pull left of it."""
    from cocoon.sdk import connect

    answer = connect(home).remove_model(model)
    printer.fields(answer)
    printer.summary(answer)


@models.command("alias")
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("model", metavar="[ID]", required=False)
@click.option("--remove", is_flag=True, help="Forget NAME.")
@common
def alias(name: str | None, model: str | None, remove: bool, home: str | None, printer: Printer) -> None:
    """Give the model ID a NAME of your own; without arguments, list the names.

    Other peers neither hear of your names nor answer for them.
    """
    from cocoon.sdk import connect

    if (name is not None) != (model is not None or remove) or (model is not None and remove):
        raise UsageError("give NAME and ID, or NAME and --remove, or nothing")
    client = connect(home)
    if name is not None:
        client.alias_model(name, model)
    named = client.aliases()
    for one, of in named.items():
        printer.item({"name": one, "model": of})
    printer.table(["name", "model"], [[one, of] for one, of in named.items()])
    printer.summary({"aliases": len(named)})
