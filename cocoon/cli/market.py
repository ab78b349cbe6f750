"""``cocoon market``: offers, the calls that this provider heard, the auctions that this requester held.

Purity: shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, brief

#: Of each part, the latest; --json has all.
_ROWS = 20
_OFFER = ("provider", "setup_nanoton", "run_nanoton_per_1000", "reliability_ppm", "seen")
_CALL = ("kind", "model", "units", "bid_nanoton", "nanoton_per_1000", "answer", "outcome", "reason")
_BID = ("provider", "expected_nanoton", "completion_ms")


@click.command()
@common
def market(home: str | None, printer: Printer) -> None:
    """Show offers, the calls that this peer heard as a provider, and the auctions that it held."""
    from cocoon.sdk import connect

    printer.progress("asking providers ...")
    found = connect(home).market()
    printer.end_progress()
    sums = found.pop("sums")
    for part, items in found.items():
        for item in items:
            printer.item({"part": part, **item})
    _offers(found["offers"], printer)
    _calls(found["calls"], sums, printer)
    _auctions(found["auctions"], printer)
    printer.summary({**{part: len(items) for part, items in found.items()}, **sums})


def _offers(offers: list[dict[str, Any]], printer: Printer) -> None:
    printer.line(f"offers: {len(offers)}")
    if offers:
        printer.table(_OFFER, [[brief(offer.get(column, "")) for column in _OFFER] for offer in offers])


def _calls(calls: list[dict[str, Any]], sums: dict[str, Any], printer: Printer) -> None:
    by_count = sorted(sums["declined"].items(), key=lambda item: -item[1])
    declined = ", ".join(f"{count} {code}" for code, count in by_count)
    printer.line()
    printer.line(
        f"calls heard: {sums['heard']}, bid {sums['bid']}, won {sums['won']}, lost {sums['lost']}"
        + (f" (most often: {sums['reason']})" if sums["reason"] else "")
        + (f"; declined: {declined}" if declined else "")
    )
    if calls:
        latest = calls[-_ROWS:]
        printer.table(
            ("age", *_CALL), [[age(call["age_ms"]), *(brief(call[column]) for column in _CALL)] for call in latest]
        )
        _rest(calls, printer)


def _auctions(auctions: list[dict[str, Any]], printer: Printer) -> None:
    printer.line()
    printer.line(f"auctions held: {len(auctions)}")
    if auctions:
        rows = [row for auction in auctions[-_ROWS:] for row in _bids(auction)]
        printer.table(("age", "units", *_BID, "outcome"), rows)
        _rest(auctions, printer)


def _bids(auction: dict[str, Any]) -> Iterator[list[str]]:
    """A row for each bid, then one for each provider that gave none."""
    head = [age(auction["age_ms"]), str(auction["units"])]
    for bid in auction["bids"]:
        yield [*head, *(brief(bid[column]) for column in _BID), "taken" if bid["taken"] else bid["reason"]]
    for missed in auction["missed"]:
        yield [*head, missed["provider"], "-", "-", f"no bid: {missed['code']}"]
    if not auction["bids"] and not auction["missed"]:
        yield [*head, "-", "-", "-", "nobody to call"]


def _rest(items: list[dict[str, Any]], printer: Printer) -> None:
    if len(items) > _ROWS:
        printer.line(f"{len(items) - _ROWS} earlier ones: --json shows them")


def age(age_ms: int) -> str:
    """How long ago, as people say it: ``3 s``, ``5 min``, ``2 h``, ``4 d``."""
    seconds = age_ms // 1_000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
