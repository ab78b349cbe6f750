"""``cocoon devnet``: a TON chain of one's own on this machine.

Purity: shell. Spec: docs/spec/devnet.md.
"""

from __future__ import annotations

import json

import click

from cocoon.cli.options import common
from cocoon.cli.output import Printer, forget_reader
from cocoon.core.imports import uncollected
from cocoon.core.limits import DEVNET_CLOCK_OFFSET_S_MAX


@click.command()
@click.option("--state", metavar="DIR", default=None, help="Directory of the chain [default: HOME/devnet].")
@click.option("--listen", metavar="IP:PORT", default="127.0.0.1:0", show_default=True,
              help="Address for clients; port 0 takes the port of the last start.")
@click.option("--block-ms", type=int, default=500, show_default=True, help="Milliseconds between two blocks.")
@click.option("--gas-price", type=int, default=None, metavar="NANOTON",
              help="Price of a gas on a new chain; forward prices follow.  [default: 400]")
@click.option("--with-parent", type=int, default=None, hidden=True)
@click.option("--clock-offset-s", type=click.IntRange(0, DEVNET_CLOCK_OFFSET_S_MAX), default=0, metavar="S",
              help="Run the chain's clock this far ahead.")
@common
def devnet(
    state: str | None, listen: str, block_ms: int, gas_price: int | None, with_parent: int | None,
    clock_offset_s: int, home: str | None, printer: Printer,
) -> int:
    """Run a TON chain on this machine until SIGTERM or Ctrl-C.

    Prints one JSON object (genesis, liteserver, faucet), then `ready`. Killed
    and started again it goes on where it was.
    """
    from pathlib import Path

    from cocoon.core.errors import UsageError
    from cocoon.core.units import MILLISECOND_NS
    from cocoon.sdk.home import checked_home

    host, port = _address(listen)
    try:
        with uncollected():
            from cocoon.devnet.command import run_until_signal
            from cocoon.devnet.service import Announcement, Settings, wall_clock_s
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tonpy":
            raise
        raise UsageError(
            "TON's virtual machine (tonpy) is not installed; a devnet needs Linux on x86-64, other machines join one"
        ) from error

    folder = Path(state) if state is not None else checked_home(home) / "devnet"

    def ready(announcement: Announcement) -> None:
        try:
            click.echo(json.dumps(announcement.as_json()))
            click.echo("ready")
        except BrokenPipeError:
            forget_reader()  # a chain goes on when nobody reads its lines any more

    settings = Settings(
        folder, host, port, block_ms * MILLISECOND_NS, gas_price, lambda: wall_clock_s() + clock_offset_s
    )
    run_until_signal(settings, ready, with_parent)
    return 0


def _address(text: str) -> tuple[str, int]:
    """Host and port; only an IPv4 address in its one spelling, for so it stands in network files and links (NET-7)."""
    import ipaddress
    import re

    host, _, port = text.rpartition(":")
    try:
        canonical = str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        canonical = False
    if not canonical or re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) is None or int(port) > 65_535:
        raise click.UsageError(f"--listen {text} is no IP:PORT with an IPv4 address, such as 127.0.0.1:0")
    return host, int(port)
