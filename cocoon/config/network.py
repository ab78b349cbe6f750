"""What a network is, its id, and the join link by which people enter it.

Bootstraps and liteservers are only hints: they stand in the link and in the
file, but not under the network id, so that they may change while the network
stays itself. The facts of its chain are under the id.

Purity: pure. Spec: docs/spec/network.md, rules NET-1 to NET-9.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import tomllib

from cocoon.core.errors import BadConfig, BadLink, PeerFault, UsageError, WrongNetwork
from cocoon.core.ids import NetworkId, network_tag, peer_id, peer_key
from cocoon.core.limits import BOOTSTRAPS, CHAIN_DELAY_S_MAX, LINK_ADDRESS_CHARS, LINK_CHARS, LITESERVERS
from cocoon.core.values import Value, replace
from cocoon.wire.codec import decode, encode

#: The first one carries no money.
LEDGERS = ("none", "ton")
NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
NONCE_BYTES = 16

#: Zerostate root hashes of the networks whose coins are worth something (NET-8).
MAINNET_GENESIS = bytes.fromhex("17a3a92992aabea785a7a090985a265cd31f323d849da51239737e321fb05569")
TESTNET_GENESIS = bytes.fromhex("823f81f306ff02694f935cf5021548e3ce2b86b529812af6a12148879e95a128")
#: Close delay and claim margin of public networks, seconds: a day to see a close, half a day to claim.
PUBLIC_CLOSE_DELAY_S = 86_400
PUBLIC_CLAIM_MARGIN_S = 43_200
_HASH_BYTES = 32
_KEY_BYTES = 32

_PREFIX = "cocoon://join/"
_LINK_VERSION = 1
#: Links of networks with a chain; those without keep their bytes.
_CHAIN_LINK_VERSION = 2
_CHECK_BYTES = 8
_PEER_FORM = "/p2p/12D3KooW..."
_HOST = re.compile(
    r"/(?P<kind>ip4|ip6|dns|dns4|dns6)/(?P<host>[^/]{1,100})/tcp/(?P<port>[0-9]{1,5})(?:/p2p/(?P<peer>[^/]+))?",
    re.ASCII,
)
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")


class ChainFacts(Value):
    """The chain of a network with ledger ``ton``; all of it is under the network id (NET-6).

    Attributes:
        genesis: Root hash of the zerostate, 32 bytes.
        close_delay_s: From a lane's expiry brought forward to that expiry.
        claim_margin_s: What a lane must outlive a lease by.
        public: Whether its coins are worth something.
        faucet: Hash part of the faucet contract's address on a devnet; None elsewhere.
    """

    genesis: bytes
    close_delay_s: int
    claim_margin_s: int
    public: bool = False
    faucet: bytes | None = None

    def __post_init__(self) -> None:
        if len(self.genesis) != _HASH_BYTES or (self.faucet is not None and len(self.faucet) != _HASH_BYTES):
            raise BadLink(f"a genesis hash and a faucet's address have {_HASH_BYTES} bytes")
        if not all(0 < delay_s <= CHAIN_DELAY_S_MAX for delay_s in (self.close_delay_s, self.claim_margin_s)):
            raise BadLink(f"close delay and claim margin are 1 to {CHAIN_DELAY_S_MAX} s")
        known = self.genesis in (MAINNET_GENESIS, TESTNET_GENESIS)
        if known and not self.public:
            raise BadLink("the link claims the genesis of a public network and says that it is none")
        delays = (self.close_delay_s, self.claim_margin_s)
        if self.public and (delays != (PUBLIC_CLOSE_DELAY_S, PUBLIC_CLAIM_MARGIN_S) or self.faucet is not None):
            raise BadLink(
                f"a public network has a close delay of {PUBLIC_CLOSE_DELAY_S} s, "
                f"a claim margin of {PUBLIC_CLAIM_MARGIN_S} s and no faucet"
            )

    @property
    def global_id(self) -> int:
        """TON's network id, which a wallet's address depends on: -239 on mainnet, -3 everywhere else."""
        return -239 if self.genesis == MAINNET_GENESIS else -3

    def body(self) -> list[object]:
        """Canonical form in the network id and in links."""
        return [self.genesis, self.close_delay_s, self.claim_margin_s, self.public, self.faucet or b""]


class NetworkFile(Value):
    """One network.

    Attributes:
        name: 1 to 32 of ``a-z0-9-``; for people.
        ledger: One of ``LEDGERS``.
        nonce: 16 random bytes that tell two networks of one name apart.
        bootstraps: Multiaddresses with peer id, at most ``BOOTSTRAPS``.
        chain: Facts of its chain; exactly on ledger ``ton``.
        liteservers: ``ip:port:base64 key``, at most ``LITESERVERS``; at least two on a public network.
    """

    name: str
    ledger: str
    nonce: bytes
    bootstraps: tuple[str, ...] = ()
    chain: ChainFacts | None = None
    liteservers: tuple[str, ...] = ()

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
        self._check_chain()

    def _check_chain(self) -> None:
        if (self.chain is not None) != (self.ledger == "ton"):
            raise BadLink("a network has facts of a chain exactly if its ledger is ton")
        if self.chain is None and self.liteservers:
            raise BadLink("a network without a chain has no liteservers")
        if len(self.liteservers) > LITESERVERS:
            raise BadLink(f"a network names at most {LITESERVERS} liteservers")
        keys = {parse_liteserver(text).key for text in self.liteservers}
        if len(keys) != len(self.liteservers):
            # Two names of one server would agree with themselves.
            raise BadLink("a network names each liteserver once; two have the same key")
        if self.chain is not None and self.chain.public and len(keys) < 2:
            raise BadLink("a public network needs at least two liteservers, so that one alone cannot lie")

    @property
    def id(self) -> NetworkId:
        """SHA-256 of the canonical body without hints (NET-1, NET-6)."""
        body: dict[int, object] = {1: self.name, 2: self.ledger, 3: self.nonce}
        if self.chain is not None:
            body[4] = self.chain.body()
        return NetworkId(hashlib.sha256(encode(body)).digest())

    @property
    def network_tag(self) -> int:
        """What judged messages name this network by: 32 bits of the genesis, or of the id without a chain."""
        return network_tag(self.id) if self.chain is None else int.from_bytes(self.chain.genesis[:4], "big")

    def with_bootstraps(self, addresses: tuple[str, ...]) -> NetworkFile:
        """The same network with other hints; the newest first, cut to the bound."""
        return replace(self, bootstraps=tuple(dict.fromkeys(addresses))[:BOOTSTRAPS])

    def with_liteservers(self, servers: tuple[str, ...]) -> NetworkFile:
        """The same network with other hints; the newest first, one a key, cut to the bound."""
        by_key: dict[bytes, str] = {}
        for text in servers:
            by_key.setdefault(parse_liteserver(text).key, text)
        return replace(self, liteservers=tuple(by_key.values())[:LITESERVERS])


class Liteserver(Value):
    """Where a liteserver listens, and the key that it proves in the handshake."""

    host: str
    port: int
    key: bytes


def parse_liteserver(text: str) -> Liteserver:
    """Read ``ip:port:base64 key`` (IPv4, canonical; NET-7).

    Raises:
        BadLink: anything else.
    """
    host, port, code = (text.split(":") + ["", ""])[:3] if text.count(":") == 2 else ("", "", "")
    try:
        key = base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    port_right = re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) is not None and int(port) <= 65_535
    if not _host_ok("ip4", host) or not port_right or len(key) != _KEY_BYTES or format_key(key) != code:
        raise BadLink(f"{ascii(text[:80])} is no liteserver like 192.0.2.1:4924:<base64 of 32 bytes>")
    return Liteserver(host, int(port), key)


def format_key(key: bytes) -> str:
    """The one spelling of a liteserver's key."""
    return base64.b64encode(key).decode("ascii")


