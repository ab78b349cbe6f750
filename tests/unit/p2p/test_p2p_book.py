"""The address book: bounded, ordered by worth, the same after a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon.core.errors import Corrupt
from cocoon.core.ids import PeerKey
from cocoon.core.limits import ADDRESS_BOOK_PEERS, ADDRESSES_PER_PEER
from cocoon.p2p import book as book_module
from cocoon.p2p.addresses import Address
from cocoon.p2p.book import AddressBook, pack_book, unpack_book
from cocoon.p2p.bookfile import load_book, save_book

PEERS = st.integers(0, 12).map(lambda n: PeerKey(bytes([n]) * 32))
ADDRESSES = st.integers(1, 15).map(lambda n: Address("ip4", "192.0.2.1", n))
EDITS = st.lists(st.tuples(st.sampled_from(["heard", "worked", "failed", "forget"]), PEERS, ADDRESSES), max_size=60)


def peer(number: int) -> PeerKey:
    return PeerKey(number.to_bytes(32, "big"))


def at(port: int) -> Address:
    return Address("ip4", "192.0.2.1", port)


def edited(edits) -> AddressBook:
    book = AddressBook()
    for verb, who, where in edits:
        match verb:
            case "heard":
                book.heard(who, [where])
            case "forget":
                book.forget(who)
            case _:
                getattr(book, verb)(who, where)
    return book


@given(EDITS)
def test_whatever_is_learnt_the_book_stays_within_its_bounds(edits):
    book = edited(edits)
    assert len(book) <= ADDRESS_BOOK_PEERS
    for who in book.peers():
        assert 1 <= len(book.addresses(who)) <= ADDRESSES_PER_PEER


@given(EDITS)
def test_a_restart_changes_neither_content_nor_order(edits):
    book = edited(edits)
    again = unpack_book(pack_book(book))
    assert again.peers() == book.peers()
    assert all(again.addresses(p) == book.addresses(p) for p in book.peers())
    assert pack_book(again) == pack_book(book)


def test_a_full_book_gives_up_the_peer_with_most_failures_then_the_oldest(monkeypatch):
    monkeypatch.setattr(book_module, "ADDRESS_BOOK_PEERS", 3)
    book = AddressBook()
    for number in (1, 2, 3):
        book.worked(peer(number), at(number))
    book.failed(peer(2), at(2))
    book.worked(peer(4), at(4))
    assert set(book.peers()) == {peer(1), peer(3), peer(4)}
    book.worked(peer(5), at(5))
    assert set(book.peers()) == {peer(3), peer(4), peer(5)}


def test_a_flood_of_hearsay_displaces_no_peer_that_once_answered(monkeypatch):
    monkeypatch.setattr(book_module, "ADDRESS_BOOK_PEERS", 3)
    book = AddressBook()
    book.worked(peer(1), at(1))
    book.worked(peer(2), at(2))
    for number in range(10, 40):
        book.heard(peer(number), [at(number)])
    assert {peer(1), peer(2)} < set(book.peers())


def test_the_address_that_worked_last_is_tried_first_and_a_failing_one_last():
    book = AddressBook()
    book.heard(peer(1), [at(1), at(2), at(3)])
    book.worked(peer(1), at(2))
    book.worked(peer(1), at(3))
    book.failed(peer(1), at(2))
    assert book.addresses(peer(1)) == [at(3), at(1), at(2)]


def test_a_ninth_address_takes_the_place_of_the_worst():
    book = AddressBook()
    book.heard(peer(1), [at(n) for n in range(1, 9)])
    book.worked(peer(1), at(1))
    book.failed(peer(1), at(5))
    book.heard(peer(1), [at(100)])
    assert at(100) in book.addresses(peer(1)) and at(5) not in book.addresses(peer(1))


def test_a_failure_of_an_unknown_address_adds_nothing():
    book = AddressBook()
    book.failed(peer(1), at(1))
    assert len(book) == 0 and not book.changed


@pytest.mark.parametrize(
    "data",
    [b"", b"\x93\x01", b"\x93\x02\x00\x90", b"\x80", bytes(1000), b"\x93\x01\x00\x91\x92\xc4\x01a\x90"],
)
def test_what_is_no_book_is_corrupt(data):
    with pytest.raises(Corrupt):
        unpack_book(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_book_is_corrupt_or_a_lawful_book(where, value):
    book = AddressBook()
    for number in range(5):
        book.worked(peer(number), at(number + 1))
    data = bytearray(pack_book(book))
    data[where % len(data)] = value
    try:
        found = unpack_book(bytes(data))
    except Corrupt:
        return
    assert all(found.addresses(p) for p in found.peers())


def test_a_broken_file_is_set_aside_and_the_peer_starts_with_an_empty_book(tmp_path):
    path = tmp_path / "book"
    path.write_bytes(b"not a book")
    assert len(load_book(path)) == 0
    assert not path.exists() and (tmp_path / "book.broken").read_bytes() == b"not a book"


def test_a_saved_book_is_private_and_comes_back(tmp_path):
    path = tmp_path / "book"
    book = AddressBook()
    book.worked(peer(1), at(1))
    save_book(book, path)
    assert not book.changed and path.stat().st_mode & 0o777 == 0o600
    assert load_book(path).addresses(peer(1)) == [at(1)]
    assert [p.name for p in tmp_path.iterdir()] == ["book"]


def test_no_file_is_an_empty_book(tmp_path):
    assert len(load_book(tmp_path / "nothing")) == 0
