"""The address book: which peers exist and where they were reached, bounded, one small file.

It lets two restarted peers find each other when every bootstrap is dead. Time
is a counter that rises with each success, so that the book needs no clock and
orders entries across restarts.

Invariants
    At most ``ADDRESS_BOOK_PEERS`` peers and ``ADDRESSES_PER_PEER`` addresses each.
    A peer that answered once is never displaced by one that was only heard of.

Purity: pure; the file is written by ``p2p.bookfile``. Spec: docs/spec/p2p.md, rule P2P-6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cocoon.core.errors import CocoonError, Corrupt
from cocoon.core.ids import PeerKey
from cocoon.core.limits import ADDRESS_BOOK_FILE_BYTES, ADDRESS_BOOK_PEERS, ADDRESSES_PER_PEER
from cocoon.p2p.addresses import Address, parse
from cocoon.wire.codec import decode, encode

_VERSION = 1
_FAILURES_COUNTED = 255


@dataclass(slots=True)
class Entry:
    """One address of one peer. ``last_success`` 0 means: heard of, never reached."""

    address: Address
    failures: int = 0
    last_success: int = 0


@dataclass(slots=True)
class AddressBook:
    """All peers we may dial. ``changed`` is set by every edit and cleared by whoever saved."""

    ticks: int = 0
    changed: bool = False
    _peers: dict[PeerKey, list[Entry]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._peers)

    def peers(self) -> list[PeerKey]:
        """Peers in the order worth trying: fewest failures first, then the latest success."""
        return sorted(self._peers, key=lambda p: (self._worth(p), p))

    def addresses(self, peer: PeerKey) -> list[Address]:
        """Addresses of ``peer`` in the order worth trying; empty if unknown."""
        entries = sorted(self._peers.get(peer, ()), key=_entry_worth)
        return [e.address for e in entries]

    def heard(self, peer: PeerKey, addresses: Iterable[Address]) -> None:
        """Remember addresses that ``peer`` itself told us over an authenticated connection."""
        for address in addresses:
            self._put(peer, address)

    def worked(self, peer: PeerKey, address: Address) -> None:
        """A dial of ``address`` reached ``peer``."""
        entry = self._put(peer, address)
        if entry is not None:
            self.ticks += 1
            entry.failures, entry.last_success = 0, self.ticks

    def failed(self, peer: PeerKey, address: Address) -> None:
        """A dial of ``address`` did not reach ``peer``; an unknown address is not added."""
        for entry in self._peers.get(peer, ()):
            if entry.address == address and entry.failures < _FAILURES_COUNTED:
                entry.failures += 1
                self.changed = True

    def forget(self, peer: PeerKey) -> None:
        """Drop ``peer``, for example because it belongs to another network."""
        if self._peers.pop(peer, None) is not None:
            self.changed = True

    def _put(self, peer: PeerKey, address: Address) -> Entry | None:
        entries = self._peers.get(peer)
        if entries is None:
            if len(self._peers) >= ADDRESS_BOOK_PEERS and not self._evict():
                return None
            entries = self._peers.setdefault(peer, [])
        for entry in entries:
            if entry.address == address:
                return entry
        if len(entries) >= ADDRESSES_PER_PEER:
            entries.remove(max(entries, key=_entry_worth))
        entry = Entry(address)
        entries.append(entry)
        self.changed = True
        return entry

    def _evict(self) -> bool:
        """Make room: most failures first, then the oldest success."""
        worst = max(self._peers, key=lambda p: (self._worth(p), p))
        del self._peers[worst]
        return True

    def _worth(self, peer: PeerKey) -> tuple[int, int]:
        return min(_entry_worth(e) for e in self._peers[peer])


def _entry_worth(entry: Entry) -> tuple[int, int]:
    return entry.failures, -entry.last_success


def pack_book(book: AddressBook) -> bytes:
    """Canonical msgpack, peers sorted.

    [version, ticks, [[peer, [[address, failures, last_success]...]]...]]
    """
    peers = [
        [bytes(peer), [[e.address.text, e.failures, e.last_success] for e in entries]]
        for peer, entries in sorted(book._peers.items())
    ]
    return encode([_VERSION, book.ticks, peers])


def unpack_book(data: bytes) -> AddressBook:
    """Read a book back.

    Raises:
        Corrupt: not a book; the caller sets the file aside and starts anew.
    """
    try:
        return _unpacked(decode(data, max_bytes=ADDRESS_BOOK_FILE_BYTES))
    except Corrupt:
        raise
    except (CocoonError, ValueError, TypeError) as error:
        raise Corrupt(f"the address book cannot be read: {error}") from error


def _unpacked(value: object) -> AddressBook:
    match value:
        case [1, int(ticks), list(peers)] if len(peers) <= ADDRESS_BOOK_PEERS:   # 1 is _VERSION
            book = AddressBook(ticks=ticks)
        case _:
            raise Corrupt("the address book has another layout or version")
    for item in peers:
        match item:
            case [bytes(peer), list(entries)] if len(peer) == 32 and len(entries) <= ADDRESSES_PER_PEER:
                book._peers[PeerKey(peer)] = [_entry(e) for e in entries]
            case _:
                raise Corrupt("an entry of the address book has another layout")
    book._peers = {p: e for p, e in book._peers.items() if e}
    return book


def _entry(value: object) -> Entry:
    match value:
        case [str(text), int(failures), int(last_success)] if failures >= 0 and last_success >= 0:
            return Entry(parse(text)[0], min(failures, _FAILURES_COUNTED), last_success)
        case _:
            raise Corrupt("an address in the address book has another layout")
