"""Network files and join links."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.config import network
from cocoon.config.network import (
    NetworkFile,
    check_address,
    check_same,
    format_link,
    from_toml,
    parse_link,
    to_toml,
)
from cocoon.core.errors import BadConfig, BadLink, WrongNetwork
from cocoon.core.ids import peer_id

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
    assert len(link) <= network.LINK_CHARS and link.isascii() and " " not in link
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


def test_a_well_checked_link_to_nonsense_is_refused():
    """A right checksum proves nothing about the content."""
    import base64

    from cocoon.wire.codec import encode

    bodies = [
        encode([1, "local", "none", NONCE]),
        encode([2, "local", "none", NONCE, []]),
        encode([1, "local", "gold", NONCE, []]),
        encode([1, "local", "none", NONCE[1:], []]),
        encode([1, "Local", "none", NONCE, []]),
        encode([1, "local", "none", NONCE, [1]]),
        encode([1, "local", "none", NONCE, ["/ip4/1.2.3.4/tcp/1"]]),
        encode([1, "local", "none", NONCE, [ADDRESS, ADDRESS]]),
        encode({1: "local"}),
        encode(5),
        b"\x93\x01",
        b"\xcc\x01",
        b"",
    ]
    for body in bodies:
        data = body + hashlib.sha256(body).digest()[:8]
        with pytest.raises(BadLink):
            parse_link("cocoon://join/" + base64.urlsafe_b64encode(data).rstrip(b"=").decode())


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