def check_address(text: str, *, with_peer: bool) -> str:
    """Return ``text`` if it is a multiaddress that we can dial or listen on.

    Args:
        with_peer: Whether ``/p2p/12D3KooW...`` must follow (a peer) or must not (a listener).

    Raises:
        BadLink: anything else; only the syntax is looked at.
    """
    match = _HOST.fullmatch(text) if len(text) <= LINK_ADDRESS_CHARS else None
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
    fields: list[object] = [_LINK_VERSION, network.name, network.ledger, network.nonce, list(network.bootstraps)]
    if network.chain is not None:
        fields[0] = _CHAIN_LINK_VERSION
        fields += [network.chain.body(), list(network.liteservers)]
    body = encode(fields)
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
    text = (
        "# The network this home belongs to. `bootstraps` and `liteservers` may be changed, nothing else.\n"
        f'name = "{network.name}"\nledger = "{network.ledger}"\nnonce = "{network.nonce.hex()}"\n'
        f"bootstraps = {_toml_list(network.bootstraps)}"
    )
    if (chain := network.chain) is None:
        return text
    faucet = "" if chain.faucet is None else f'faucet = "{chain.faucet.hex()}"\n'
    return (
        f"{text}liteservers = {_toml_list(network.liteservers)}"
        f'\n[chain]\ngenesis = "{chain.genesis.hex()}"\nclose_delay_s = {chain.close_delay_s}\n'
        f"claim_margin_s = {chain.claim_margin_s}\npublic = {str(chain.public).lower()}\n{faucet}"
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
                chain, servers = rest.pop("chain", None), rest.pop("liteservers", [])
                if not rest and _all_texts(hints) and isinstance(servers, list) and _all_texts(servers):
                    facts = None if chain is None else _chain_from_toml(chain)
                    return NetworkFile(name, ledger, bytes.fromhex(nonce), tuple(hints), facts, tuple(servers))
    except BadLink as error:
        raise BadConfig(f"{file_name}: {error.text}") from None
    except ValueError as error:  # TOMLDecodeError is one
        raise BadConfig(f"{file_name}: {error}") from None
    raise BadConfig(
        f"{file_name}: must have exactly name, ledger, nonce (texts) and bootstraps (a list of texts); "
        "with ledger ton also liteservers (a list of texts) and [chain]"
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
    merged = kept.with_bootstraps(joined.bootstraps + kept.bootstraps)
    return merged.with_liteservers(joined.liteservers + kept.liteservers)


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
        case [1, str(name), str(ledger), bytes(nonce), [*hints]] if _all_texts(hints):
            return NetworkFile(name, ledger, nonce, tuple(hints))
        case [2, str(name), str(ledger), bytes(nonce), [*hints], [*chain], [*servers]]:
            if _all_texts(hints) and _all_texts(servers):
                return NetworkFile(name, ledger, nonce, tuple(hints), _chain_from_link(chain), tuple(servers))
        case [version, *_] if version not in (_LINK_VERSION, _CHAIN_LINK_VERSION):
            raise BadLink("the join link is of another version of Cocoon")
    raise BadLink("the join link holds no network")


def _chain_from_link(body: list[object]) -> ChainFacts:
    match body:
        case [bytes(genesis), int(delay), int(margin), bool(public), bytes(faucet)] if not (
            isinstance(delay, bool) or isinstance(margin, bool)
        ):
            return ChainFacts(genesis, delay, margin, public, faucet or None)
    raise BadLink("the join link holds no facts of a chain")


def _chain_from_toml(table: object) -> ChainFacts:
    match table:
        case {
            "genesis": str(genesis),
            "close_delay_s": int(delay),
            "claim_margin_s": int(margin),
            "public": bool(public),
            **rest,
        } if not (isinstance(delay, bool) or isinstance(margin, bool)):
            faucet = rest.pop("faucet", None)
            if not rest and (faucet is None or isinstance(faucet, str)):
                place = None if faucet is None else bytes.fromhex(faucet)
                return ChainFacts(bytes.fromhex(genesis), delay, margin, public, place)
    raise BadLink(
        "[chain] must have exactly genesis (text), close_delay_s, claim_margin_s (integers), public (true or "
        "false) and, on a devnet, faucet (text)"
    )


def _all_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _toml_list(texts: tuple[str, ...]) -> str:
    return "[\n" + "".join(f'    "{text}",\n' for text in texts) + "]\n"


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
