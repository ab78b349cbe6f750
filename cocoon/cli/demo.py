"""``cocoon demo``: the whole market on one machine, shown live.

Purity: shell.
"""

from __future__ import annotations

import click


@click.command()
@click.argument("path", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One object a file; the last one sums up.")
@click.option("--magika", metavar="DIR", default=None, type=click.Path(),
              help="Directory with the model and its two configuration files.")
def demo(path: str | None, as_json: bool, magika: str | None) -> int:
    """Classify the files below PATH (default: examples/filetypes) with the Magika model on a provider.

    Starts a bootstrap, a provider and a requester as processes of their own,
    shows discovery, offer, sealed transfer, results and receipts, and ends them.
    """
    import sys

    from cocoon.demo.main import run_demo

    def out(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    return run_demo(path, as_json=as_json, magika=magika, out=out)
