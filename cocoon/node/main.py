"""Start a peer: settings, lock, network, keys, log, loop.

Purity: shell.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import trio

from cocoon.config.network import NetworkFile, parse_link, to_toml
from cocoon.config.network import join as join_network
from cocoon.config.service import NETWORK_FILE, load, read_network
from cocoon.config.settings import Settings, check_prices
from cocoon.core.errors import BootstrapUnreachable, CocoonError, WrongNetwork
from cocoon.core.groups import single_error
from cocoon.core.imports import uncollected
from cocoon.identity.files import write_private
from cocoon.identity.service import load_or_create
from cocoon.node.devnet import Devnet, DevnetProcess, has_devnet, running_devnet
from cocoon.store.lock import lock_home
from cocoon.telemetry.log import Sink, get_logger, hide
from cocoon.telemetry.service import open_log


def run_peer(
    home: Path, *, provide: bool, join: str | None, bootstrap_only: bool, overrides: dict[str, str],
    out: Callable[[str], None], attached: bool = False,
) -> int:
    """Run a peer on ``home`` until it is told to stop.

    Args:
        join: A ``cocoon://join/...`` link; None stays in the home's network, or founds one.
        overrides: Command-line settings by name.
        out: Takes each line for the user: the join link, warnings, ``ready``, ``draining``.
        attached: The end of standard input is a word to stop, too.

    Returns:
        0 after a clean end.

    Raises:
        CocoonError: why the peer cannot start or go on.
    """
    flags: dict[str, object] = {**overrides, "home": str(home)}
    flags |= {"provide": True} if provide else {}
    flags |= {"role": "bootstrap"} if bootstrap_only else {}
    resolved = load(flags=flags)
    # Its memory will hold keys: no dump of it, and none of its workers'.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with ExitStack() as stack:
        stack.enter_context(lock_home(home))
        newcomer = read_network(home) is None
        linked = None if join is None else parse_link(join)
        devnet = _devnet(stack, home, linked, resolved.settings)
        network, founder = choose_network(home, linked, resolved.settings, None if devnet is None else devnet.facts)
        check_prices(resolved, network.ledger)
        identity = load_or_create(home)
        stack.enter_context(_log(home, resolved.settings))
        hide(identity.seed)
        hide(identity.hpke)
        # Here, not above: libp2p takes a second to import, and a bad link or home should be told at once.
        with uncollected():
            from cocoon.node.peer import Parts, run

        parts = Parts(
            home, resolved.settings, network, identity, founder=founder, show_link=join is None, devnet=devnet,
            attached=attached,
        )
        try:
            with single_error():
                trio.run(run, parts, out, strict_exception_groups=True)
        except CocoonError as error:
            get_logger("node").failure("peer_ended", error)
            if newcomer and isinstance(error, BootstrapUnreachable | WrongNetwork):
                (home / NETWORK_FILE).unlink()          # it never was a member; the next link may be another's
            raise
    return 0


def _devnet(
    stack: ExitStack, home: Path, linked: NetworkFile | None, settings: Settings
) -> DevnetProcess | None:
    """Start the devnet of a network that this home founded, or founds now."""
    known = read_network(home)
    founds = known is None and linked is None and settings.ledger == "ton"
    if not founds and not has_devnet(home):
        return None
    remembered = known.liteservers[0] if known is not None and known.liteservers else None
    return stack.enter_context(running_devnet(home, settings.devnet_block_ms, settings.listen, remembered))


def choose_network(
    home: Path, linked: NetworkFile | None, settings: Settings, devnet: Devnet | None = None
) -> tuple[NetworkFile, bool]:
    """The network of this start, and whether this peer founded it.

    Args:
        devnet: The one that this home runs; a network that is made rests on it.

    Raises:
        WrongNetwork: the home belongs to another network than the link, or its devnet is another chain.
    """
    known = read_network(home)
    network = join_network(known, linked) if linked is not None else known or _found(settings, devnet)
    if devnet is not None:
        if network.chain != devnet.chain:
            raise WrongNetwork("the devnet in COCOON_HOME is another chain than that of network.toml")
        network = network.with_liteservers((devnet.liteserver, *network.liteservers))
    if network != read_network(home):
        write_private(home / NETWORK_FILE, to_toml(network).encode())
    return network, not network.bootstraps


def _found(settings: Settings, devnet: Devnet | None) -> NetworkFile:
    """A network of its own."""
    nonce = os.urandom(16)
    if devnet is None:
        return NetworkFile(settings.network_name, "none", nonce)
    return NetworkFile(
        settings.network_name, "ton", nonce, chain=devnet.chain, liteservers=(devnet.liteserver,)
    )


def _log(home: Path, settings: Settings) -> AbstractContextManager[Sink]:
    if settings.log_to == "stderr":
        return open_log(level=settings.log_level, stream=sys.stderr)
    return open_log(level=settings.log_level, home=home, max_bytes=settings.log_file_bytes, files=settings.log_files)
