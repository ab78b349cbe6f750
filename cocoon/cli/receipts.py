"""``cocoon receipts``: what was signed, and whether it holds.

Purity: shell.
"""

from __future__ import annotations

from typing import Any

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
    printer.fields(_brief(found))
    lines = found["lines"]
    printer.table(list(lines[0]), [list(line.values()) for line in lines])
    printer.summary(found)


@receipts.command("export")
@click.argument("receipt", metavar="HASH")
@click.option("--output", metavar="FILE", default=None, help="Where it goes.  [default: receipt-HASH.cocoon]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common
def export(receipt: str, output: str | None, force: bool, home: str | None, printer: Printer) -> None:
    """Write the receipt HASH into a file that proves itself.

    It holds the signed record and, if this peer anchored it, the path to the
    Merkle root on chain. `receipts verify FILE` needs nothing else.
    """
    from cocoon.sdk import connect
    from cocoon.sdk.records import save_record, verify_export

    data = connect(home).export(receipt)
    found = verify_export(data, expected=receipt)
    target = output or f"receipt-{receipt[:16]}.cocoon"
    save_record(target, data, overwrite=force)
    told = {"file": target, **_brief(found)}
    printer.fields(told)
    printer.summary(told)


@receipts.command("verify")
@click.argument("receipts_", metavar="HASH|FILE...", nargs=-1, required=True)
@click.option("--root", metavar="HEX", default=None, help="Merkle root under which every one of them must be.")
@common
def verify(receipts_: tuple[str, ...], root: str | None, home: str | None, printer: Printer) -> None:
    """Check every signature and hash of receipts, on this machine and offline.

    HASH asks the local peer; FILE was written by `receipts export` or `receipts
    show --output` and needs no peer. Without --root the root of an anchored
    receipt is shown with the account where it can be looked up.
    """
    from pathlib import Path

    from cocoon.sdk import connect
    from cocoon.sdk.records import load_record, verify_export

    runs = 0
    for name in receipts_:
        is_hash = len(name) == 64 and not name.strip("0123456789abcdef") and not Path(name).exists()
        data = connect(home).export(name) if is_hash else load_record(name)
        found = verify_export(data, root, expected=name if is_hash else None)
        runs += found["runs"]
        printer.item({"verified": True, **_brief(found)})
        printer.line(
            f"holds: receipt {found['receipt']} of provider {found['provider']}, "
            f"{found['runs']} runs, total {format_nanoton(found['total_nanoton'])}"
        )
        if found["anchored"]:
            printer.line(f"  under root {found['root']}, number {found['anchor_number']} of anchor {found['anchor']}")
    printer.summary({"verified": True, "receipts": len(receipts_), "runs": runs})


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    """All but the run lines."""
    return {key: value for key, value in found.items() if key != "lines"}
