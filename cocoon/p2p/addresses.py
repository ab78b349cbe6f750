"""Multiaddresses as far as Cocoon uses them: ``/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...``.

Only TCP, with an IP or a DNS name in front. Everything else that a foreign
peer may announce (QUIC, WebSocket, relays) is not for us and is dropped.

Purity: pure. Spec: docs/spec/p2p.md, rule P2P-2.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cocoon.core.errors import UsageError
from cocoon.core.ids import PeerKey, peer_id, peer_key
from cocoon.core.limits import ADDRESS_CHARS, ADDRESSES_PER_PEER

_NAMES = ("dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a peer listens. ``family`` is ip4, ip6, dns, dns4 or dns6; ``port`` in [0, 65535]."""

    family: str
    host: str
    port: int

    @property
    def text(self) -> str:
        """Without the peer: ``/ip4/192.0.2.1/tcp/4001``."""
        return f"/{self.family}/{self.host}/tcp/{self.port}"

    def of(self, peer: PeerKey) -> str:
        """With the peer: ``/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...``."""
        return f"{self.text}/p2p/{peer_id(peer)}"


def parse(text: str) -> tuple[Address, PeerKey | None]:
    """Read one address, with or without its peer.

    Raises:
        UsageError: not a TCP address of ours, or longer than ``ADDRESS_CHARS``.
    """
    parts = text.split("/") if len(text) <= ADDRESS_CHARS else []
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp":
        example = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."
        raise UsageError(f"{text[:ADDRESS_CHARS]!r} is no address like {example}")
    family, host, port_text = parts[1], parts[2], parts[4]
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65_535):
        raise UsageError(f"{port_text!r} is no TCP port in 0 to 65535")
    peer = None
    if len(parts) == 7:
        if parts[5] != "p2p":
            raise UsageError(f"{parts[5]!r} in {text!r} should be p2p")
        peer = peer_key(parts[6])
    return Address(family, _checked_host(family, host), int(port_text)), peer


def _checked_host(family: str, host: str) -> str:
    try:
        if family == "ip4":
            return str(ipaddress.IPv4Address(host))
        if family == "ip6":
            return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise UsageError(f"{host!r} is no {family} address") from None
    if family in _NAMES and host and all(c.isascii() and (c.isalnum() or c in "-._") for c in host):
        return host
    raise UsageError(f"/{family}/{host} cannot be dialled; use ip4, ip6, dns, dns4 or dns6")


def parse_peer(text: str) -> tuple[Address, PeerKey]:
    """Read one address that names its peer, as in a join link.

    Raises:
        UsageError: no such address, or it lacks ``/p2p/<peer id>``.
    """
    address, peer = parse(text)
    if peer is None:
        raise UsageError(f"{text!r} lacks /p2p/<peer id>: without it anybody could answer")
    return address, peer


def readable(texts: Iterable[str]) -> list[Address]:
    """The TCP addresses among what a stranger announced; the rest is dropped without a word."""
    found: list[Address] = []
    for text in texts:
        try:
            address, _ = parse(text)
        except UsageError:
            continue
        if address.port and address not in found:
            found.append(address)
    return found


def usable(announced: Iterable[Address], seen_from: str | None) -> tuple[Address, ...]:
    """Addresses worth keeping of those that a connected peer says it listens on.

    Args:
        announced: What identify said, unchecked.
        seen_from: IP text that its connection came from, or None if unknown.

    Returns:
        At most ``ADDRESSES_PER_PEER``. ``0.0.0.0`` and ``::`` become the IP we
        saw; loopback is kept only if the peer itself came over loopback.
    """
    seen = _ip(seen_from)
    kept: list[Address] = []
    for address in announced:
        ip = _ip(address.host)
        if ip is not None and ip.is_unspecified:
            if seen is None:
                continue
            address = Address("ip4" if seen.version == 4 else "ip6", str(seen), address.port)
        elif ip is not None and ip.is_loopback and not (seen is not None and seen.is_loopback):
            continue
        if address not in kept:
            kept.append(address)
    return tuple(kept[:ADDRESSES_PER_PEER])


def _ip(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text) if text else None
    except ValueError:
        return None


def address_class(ip_text: str | None) -> str:
    """``loopback``, ``private`` or ``public``; an unreadable address counts as public, the strictest."""
    ip = _ip(ip_text)
    if ip is None:
        return "public"
    if ip.is_loopback:
        return "loopback"
    return "private" if ip.is_private or ip.is_link_local else "public"


def address_block(ip_text: str | None) -> str:
    """The block of addresses that one owner usually holds whole: /24 of IPv4, /48 of IPv6; "" if unreadable."""
    ip = _ip(ip_text)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip is None:
        return ""
    return str(ipaddress.ip_network((int(ip), 24 if ip.version == 4 else 48), strict=False))
