"""Start a peer: settings, lock, network, keys, log, loop.

Purity: shell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import trio

from cocoon.config.network import NetworkFile, check_same, parse_link, to_toml
from cocoon.config.service import NETWORK_FILE, load, read_network
from cocoon.config.settings import Settings, check_prices
from cocoon.core.errors import BootstrapUnreachable, CocoonError, WrongNetwork
from cocoon.core.groups import single_error
from cocoon.identity.files import write_private
from cocoon.identity.service import load_or_create
from cocoon.store.lock import lock_home
from cocoon.telemetry.log import Sink, get_logger, hide
from cocoon.telemetry.service import open_log


def run_peer(
    home: Path, *, provide: bool, join: str | None, bootstrap_only: bool, overrides: dict[str, str],
    out: Callable[[str], None],
) -> int:
    """Run a peer on ``home`` until it is told to stop.

    Args:
        join: A ``cocoon://join/...`` link; None stays in the home's network, or founds one.
        overrides: Command-line settings by name.
        out: Takes each line for the user: the join link, warnings, ``ready``, ``draining``.

    Returns:
        0 after a clean end.

    Raises:
        CocoonError: why the peer cannot start or go on.
    """
    flags: dict[str, object] = {**overrides, "home": str(home)}
    flags |= {"provide": True} if provide else {}
    flags |= {"role": "bootstrap"} if bootstrap_only else {}
    resolved = load(flags=flags)
    with ExitStack() as stack:
        stack.enter_context(lock_home(home))
        newcomer = read_network(home) is None
        network, founder = choose_network(home, join, resolved.settings)
        check_prices(resolved, network.ledger)
        identity = load_or_create(home)
        stack.enter_context(_log(home, resolved.settings))
        hide(identity.seed)
        hide(identity.hpke)
        # Here, not above: libp2p takes a second to import, and a bad link or home should be told at once.
        from cocoon.node.peer import Parts, run

        parts = Parts(home, resolved.settings, network, identity, founder=founder, show_link=join is None)
        try:
            with single_error():
                trio.run(run, parts, out, strict_exception_groups=True)
        except CocoonError as error:
            get_logger("node").failure("peer_ended", error)
            if newcomer and isinstance(error, BootstrapUnreachable | WrongNetwork):
                (home / NETWORK_FILE).unlink()          # it never was a member; the next link may be another's
            raise
    return 0


def choose_network(home: Path, join: str | None, settings: Settings) -> tuple[NetworkFile, bool]:
    """The network of this start, and whether this peer founded it.

    Raises:
        WrongNetwork: the home belongs to another network than the link.
        BadLink: the link cannot be read.
    """
    known = read_network(home)
    linked = None if join is None else parse_link(join)
    if known is not None and linked is not None:
        check_same(known, linked.id)
        known = known.with_bootstraps((*linked.bootstraps, *known.bootstraps))
    network = known or linked or NetworkFile(settings.network_name, "none", os.urandom(16))
    if network != read_network(home):
        write_private(home / NETWORK_FILE, to_toml(network).encode())
    return network, not network.bootstraps


def _log(home: Path, settings: Settings) -> AbstractContextManager[Sink]:
    if settings.log_to == "stderr":
        return open_log(level=settings.log_level, stream=sys.stderr)
    return open_log(level=settings.log_level, home=home, max_bytes=settings.log_file_bytes, files=settings.log_files)
