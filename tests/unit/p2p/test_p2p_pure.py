"""Addresses, back-off, heartbeat and look-up: the pure parts of the mesh."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import OutOfOrder, UsageError
from cocoon.core.groups import single_error
from cocoon.core.ids import PeerKey, peer_id
from cocoon.core.limits import (
    ADDRESSES_PER_PEER,
    DHT_CLOSEST,
    DHT_PARALLEL,
    DHT_SEEN,
    HEARTBEATS_MISSED,
    RETRY_FIRST_NS,
    RETRY_LAST_NS,
)
from cocoon.core.retry import Backoff
from cocoon.p2p.addresses import Address, address_block, address_class, parse, parse_peer, readable, usable
from cocoon.p2p.heartbeat import Pulse
from cocoon.p2p.lookup import Lookup, distance, node_key

KEY = hashlib.sha256(b"key").digest()
SELF = PeerKey(b"\xff" * 32)
PEERS = st.integers(0, 60).map(lambda n: PeerKey(bytes([n]) * 32))


@pytest.mark.parametrize(
    "text",
    ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/1", "/dns4/peer.example.org/tcp/65535", "/ip4/0.0.0.0/tcp/0"],
)
def test_an_address_reads_back_as_it_was_written(text):
    assert parse(text)[0].text == text
    assert parse_peer(parse(text)[0].of(SELF)) == (parse(text)[0], SELF)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "192.0.2.1:4001", "/ip4/192.0.2.1/tcp/65536", "/ip4/192.0.2.1/tcp/-1", "/ip4/192.0.2.1/tcp/",
        "/ip4/192.0.2.256/tcp/1", "/ip4/192.0.2.1/udp/1", "/ip4/192.0.2.1/tcp/1/ws", "/ip6/zz/tcp/1",
        "/dns4/a b/tcp/1", "/unix/x/tcp/1", "/ip4/192.0.2.1/tcp/1/p2p/x", "/ip4/192.0.2.1/tcp/1/p2p",
        f"/ip4/192.0.2.1/tcp/1/http/{peer_id(SELF)}", "/dns4/" + "a" * 500 + "/tcp/1", "/ip4/192.0.2.1/tcp/\u0661",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused(text):
    try:
        address, _ = parse(text)
    except UsageError:
        return
    assert parse(address.text)[0] == address


def test_an_address_without_its_peer_is_not_dialled():
    with pytest.raises(UsageError, match="p2p"):
        parse_peer("/ip4/192.0.2.1/tcp/1")


def test_of_what_strangers_announce_only_tcp_is_read():
    announced = ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1", "nonsense", "/ip4/192.0.2.1/tcp/0"]
    assert readable(announced) == [Address("ip4", "192.0.2.1", 1)]


def test_an_unspecified_listen_address_becomes_the_one_we_saw():
    announced = [Address("ip4", "0.0.0.0", 7), Address("ip4", "127.0.0.1", 7)]
    assert usable(announced, "10.0.0.5") == (Address("ip4", "10.0.0.5", 7),)
    assert usable(announced, None) == ()
    assert usable(announced, "127.0.0.1") == (Address("ip4", "127.0.0.1", 7),)


@given(st.lists(st.integers(1, 65_535), max_size=40))
def test_a_peer_has_few_addresses_whatever_it_announces(ports):
    kept = usable([Address("ip4", "192.0.2.1", p) for p in ports], "192.0.2.1")
    assert len(kept) <= ADDRESSES_PER_PEER and len(set(kept)) == len(kept)


def test_classes_of_addresses():
    assert [address_class(ip) for ip in ("127.0.0.1", "::1", "10.1.2.3", "fe80::1", "8.8.8.8", None, "x")] == [
        "loopback", "loopback", "private", "private", "public", "public", "public",
    ]


def test_a_block_is_what_one_owner_usually_holds():
    seen = ("192.0.2.77", "2001:db8:1:2::3", "::ffff:192.0.2.9", "fe80::1%eth0", None, "x")
    assert [address_block(ip) for ip in seen] == [
        "192.0.2.0/24", "2001:db8:1::/48", "192.0.2.0/24", "fe80::/48", "", "",
    ]


def test_a_peer_is_the_nearest_node_to_its_own_key():
    others = [PeerKey(bytes([n]) * 32) for n in range(60)]
    assert all(min(others, key=lambda p: distance(node_key(peer), p)) == peer for peer in others)
    assert distance(node_key(SELF), SELF) == 0


def test_back_off_doubles_from_first_to_last_and_begins_anew_after_a_success():
    backoff, delays = Backoff(), []
    for _ in range(12):
        backoff.failed()
        delays.append(backoff.delay_ns())
    assert delays[0] == RETRY_FIRST_NS and delays[-1] == RETRY_LAST_NS
    assert all(b == min(2 * a, RETRY_LAST_NS) for a, b in zip(delays, delays[1:], strict=False))
    backoff.succeeded()
    assert backoff.delay_ns() == RETRY_FIRST_NS


def test_a_peer_is_lost_after_the_misses_and_not_before():
    pulse = Pulse()
    assert [pulse.silent() for _ in range(HEARTBEATS_MISSED + 1)] == [False] * HEARTBEATS_MISSED + [True]


def test_a_beat_makes_good_for_earlier_misses():
    pulse = Pulse()
    for seq in range(1, 10):
        assert not any(pulse.silent() for _ in range(HEARTBEATS_MISSED))
        pulse.heard(seq)


@pytest.mark.parametrize("seq", [0, 1, 3, 2**40])
def test_a_replayed_or_skipped_beat_is_refused(seq):
    pulse = Pulse()
    pulse.heard(1)
    with pytest.raises(OutOfOrder):
        pulse.heard(seq)


def test_distance_is_the_librarys():
    from cocoon.p2p import compat  # noqa: F401  first: libp2p cannot be imported without it

    # isort: split
    from libp2p.kad_dht.utils import sort_peer_ids_by_distance

    from cocoon.p2p.host import lib_id

    peers = [PeerKey(hashlib.sha256(bytes([n])).digest()) for n in range(50)]
    ours = sorted(peers, key=lambda p: distance(KEY, p))
    assert [str(i) for i in sort_peer_ids_by_distance(KEY, [lib_id(p) for p in peers])] == [peer_id(p) for p in ours]


VERBS = st.sampled_from(["answer", "silence", "learn"])


@given(st.lists(st.tuples(PEERS, VERBS, st.lists(PEERS, max_size=5)), max_size=60))
def test_a_look_up_asks_each_peer_once_never_itself_and_ends(script):
    lookup, asked = Lookup(KEY, SELF), []
    lookup.learn([(PeerKey(bytes([200]) * 32), ()), (SELF, ())])

    def ask() -> None:
        new = lookup.next_peers()
        assert len(lookup.in_flight) <= DHT_PARALLEL
        asked.extend(new)

    ask()
    for who, verb, closer in script:
        lookup.learn([(p, ()) for p in closer])
        if who in lookup.in_flight and verb != "learn":
            getattr(lookup, verb)(who)
        ask()
    for _ in range(1000):
        if lookup.done():
            break
        lookup.answer(next(iter(lookup.in_flight)))
        ask()
    assert lookup.done() and len(asked) == len(set(asked)) and SELF not in asked
    assert len(lookup.nearest()) <= DHT_CLOSEST


def test_a_look_up_names_a_provider_once_however_often_it_is_found():
    lookup, seller = Lookup(KEY, SELF), PeerKey(b"s" * 32)
    assert lookup.found([(seller, ()), (seller, ()), (SELF, ())]) == [seller]
    assert lookup.found([(seller, ())]) == []


def test_a_look_up_remembers_a_bounded_number_of_strangers():
    lookup = Lookup(KEY, SELF)
    flood = [(PeerKey(n.to_bytes(32, "big")), ()) for n in range(2 * DHT_SEEN)]
    lookup.learn(flood)
    lookup.found(flood)
    assert len(lookup.hints) == len(lookup.providers) == DHT_SEEN


def test_a_silent_peer_makes_room_for_the_next_nearest():
    lookup = Lookup(KEY, SELF)
    lookup.learn([(PeerKey(hashlib.sha256(bytes([n])).digest()), ()) for n in range(DHT_CLOSEST + 5)])
    first = lookup.next_peers()
    before = set(lookup.nearest())
    lookup.silence(first[0])
    assert first[0] not in lookup.nearest() and len(set(lookup.nearest()) - before) == 1


def test_one_typed_error_comes_out_of_five_groups():
    error: BaseException = UsageError("mine")
    for _ in range(5):
        error = ExceptionGroup("library", [error])
    with pytest.raises(UsageError, match="mine"), single_error():
        raise error


def test_ours_wins_over_a_library_error_in_the_same_group():
    with pytest.raises(UsageError), single_error():
        raise ExceptionGroup("library", [ValueError("theirs"), ExceptionGroup("", [UsageError("ours")])])
