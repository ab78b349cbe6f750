"""``cocoon up``, ``stop``, ``status``, ``offers`` and ``quote``: the peer of this machine.

Purity: shell.
"""

from __future__ import annotations

from typing import Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, brief, forget_reader
from cocoon.core.imports import uncollected
from cocoon.core.units import format_nanoton

#: What a person compares; --json has the rest of each offer.
_QUOTED = ("provider", "expected_nanoton", "setup_nanoton", "run_nanoton_per_1000", "reliability_ppm", "seen", "misfit")


@click.command()
@click.option("--provide", is_flag=True, help="Sell runs on this machine.")
@click.option("--join", metavar="LINK", default=None, help="Join the network of this cocoon://join/... link.")
@click.option("--role", type=click.Choice(["peer", "bootstrap"]), default="peer", show_default=True,
              help="A bootstrap only helps others to find each other.")
@click.option("--listen", metavar="ADDR", multiple=True,
              help="Address such as /ip4/0.0.0.0/tcp/4001; repeatable.")
@click.option("--name", "--network-name", "name", metavar="NAME", default=None,
              help="Name of the network, when a new one is made.")
@click.option("--attached", is_flag=True, help="End when standard input does: with the program that started this.")
@common
def up(
    provide: bool, join: str | None, role: str, listen: tuple[str, ...], name: str | None, attached: bool,
    home: str | None, printer: Printer,
) -> int:
    """Start a peer and stay until SIGTERM or Ctrl-C.

    Without --join and on a new home this makes a local network, prints its join
    link, and then `ready`.
    """
    with uncollected():
        from cocoon.node.main import run_peer
    from cocoon.sdk.home import checked_home

    overrides = {}
    if listen:
        overrides["listen"] = ",".join(listen)
    if name is not None:
        overrides["network_name"] = name

    def out(text: str) -> None:
        try:
            printer.line(text)
            printer.item(_spoken(text))
        except BrokenPipeError:
            forget_reader()  # a peer goes on when nobody reads its lines any more

    code: int = run_peer(
        checked_home(home), provide=provide, join=join, bootstrap_only=role == "bootstrap", attached=attached,
        overrides=overrides, out=out,
    )
    if code == 0:
        printer.summary({"exit": code})
    return code


def _spoken(text: str) -> dict[str, str]:
    """A line of the peer as an object."""
    if text == "ready":
        return {"event": "ready"}
    at = text.find("cocoon://join/")
    if at >= 0:
        return {"event": "join", "link": text[at:].split()[0]}
    return {"event": "note", "text": text}


@click.command()
@common
def stop(home: str | None, printer: Printer) -> None:
    """Ask the running peer to finish its work and end."""
    from cocoon.sdk import connect

    answer = connect(home).stop()
    printer.line("the peer is stopping")
    printer.summary(answer)


@click.command()
@common
def pause(home: str | None, printer: Printer) -> None:
    """Sell no new lease until `cocoon resume`; what is open goes on."""
    from cocoon.sdk import connect

    answer = connect(home).pause()
    printer.line("paused; open leases go on")
    printer.summary(answer)


@click.command()
@common
def resume(home: str | None, printer: Printer) -> None:
    """Sell again after `cocoon pause`."""
    from cocoon.sdk import connect

    answer = connect(home).pause(False)
    printer.line("selling again")
    printer.summary(answer)


@click.command()
@common
def status(home: str | None, printer: Printer) -> None:
    """Show what the running peer is and does."""
    from cocoon.sdk import connect

    answer = connect(home).status()
    printer.fields(answer)
    printer.summary(answer)


@click.command()
@common
def offers(home: str | None, printer: Printer) -> None:
    """List the offers that the running peer can get now."""
    from cocoon.sdk import connect

    printer.progress("asking providers ...")
    found = connect(home).offers()
    printer.end_progress()
    for offer in found:
        printer.item(offer)
    if found:
        columns = _columns(found)
        printer.table(columns, [[brief(offer.get(column, "")) for column in columns] for offer in found])
    else:
        printer.line("no provider answered; start one with `cocoon up --provide`")
    printer.summary({"offers": len(found)})


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="How many runs.")
@click.option("--tokens", type=click.IntRange(1), default=None,
              help="Most tokens of a run: of an encoder's text, or of a decoder's answer and a quarter of its prompt.")
@common
def quote(model: str, runs: int, tokens: int | None, home: str | None, printer: Printer) -> None:
    """Show what runs of MODEL would cost at each provider; nobody is told of them."""
    from cocoon.sdk import connect

    printer.progress("asking providers ...")
    found = connect(home).quote(model, runs, tokens)
    printer.end_progress()
    quotes = found.pop("quotes")
    for one in quotes:
        printer.item(one)
    if quotes:
        printer.table(list(_QUOTED), [[brief(one[column]) for column in _QUOTED] for one in quotes])
    else:
        printer.line("no provider answered; start one with `cocoon up --provide`")
    ceiling = format_nanoton(found["ceiling_nanoton"])
    printer.line(f"`cocoon run` takes the first that fits; without --max-price it pays at most {ceiling}")
    printer.summary({**found, "quotes": len(quotes)})


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Every key of the rows, in the order of first sight."""
    return list(dict.fromkeys(key for row in rows for key in row))
