"""The listen addresses of the last start, so that a peer is found again where others knew it.

Purity: shell. Spec: docs/spec/p2p.md, rule P2P-6.
"""

from __future__ import annotations

import socket
from pathlib import Path

from cocoon.config.network import check_address
from cocoon.core.errors import BadLink
from cocoon.core.units import KIB
from cocoon.identity.files import write_private

LISTEN_FILE = "listen"


def remembered_listen(home: Path, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted addresses, where port 0 is replaced by the port of last time if that is still free."""
    try:
        lines = (home / LISTEN_FILE).read_bytes()[: 4 * KIB].decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return wanted
    last = {line.rpartition("/")[0]: line for line in lines if _is_address(line) and _is_free(line)}
    return tuple(
        last.get(address.rpartition("/")[0], address) if address.endswith("/tcp/0") else address for address in wanted
    )


def remember_listen(home: Path, listening: list[str]) -> None:
    """Keep what the system gave."""
    write_private(home / LISTEN_FILE, "".join(f"{address}\n" for address in listening).encode())


def _is_address(line: str) -> bool:
    try:
        check_address(line, with_peer=False)
    except BadLink:
        return False
    return True


def _is_free(line: str) -> bool:
    """Whether the port can be bound now; another process may have taken it since."""
    _, kind, host, _, port = line.split("/")
    family = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}.get(kind)
    if family is None:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True
