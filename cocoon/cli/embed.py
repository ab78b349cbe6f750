"""``cocoon embed``: vectors of texts, and how alike they are.

Purity: shell.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, printable
from cocoon.core import limits
from cocoon.core.errors import NotFound, UsageError
from cocoon.core.units import format_nanoton

if TYPE_CHECKING:
    from cocoon.sdk.embedding import Vector

#: More rows than that nobody compares by eye.
_COMPARED = 20
_PREVIEW_CHARS = 60


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--lines", metavar="FILE", default=None,
              help="UTF-8; each line that is not empty is a text, behind those named.")
@click.option("--output", metavar="NPZ", default=None, help="Where the vectors go: `vectors`, float32 (texts, width).")
@click.option("--force", is_flag=True, help="Replace an existing output file.")
@click.option("--max-price", "max_price_nanoton", metavar="NANOTON", type=click.IntRange(0, (1 << 64) - 1),
              default=None, help="The most that all texts together may cost.  [default: as for run]")
@click.option("--deadline", "deadline_s", metavar="SECONDS", type=float, default=None,
              help="Give it up after this.  [default: 600]")
@click.option("--spread", metavar="COUNT", type=click.IntRange(1, limits.PROVIDERS_ASKED), default=None,
              help="Most providers that work on it at a time.  [default: as for run]")
@common
def embed(
    model: str, texts: tuple[str, ...], lines: str | None, output: str | None, force: bool,
    max_price_nanoton: int | None, deadline_s: float | None, spread: int | None, home: str | None, printer: Printer,
) -> None:
    """Have MODEL (a package of an encoder, or the id or alias of one that is held here) make a vector of each TEXT.

    Without --output it is only shown how alike they are to the first: 1 is the same
    direction. With --json each vector is told.
    """
    import numpy as np

    from cocoon.sdk import connect, npz

    given = [*texts, *(_lines(lines) if lines is not None else ())]
    if not given:
        raise UsageError("name a TEXT, or a file of them with --lines")
    target = Path(output) if output is not None else None
    if target is not None and target.exists() and not force:
        raise UsageError(f"{output!r} exists; add --force to replace it")
    told = _Told(printer)
    options: dict[str, Any] = {"max_price_nanoton": max_price_nanoton, "spread": spread, "on_event": told.event}
    if deadline_s is not None:
        options["deadline_s"] = deadline_s
    made: list[Vector] = []
    for vector in connect(home).embed(model, given, **options):
        made.append(vector)
        printer.item({
            "text": len(made) - 1, "tokens": vector.tokens, "is_cut": vector.is_cut,
            "price_nanoton": vector.result.price_nanoton, "vector": vector.values.tolist(),
        })
    matrix = np.stack([vector.values for vector in made])
    if target is not None:
        npz.save(target, {"vectors": matrix}, overwrite=force)
    elif len(made) > 1:
        _compare(printer, given, matrix)
    tokens, price_nanoton = sum(v.tokens for v in made), sum(v.result.price_nanoton for v in made)
    if cut := sum(vector.is_cut for vector in made):
        printer.note(f"{cut} texts are longer than this encoder reads; their ends have no part in the vectors")
    printer.note(f"{len(made)} vectors of {matrix.shape[1]} numbers, {tokens} tokens, {format_nanoton(price_nanoton)}")
    printer.summary({
        "texts": len(made), "width": matrix.shape[1], "tokens": tokens, "cut": cut, "price_nanoton": price_nanoton,
        "output": output,
    })


def _lines(file: str) -> list[str]:
    try:
        return [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise NotFound(f"there is no file {file!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file!r} is no UTF-8 text that can be read: {error}"[:200]) from None


def _compare(printer: Printer, texts: list[str], matrix: Any) -> None:
    """The cosine of each vector with the first."""
    lengths = (matrix**2).sum(axis=1) ** 0.5
    cosines = matrix @ matrix[0] / (lengths * lengths[0]).clip(min=1e-30)
    rows = [[f"{cosine:.3f}", printable(text)[:_PREVIEW_CHARS]] for cosine, text in zip(cosines, texts, strict=True)]
    printer.table(["likeness", "text"], rows[:_COMPARED])


class _Told:
    """Says what is waited for."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def event(self, event: dict[str, Any]) -> None:
        """Say the licence before anything is paid."""
        if event["event"] == "licence":
            self._printer.note(f"licence: {event.get('licence')}")
        if event["event"] == "discovering":
            self._printer.progress("looking for providers ...")
