"""``cocoon receipts``: what was signed, and whether it holds.

Purity: shell.
"""

from __future__ import annotations

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, shown
from cocoon.core.units import format_nanoton


@click.group()
def receipts() -> None:
    """List, show and verify the receipts of this peer."""


@receipts.command("ls")
@common
def ls(home: str | None, printer: Printer) -> None:
    """List the receipts, oldest first."""
    from cocoon.sdk import connect

    found = connect(home).receipts()
    for item in found:
        printer.item(item)
    columns = list(dict.fromkeys(key for item in found for key in item))
    if found:
        printer.table(columns, [[shown(item.get(column, "")) for column in columns] for item in found])
    else:
        printer.line("no receipts yet; `cocoon run` makes some")
    printer.summary({"receipts": len(found)})


@receipts.command("show")
@click.argument("receipt", metavar="HASH")
@click.option("--output", metavar="FILE", default=None, help="Write the signed record for `receipts verify`.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common
def show(receipt: str, output: str | None, force: bool, home: str | None, printer: Printer) -> None:
    """Show the receipt HASH with its run lines; it is verified on the way."""
    from cocoon.sdk import connect
    from cocoon.sdk.records import save_record, verify_record

    record = connect(home).record(receipt)
    found = verify_record(record, expected=receipt)
    if output is not None:
        save_record(output, record, overwrite=force)
    printer.fields({key: value for key, value in found.items() if key != "lines"})
    lines = found["lines"]
    printer.table(list(lines[0]), [list(line.values()) for line in lines])
    printer.summary(found)


@receipts.command("verify")
@click.argument("receipts_", metavar="HASH|FILE...", nargs=-1, required=True)
@common
def verify(receipts_: tuple[str, ...], home: str | None, printer: Printer) -> None:
    """Check every signature and hash of receipts, on this machine and offline.

    HASH asks the local peer for the record; FILE was written by `receipts show
    --output` and needs no peer.
    """
    from pathlib import Path

    from cocoon.sdk import connect
    from cocoon.sdk.records import load_record, verify_record

    runs = 0
    for name in receipts_:
        is_hash = len(name) == 64 and not name.strip("0123456789abcdef") and not Path(name).exists()
        record = connect(home).record(name) if is_hash else load_record(name)
        found = verify_record(record, expected=name if is_hash else None)
        runs += found["runs"]
        printer.item({"verified": True} | {key: value for key, value in found.items() if key != "lines"})
        printer.line(
            f"holds: receipt {found['receipt']} of provider {found['provider']}, "
            f"{found['runs']} runs, total {format_nanoton(found['total_nanoton'])}"
        )
    printer.summary({"verified": True, "receipts": len(receipts_), "runs": runs})
