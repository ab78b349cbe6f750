"""What a network is, its id, and the join link by which people enter it.

The bootstraps are only hints: they stand in the link and in the file, but not
under the network id, so that they may change while the network stays itself.

Purity: pure. Spec: docs/spec/network.md, rules NET-1 to NET-5.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import tomllib
from dataclasses import dataclass, replace

from cocoon.core.errors import BadConfig, BadLink, PeerFault, UsageError, WrongNetwork
from cocoon.core.ids import NetworkId, peer_id, peer_key
from cocoon.wire.codec import decode, encode

#: The first one carries no money.
LEDGERS = ("none",)
NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
NONCE_BYTES = 16
BOOTSTRAPS = 16
ADDRESS_CHARS = 160
LINK_CHARS = 4_096
FILE_CHARS = 8_192

_PREFIX = "cocoon://join/"
_LINK_VERSION = 1
_CHECK_BYTES = 8
_PEER_FORM = "/p2p/12D3KooW..."
_HOST = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]{1,100})/tcp/(?P<port>[0-9]{1,5})(?:/p2p/(?P<peer>[^/]+))?",
    re.ASCII,
)
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """One network.

    Attributes:
        name: 1 to 32 of ``a-z0-9-``; for people.
        ledger: One of ``LEDGERS``.
        nonce: 16 random bytes that tell two networks of one name apart.
        bootstraps: Multiaddresses with peer id, at most ``BOOTSTRAPS``.
    """

    name: str
    ledger: str
    nonce: bytes
    bootstraps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise BadLink("the name of a network is 1 to 32 of a-z, 0-9 and '-'")
        if self.ledger not in LEDGERS:
            raise BadLink(f"this version knows the ledgers {', '.join(LEDGERS)}, not {self.ledger[:32]!r}")
        if len(self.nonce) != NONCE_BYTES:
            raise BadLink(f"the nonce of a network has {NONCE_BYTES} bytes, not {len(self.nonce)}")
        if len(self.bootstraps) > BOOTSTRAPS or len(set(self.bootstraps)) != len(self.bootstraps):
            raise BadLink(f"a network names at most {BOOTSTRAPS} bootstraps, each once")
        for address in self.bootstraps:
            check_address(address, with_peer=True)

    @property
    def id(self) -> NetworkId:
        """SHA-256 of the canonical body without bootstraps (NET-1)."""
        return NetworkId(hashlib.sha256(encode({1: self.name, 2: self.ledger, 3: self.nonce})).digest())

    def with_bootstraps(self, addresses: tuple[str, ...]) -> NetworkFile:
        """The same network with other hints; the newest first, cut to the bound."""
        return replace(self, bootstraps=tuple(dict.fromkeys(addresses))[:BOOTSTRAPS])


def check_address(text: str, *, with_peer: bool) -> str:
    """Return ``text`` if it is a multiaddress that we can dial or listen on.

    Args:
        with_peer: Whether ``/p2p/12D3KooW...`` must follow (a peer) or must not (a listener).

    Raises:
        BadLink: anything else; only the syntax is looked at.
    """
    match = _HOST.fullmatch(text) if len(text) <= ADDRESS_CHARS else None
    if match is None or not _host_ok(match["kind"], match["host"]) or not _port_ok(match["port"], with_peer):
        raise BadLink(
            f"{ascii(text[:80])} is no address like /ip4/192.0.2.1/tcp/4001{_PEER_FORM * with_peer}"
        )
    if with_peer != (match["peer"] is not None):
        raise BadLink(f"{ascii(text[:80])} must {'end with' if with_peer else 'not have'} {_PEER_FORM}")
    if match["peer"] is not None:
        try:
            canonical = peer_id(peer_key(match["peer"]))
        except UsageError as error:
            raise BadLink(error.text) from None
        if canonical != match["peer"]:  # base58 decoders forgive white space
            raise BadLink(f"{ascii(match['peer'])} is no canonical peer id")
    return text


def format_link(network: NetworkFile) -> str:
    """The one line that a person copies to another machine (NET-2).

    Raises:
        BadLink: longer than ``LINK_CHARS``; name fewer bootstraps.
    """
    body = encode([_LINK_VERSION, network.name, network.ledger, network.nonce, list(network.bootstraps)])
    data = body + hashlib.sha256(body).digest()[:_CHECK_BYTES]
    text = _PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
    if len(text) > LINK_CHARS:
        raise BadLink(f"a join link has at most {LINK_CHARS} characters, not {len(text)}")
    return text


def parse_link(text: str) -> NetworkFile:
    """Read a join link; surrounding white space is forgiven, nothing else.

    Raises:
        BadLink: truncated, mistyped, too long, another version, or not canonical.
    """
    text = text.strip()
    if len(text) > LINK_CHARS or not text.startswith(_PREFIX):
        raise BadLink(f"a join link begins with {_PREFIX} and has at most {LINK_CHARS} characters")
    code = text.removeprefix(_PREFIX)
    try:
        data = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadLink("the join link is mistyped or cut off") from None
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if hashlib.sha256(body).digest()[:_CHECK_BYTES] != check:
        raise BadLink("the join link is mistyped or cut off (its check fails)")
    network = _unpack_body(body)
    # Two spellings of one link would make people compare in vain (spare base64 bits).
    if format_link(network) != text:
        raise BadLink("the join link is not in its canonical form")
    return network


def to_toml(network: NetworkFile) -> str:
    """Content of ``network.toml`` of a home. No value needs escaping: all character sets are closed."""
    hints = "".join(f'    "{address}",\n' for address in network.bootstraps)
    return (
        "# The network this home belongs to. `bootstraps` may be changed, nothing else.\n"
        f'name = "{network.name}"\nledger = "{network.ledger}"\nnonce = "{network.nonce.hex()}"\n'
        f"bootstraps = [\n{hints}]\n"
    )


def from_toml(text: str, file_name: str = "network.toml") -> NetworkFile:
    """Read ``network.toml``.

    Raises:
        BadConfig: names the file and what is wrong in it.
    """
    try:
        match tomllib.loads(text):
            case {
                "name": str(name),
                "ledger": str(ledger),
                "nonce": str(nonce),
                "bootstraps": [*hints],
                **rest,
            }:
                if not rest and all(isinstance(hint, str) for hint in hints):
                    return NetworkFile(name, ledger, bytes.fromhex(nonce), tuple(hints))
    except BadLink as error:
        raise BadConfig(f"{file_name}: {error.text}") from None
    except ValueError as error:  # TOMLDecodeError is one
        raise BadConfig(f"{file_name}: {error}") from None
    raise BadConfig(
        f"{file_name}: must have exactly name, ledger, nonce (texts) and bootstraps (a list of texts)"
    )


def join(kept: NetworkFile | None, joined: NetworkFile) -> NetworkFile:
    """What ``network.toml`` holds after joining: the link's hints first, then those already known.

    Args:
        kept: The network this home belongs to; None for a fresh home.

    Raises:
        WrongNetwork: the home belongs to another network.
    """
    if kept is None:
        return joined
    check_same(kept, joined.id)
    return kept.with_bootstraps(joined.bootstraps + kept.bootstraps)


def check_same(home: NetworkFile, other: NetworkId) -> None:
    """A home belongs to exactly one network (NET-4).

    Raises:
        WrongNetwork: ``other`` is not the id of ``home``'s network.
    """
    if home.id != other:
        raise WrongNetwork(
            f"this home belongs to network {home.name!r} ({home.id.hex()[:12]}), not to {other.hex()[:12]}"
        )


def _unpack_body(body: bytes) -> NetworkFile:
    try:
        value = decode(body, max_bytes=LINK_CHARS)
    except PeerFault as error:
        raise BadLink(f"the join link holds no network: {error.text}") from None
    match value:
        case [version, *_] if version != _LINK_VERSION:
            raise BadLink("the join link is of another version of Cocoon")
        case [_, str(name), str(ledger), bytes(nonce), [*hints]]:
            if all(isinstance(hint, str) for hint in hints):
                return NetworkFile(name, ledger, nonce, tuple(hints))
    raise BadLink("the join link holds no network")


def _host_ok(kind: str, host: str) -> bool:
    if kind.startswith("dns"):
        return _DNS_NAME.fullmatch(host) is not None
    try:
        address = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return str(address) == host


def _port_ok(port: str, dialled: bool) -> bool:
    return str(int(port)) == port and dialled <= int(port) <= 65_535
