"""Journals as witnesses: what a peer wrote down before and after an attack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cocoon.config.network import NetworkFile, parse_link
from cocoon.node import records
from cocoon.store.reader import open_reader
from cocoon.store.service import JOURNAL_FILE
from tests.loopback.town import Peer, Town, town


def tally(home: Path) -> Counter[str]:
    """Journal rows of a peer by kind, read while it runs; what it thinks of others binds nobody."""
    with open_reader(home / JOURNAL_FILE) as reader:
        return Counter(entry.kind for entry in reader.entries() if entry.kind != records.OUTCOME_SEEN)


def gained(home: Path, before: Counter[str]) -> dict[str, int]:
    """Rows that came since ``before``, by kind; empty if nothing changed."""
    return dict(tally(home) - before)


@dataclass
class Seller:
    """A real provider process that founded its own network."""

    peer: Peer
    place: Town
    network: NetworkFile

    def tally(self) -> Counter[str]:
        """Its journal rows by kind."""
        return tally(self.peer.home)

    def gained(self, before: Counter[str]) -> dict[str, int]:
        """Rows that came since ``before``."""
        return gained(self.peer.home, before)


def open_shop(place: Town, name: str = "provider") -> Seller:
    """Start a provider that founds a network."""
    peer = place.up(name, "--provide")
    link = peer.wait_line("cocoon://join/")
    peer.wait_line("ready")
    return Seller(peer, place, parse_link(link))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seller]:
    """One provider for all attacks of a module."""
    with town(tmp_path_factory.mktemp("shop")) as place:
        yield open_shop(place)


@pytest.fixture
def seller(shop: Seller) -> Iterator[Seller]:
    """The provider, which must survive the test, and no defect of it may have shown."""
    yield shop
    assert shop.peer.process.poll() is None, shop.peer.last_words()
    whole = shop.peer.log().rpartition("\n")[0]         # the peer may be writing the last line right now
    events = {json.loads(line)["event"] for line in whole.splitlines()}
    assert not events & {"p2p.handler_failed", "p2p.task_failed", "sale_failed", "purchase_failed"}
