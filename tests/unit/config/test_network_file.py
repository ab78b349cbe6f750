"""Network files and join links."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.config import network
from cocoon.config.network import (
    ChainFacts,
    NetworkFile,
    check_address,
    check_same,
    format_link,
    from_toml,
    parse_link,
    parse_liteserver,
    to_toml,
)
from cocoon.core.errors import BadConfig, BadLink, WrongNetwork
from cocoon.core.ids import peer_id
from cocoon.core.limits import CHAIN_DELAY_S_MAX, LINK_CHARS
from cocoon.core.values import replace
from cocoon.wire.codec import encode

NONCE = bytes(range(16))
PEER = peer_id(bytes(32))
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"
LOCAL = NetworkFile("local", "none", NONCE, (ADDRESS,))
GOLDEN = (
    "cocoon://join/lQGlbG9jYWykbm9uZcQQAAECAwQFBgcICQoLDA0OD5HZUC9pcDQvMTkyLjAuMi4xL3RjcC80MDAxL3AycC8x"
    "MkQzS29vVzlwTkFrOGFpQnVHVlF0V1JkYmtMbW81cVZMM2UyaDVVeGJOMk56OXR0d2l34R-jD5-hYXU"
)

names = st.from_regex(network.NAME_PATTERN, fullmatch=True)
addresses = st.builds(
    lambda host, port, key: f"/{host}/tcp/{port}/p2p/{peer_id(key)}",
    st.sampled_from(["ip4/127.0.0.1", "ip6/::1", "dns4/peer.example.org", "dns/a-b.example"]),
    st.integers(1, 65_535),
    st.binary(min_size=32, max_size=32),
)
networks = st.builds(
    NetworkFile,
    names,
    st.just("none"),
    st.binary(min_size=16, max_size=16),
    st.lists(addresses, max_size=16, unique=True).map(tuple),
)


def test_the_network_id_is_sha256_of_the_body_without_bootstraps():
    """NET-1, with the msgpack written out by hand."""
    body = b"\x83\x01\xa5local\x02\xa4none\x03\xc4\x10" + NONCE
    assert LOCAL.id == hashlib.sha256(body).digest()
    assert NetworkFile("local", "none", NONCE).id == LOCAL.id


def test_a_link_is_what_it_was_yesterday():
    assert format_link(LOCAL) == GOLDEN


@given(networks)
def test_links_and_files_come_back_as_they_were(found):
    link = format_link(found)
    assert len(link) <= LINK_CHARS and link.isascii() and " " not in link
    assert parse_link(link) == found
    assert parse_link(f"  {link}\n") == found
    assert from_toml(to_toml(found)) == found


@given(found=networks, data=st.data())
def test_no_truncated_link_is_accepted(found, data):
    link = format_link(found)
    with pytest.raises(BadLink):
        parse_link(link[: data.draw(st.integers(0, len(link) - 1))])


@given(found=networks, data=st.data())
def test_no_mistyped_link_is_accepted(found, data):
    link = format_link(found)
    at = data.draw(st.integers(len("cocoon://join/"), len(link) - 1))
    typed = data.draw(st.characters(codec="utf-8").filter(lambda c: c != link[at]))
    with pytest.raises(BadLink):
        parse_link(link[:at] + typed + link[at + 1 :] + "A" * (at == len(link) - 1 and typed.isspace()))


@given(st.text(max_size=300))
def test_any_text_is_a_link_or_refused_typed(text):
    for candidate in (text, "cocoon://join/" + text):
        with pytest.raises(BadLink):
            parse_link(candidate)


def checked_link(fields: object) -> str:
    """A link to whatever this encodes, with a right checksum."""
    body = fields if isinstance(fields, bytes) else encode(fields)
    data = body + hashlib.sha256(body).digest()[:8]
    return "cocoon://join/" + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_well_checked_link_to_nonsense_is_refused():
    """A right checksum proves nothing about the content."""
    assert parse_link(checked_link([1, "local", "none", NONCE, [ADDRESS]])) == LOCAL
    for fields in (
        [1, "local", "none", NONCE],
        [2, "local", "none", NONCE, []],
        [1, "local", "gold", NONCE, []],
        [1, "local", "none", NONCE[1:], []],
        [1, "Local", "none", NONCE, []],
        [1, "local", "none", NONCE, [1]],
        [1, "local", "none", NONCE, ["/ip4/1.2.3.4/tcp/1"]],
        [1, "local", "none", NONCE, [ADDRESS, ADDRESS]],
        {1: "local"},
        5,
        b"\x93\x01",
        b"\xcc\x01",
        b"",
    ):
        with pytest.raises(BadLink):
            parse_link(checked_link(fields))


def test_a_link_of_endless_length_is_refused_before_it_is_decoded():
    with pytest.raises(BadLink, match="4096"):
        parse_link("cocoon://join/" + "A" * 1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ip4/192.0.2.1/tcp/4001",
        f"/ip4/192.0.2.256/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.01/tcp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/udp/4001/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/0/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/65536/p2p/{PEER}",
        f"/ip4/192.0.2.1/tcp/04001/p2p/{PEER}",
        f"/ip6/0:0::1/tcp/4001/p2p/{PEER}",
        f"/dns4/-bad-.example/tcp/4001/p2p/{PEER}",
        f"/dns4/UPPER.example/tcp/4001/p2p/{PEER}",
        "/ip4/192.0.2.1/tcp/4001/p2p/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER[:-1]}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}/p2p-circuit",
        f"{ADDRESS}\n",
        f"/ip4/192.0.2.1/tcp/٤/p2p/{PEER}",
    ],
)
def test_what_is_no_peer_address_is_refused(text):
    with pytest.raises(BadLink):
        check_address(text, with_peer=True)


def test_a_listener_has_no_peer_and_may_leave_the_port_open():
    assert check_address("/ip4/0.0.0.0/tcp/0", with_peer=False)
    with pytest.raises(BadLink):
        check_address(ADDRESS, with_peer=False)


def test_a_home_belongs_to_one_network():
    other = NetworkFile("local", "none", NONCE[::-1], (ADDRESS,))
    check_same(LOCAL, LOCAL.id)
    with pytest.raises(WrongNetwork, match=LOCAL.id.hex()[:12]):
        check_same(LOCAL, other.id)
    with pytest.raises(WrongNetwork):
        network.join(LOCAL, other)


def test_joining_again_keeps_the_network_and_puts_new_hints_first():
    other = f"/dns4/boot.example/tcp/4001/p2p/{PEER}"
    assert network.join(None, LOCAL) == LOCAL
    assert network.join(LOCAL, LOCAL.with_bootstraps((other,))).bootstraps == (other, ADDRESS)
    assert len(network.join(LOCAL, LOCAL.with_bootstraps((other,) * 40)).bootstraps) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('ledger = "none"', 'ledger = "gold"'),
        ('ledger = "none"', ""),
        ('name = "local"', 'name = "local"\ncolour = "red"'),
        (NONCE.hex(), NONCE.hex()[1:]),
        (NONCE.hex(), NONCE.hex()[2:]),
        ("/tcp/", "/udp/"),
        ("[", "[["),
        ('name = "local"', "name = 5"),
    ],
)
def test_a_bad_network_file_is_named(old, new):
    text = to_toml(LOCAL)
    assert old in text
    with pytest.raises(BadConfig, match="net.toml: "):
        from_toml(text.replace(old, new), "net.toml")


# --- networks with a chain (NET-6 to NET-9) ----------------------------------

GENESIS = bytes(range(32, 64))
FACTS = ChainFacts(GENESIS, 60, 60, False, bytes(range(64, 96)))
SERVER = f"127.0.0.1:4924:{network.format_key(bytes(range(32)))}"
OTHER = f"192.0.2.7:4924:{network.format_key(bytes(range(1, 33)))}"
PAID = NetworkFile("paid", "ton", NONCE, (ADDRESS,), FACTS, (SERVER,))
PUBLIC = ChainFacts(network.MAINNET_GENESIS, 86_400, 43_200, True)

hashes = st.binary(min_size=32, max_size=32)
liteservers = st.builds(
    lambda key, port: f"198.51.100.3:{port}:{network.format_key(key)}", hashes, st.integers(1, 65_535)
)
chains = st.builds(
    ChainFacts, hashes, st.integers(1, CHAIN_DELAY_S_MAX), st.integers(1, CHAIN_DELAY_S_MAX), st.just(False),
    st.none() | hashes,
)
paid_networks = st.builds(
    NetworkFile,
    names,
    st.just("ton"),
    st.binary(min_size=16, max_size=16),
    st.lists(addresses, max_size=4, unique=True).map(tuple),
    chains,
    st.lists(liteservers, max_size=8, unique_by=lambda text: text.rpartition(":")[2]).map(tuple),
)


@given(paid_networks)
def test_links_and_files_of_paid_networks_come_back_as_they_were(found):
    assert parse_link(format_link(found)) == found
    assert from_toml(to_toml(found)) == found


def test_the_facts_of_the_chain_are_under_the_id_and_its_liteservers_are_not():
    assert replace(PAID, liteservers=()).id == PAID.id
    for other in (
        replace(FACTS, genesis=GENESIS[::-1]),
        replace(FACTS, close_delay_s=61),
        replace(FACTS, claim_margin_s=61),
        replace(FACTS, faucet=None),
    ):
        assert replace(PAID, chain=other).id != PAID.id
    assert PAID.id != NetworkFile("paid", "none", NONCE).id


def test_judged_messages_name_a_paid_network_by_its_genesis():
    """A devnet that was reset has another tag, so that no old voucher is valid on it (7a)."""
    assert PAID.network_tag == int.from_bytes(GENESIS[:4], "big")
    assert LOCAL.network_tag == int.from_bytes(LOCAL.id[:4], "big")


def test_a_paid_link_is_what_it_was_yesterday():
    assert hashlib.sha256(format_link(PAID).encode()).hexdigest() == PAID_GOLDEN
    assert PAID.id.hex() == PAID_ID


PAID_GOLDEN = "bb942f97d9981c36831e145811a049e6e885cd19d33234dea8289d854ab4149d"
PAID_ID = "93e1e9f9fb3e499a627b8ffaebe7f79e41fe4ccbc76b57ab461ceef77de8c39b"


@pytest.mark.parametrize(
    "make",
    [
        lambda: NetworkFile("paid", "ton", NONCE),
        lambda: NetworkFile("paid", "none", NONCE, (), FACTS),
        lambda: NetworkFile("paid", "none", NONCE, (), None, (SERVER,)),
        lambda: replace(PAID, liteservers=(SERVER, SERVER.replace("4924", "4925"))),
        lambda: replace(PAID, liteservers=("127.0.0.1:4924",)),
        lambda: replace(FACTS, genesis=GENESIS[1:]),
        lambda: replace(FACTS, faucet=b""),
        lambda: replace(FACTS, close_delay_s=0),
        lambda: replace(FACTS, claim_margin_s=-1),
        lambda: replace(FACTS, claim_margin_s=CHAIN_DELAY_S_MAX + 1),
        lambda: replace(PUBLIC, public=False),
        lambda: replace(PUBLIC, close_delay_s=60),
        lambda: replace(PUBLIC, claim_margin_s=60),
        lambda: replace(PUBLIC, faucet=GENESIS),
        lambda: NetworkFile("main", "ton", NONCE, (), PUBLIC, (SERVER,)),
        lambda: NetworkFile("main", "ton", NONCE, (), PUBLIC),
    ],
)
def test_a_network_that_contradicts_itself_is_refused(make):
    with pytest.raises(BadLink):
        make()


def test_a_public_network_names_two_liteservers_with_keys_of_their_own():
    found = NetworkFile("main", "ton", NONCE, (), PUBLIC, (SERVER, OTHER))
    assert parse_link(format_link(found)) == found
    assert (PUBLIC.global_id, FACTS.global_id) == (-239, -3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        SERVER[:-1],
        SERVER + "=",
        SERVER.replace("4924", "0"),
        SERVER.replace("4924", "04924"),
        SERVER.replace("4924", "65536"),
        SERVER.replace("4924", "٤"),
        SERVER.replace("127.0.0.1", "127.0.0.01"),
        SERVER.replace("127.0.0.1", "localhost"),
        SERVER.replace("127.0.0.1", "::1"),
        SERVER.replace("=", ""),
        SERVER[:-2] + "9=",
        SERVER + "\n",
        SERVER + ":1",
    ],
)
def test_what_is_no_liteserver_is_refused(text):
    with pytest.raises(BadLink):
        parse_liteserver(text)


def test_a_liteserver_reads_back():
    assert parse_liteserver(SERVER) == network.Liteserver("127.0.0.1", 4924, bytes(range(32)))


def test_joining_again_puts_the_links_liteservers_first_and_keeps_one_a_key():
    moved = SERVER.replace("4924", "5000")
    merged = network.join(PAID, replace(PAID, liteservers=(moved, OTHER)))
    assert merged.liteservers == (moved, OTHER)
    assert merged.id == PAID.id


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("[chain]", "[chian]"),
        lambda text: text.replace("public = false", "public = 0"),
        lambda text: text.replace("close_delay_s = 60", "close_delay_s = true"),
        lambda text: text.replace("close_delay_s = 60", 'close_delay_s = "60"'),
        lambda text: text + "more = 1\n",
        lambda text: text.replace("claim_margin_s = 60\n", ""),
        lambda text: text.replace(GENESIS.hex(), GENESIS.hex()[:-1] + "x"),
        lambda text: text.replace(f'    "{SERVER}",', "    4924,"),
        lambda text: text[: text.index("[chain]")],
    ],
)
def test_a_spoiled_file_of_a_paid_network_is_refused_by_name(spoil):
    text = to_toml(PAID)
    assert from_toml(text) == PAID and spoil(text) != text
    with pytest.raises(BadConfig, match="network.toml"):
        from_toml(spoil(text))


def test_a_well_checked_link_to_a_nonsensical_chain_is_refused():
    good = [GENESIS, 60, 60, False, b""]
    lawful = NetworkFile("paid", "ton", NONCE, (), replace(FACTS, faucet=None), ())
    assert parse_link(checked_link([2, "paid", "ton", NONCE, [], good, []])) == lawful
    for fields in (
        [2, "paid", "ton", NONCE, [], good],
        [2, "paid", "ton", NONCE, [], good, [1]],
        [2, "paid", "ton", NONCE, [], good[:4], []],
        [2, "paid", "ton", NONCE, [], [GENESIS, True, 60, False, b""], []],
        [2, "paid", "ton", NONCE, [], [GENESIS, 60, 60, 0, b""], []],
        [2, "paid", "none", NONCE, [], good, []],
        [1, "paid", "ton", NONCE, []],
        [3, "paid", "ton", NONCE, [], good, []],
    ):
        with pytest.raises(BadLink):
            parse_link(checked_link(fields))
