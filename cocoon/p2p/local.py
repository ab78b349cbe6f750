"""This machine's own addresses, for a peer that listens on all of them.

Purity: shell (asks the routing table; sends nothing).
"""

from __future__ import annotations

import socket

from cocoon.core.limits import ADDRESSES_PER_PEER
from cocoon.p2p.addresses import Address

# Documentation addresses (RFC 5737, RFC 3849): a UDP socket "connected" to them knows its source address.
_PROBES = {
    "ip4": (socket.AF_INET, "192.0.2.1", "0.0.0.0", "127.0.0.1"),
    "ip6": (socket.AF_INET6, "2001:db8::1", "::", "::1"),
}


def reachable_addresses(listening: list[Address]) -> list[Address]:
    """Addresses to tell others: 0.0.0.0 and :: become this machine's outward address and loopback."""
    found: list[Address] = []
    for address in listening:
        family, target, unspecified, loopback = _PROBES.get(address.family, (None, "", "", ""))
        if family is None or address.host != unspecified:
            found.append(address)
            continue
        outward = _source_address(family, target)
        found += [Address(address.family, host, address.port) for host in (outward, loopback) if host]
    return list(dict.fromkeys(found))[:ADDRESSES_PER_PEER]


def _source_address(family: socket.AddressFamily, target: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None                     # no route for this family
