"""``cocoon wallet``, ``earnings`` and ``ledger``: money, as the peer of this machine sees it.

Purity: shell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, brief, shown
from cocoon.core.units import NANOTON_PER_TON, format_nanoton

_FUND_NANOTON = 10 * NANOTON_PER_TON
_SOLD = ("units", "earned_nanoton", "receipts")
#: More than 24 words of eight letters, with any white space between.
_WORDS_CHARS = 1_024


@click.group(invoke_without_command=True)
@click.pass_context
@common
def wallet(context: click.Context, home: str | None, printer: Printer) -> None:
    """Show the wallet, the escrow and its lanes."""
    if context.invoked_subcommand is not None:
        return
    from cocoon.sdk import connect

    found = connect(home).wallet()
    lanes = found.pop("lanes")
    printer.fields(told(found))
    for lane in lanes:
        printer.item(lane)
    if lanes:
        columns = list(lanes[0])
        printer.table(columns, [[shown(lane[column]) for column in columns] for lane in lanes])
    printer.summary({**found, "lanes": len(lanes)})


@wallet.command("fund")
@click.argument("amount_nanoton", metavar="[NANOTON]", type=click.IntRange(1), default=_FUND_NANOTON)
@common
def fund(amount_nanoton: int, home: str | None, printer: Printer) -> None:
    """Get coins from the faucet of a devnet; 10 whole ones if no amount is given."""
    from cocoon.sdk import connect

    answer = connect(home).fund(amount_nanoton)
    printer.fields(told(answer))
    printer.summary(answer)


@wallet.command("settle")
@common
def settle(home: str | None, printer: Printer) -> None:
    """Close the books: give leases back, close lanes, claim what is due, anchor receipts."""
    from cocoon.sdk import connect

    printer.progress("waiting for the chain ...")
    answer = connect(home).settle()
    printer.end_progress()
    printer.fields(told(answer))
    printer.summary(answer)


@wallet.command("words")
@click.option("--show", is_flag=True, help="Really show them; whoever reads them has the money.")
@common
def words(show: bool, home: str | None, printer: Printer) -> None:
    """Show the 24 words from which everything in the wallet can be recovered."""
    from cocoon.node.wallet import wallet_words
    from cocoon.sdk.home import checked_home

    if not show:
        raise click.UsageError("add --show if nobody looks over your shoulder")
    found = wallet_words(checked_home(home))
    printer.line(found)
    printer.summary({"words": found})


@wallet.command("restore")
@common
def restore(home: str | None, printer: Printer) -> None:
    """Give a new home the wallet of 24 words, read from standard input.

    Then `cocoon up --join LINK` and `cocoon wallet recover` bring back what
    lies in its escrow.
    """
    from cocoon.node.wallet import restore_words
    from cocoon.sdk.home import checked_home

    # Not an argument, which every user of the machine could read.
    text = click.prompt("24 words", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read(_WORDS_CHARS)
    restore_words(checked_home(home), text)
    printer.line("the wallet is restored; start the peer with `cocoon up`")
    printer.summary({"restored": True})


@wallet.command("recover")
@common
def recover(home: str | None, printer: Printer) -> None:
    """Bring the coins of the escrow back to the wallet; needs nothing but the words.

    What is locked for providers can be recovered after the close delay, when
    they have claimed what they are owed: call it again then.
    """
    from cocoon.sdk import connect

    printer.progress("waiting for the chain ...")
    answer = connect(home).recover()
    printer.end_progress()
    printer.fields(told(answer))
    printer.summary(answer)


@click.command()
@click.option("--by", type=click.Choice(["model", "day"]), default=None, help="Also tell it apart by model, or by day.")
@click.option("--ask", "ask_nanoton", metavar="NANOTON", type=click.IntRange(0, (1 << 64) - 1), default=None,
              help="Also tell what this price of 1,000 runs would have changed in the calls of the last day.")
@common
def earnings(
    by: Literal["model", "day"] | None, ask_nanoton: int | None, home: str | None, printer: Printer
) -> None:
    """Show what this provider earned: promised, claimed, pending, and what that cost."""
    from cocoon.sdk import connect

    found = connect(home).earnings(by, ask_nanoton)
    lanes, groups, hindsight = found.pop("lanes"), found.pop("groups", []), found.pop("what_if", None)
    printer.fields(told(found))
    for item in (*lanes, *groups):
        printer.item(item)
    if groups:
        columns = (by or "", *_SOLD)
        printer.table(columns, [[brief(group[column]) for column in columns] for group in groups])
    summary = {**found, "lanes": len(lanes)}
    if by is not None:
        summary["groups"] = len(groups)
    if hindsight is not None:
        for line in in_hindsight(hindsight):
            printer.line(line)
        summary["what_if"] = hindsight
    printer.summary(summary)


def in_hindsight(found: dict[str, Any]) -> Iterator[str]:
    """What another ask would have changed, in sentences that claim no more than is known."""
    coins = {name: format_nanoton(value) for name, value in found.items() if name.endswith("_nanoton")}
    yield f"if 1,000 runs had been bid at {coins['ask_nanoton']} in the {found['bid']} remembered bids of the last day:"
    yield f"  {found['lost_dearer']} were lost and dearer than the taken bid; of these"
    for name, text in (("lower_band", "in a lower band, or no dearer"), ("no_dearer", "no dearer than the taken one")):
        yield f"    {text}: at least {found[name + '_at_least']}, at most {found[name + '_at_most']}"
    yield (
        f"    won, unless a newcomer was tried: at least {found['won_at_least']}, "
        f"worth {coins['gained_at_least_nanoton']}"
    )
    yield (
        f"  the {found['won']} that were won: at most {coins['won_at_ask_nanoton']} for all their units, "
        f"instead of {coins['won_nanoton']}"
    )


@click.group()
def ledger() -> None:
    """Compare this peer's journal with the chain."""


@ledger.command("audit")
@common
def audit(home: str | None, printer: Printer) -> int:
    """Check every balance, lane and receipt against the chain, to the nanoton."""
    from cocoon.core.errors import AuditFailed
    from cocoon.sdk import connect

    found = connect(home).audit()
    for one in found["differences"]:
        printer.item(one)
        printer.line(
            f"{one['code']}: {one['subject']}: expected {one['expected_nanoton']}, "
            f"found {one['found_nanoton']} nanoton; {one['text']}"
        )
    if found["clean"]:
        printer.line(f"clean: {found['lanes_bought']} lanes bought, {found['lanes_sold']} sold")
    count = len(found["differences"])
    failure = None if found["clean"] else AuditFailed(f"journal and chain disagree in {count} places")
    return printer.end(found, failure)


@ledger.command("supply")
@common
def supply(home: str | None, printer: Printer) -> int:
    """Add up a devnet's whole chain: what was there at genesis is on accounts or was paid as fees."""
    from cocoon.core.errors import AuditFailed
    from cocoon.sdk import connect

    printer.progress("reading every block ...")
    found = connect(home).supply()
    printer.end_progress()
    printer.fields(told(found))
    failure = None if found["conserved"] else AuditFailed("the chain's balances and fees are not its genesis supply")
    return printer.end(found, failure)


def told(values: dict[str, Any]) -> dict[str, Any]:
    """Amounts in whole coins beside nanoton, for people."""
    return {
        name: f"{value} ({format_nanoton(value)})" if name.endswith("_nanoton") else value
        for name, value in values.items()
    }
