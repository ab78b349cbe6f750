"""Journals as witnesses: what a peer wrote down before and after an attack."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.config.network import NetworkFile, parse_link
from cocoon.core.ids import peer_id
from cocoon.identity.keys import HPKE_SEED_BYTES, Identity, identity_of
from cocoon.identity.service import load_or_create
from cocoon.node import records
from cocoon.store.reader import open_reader
from cocoon.store.service import JOURNAL_FILE
from tests.attack.hostile_provider import HostileProvider
from tests.loopback.town import Peer, Town, town
from tests.models import adder_model


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


def open_shop(place: Town, name: str = "provider", **environment: str) -> Seller:
    """Start a provider that founds a network."""
    peer = place.up(name, "--provide", **environment)
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


# --- one that lies beside one that does not ----------------------------------


@dataclass
class Choice:
    """A requester between two sellers."""

    hostile: HostileProvider
    honest: str
    requester: Peer
    folder: Path

    @property
    def lower(self) -> str:
        """Peer id of the hostile provider."""
        return peer_id(self.hostile.identity.key)

    def task(self) -> tuple[str, list[dict[str, Any]]]:
        """Run a new model: who ran it, and the auctions."""
        model = self.folder / "model.onnx"
        # A description of its own (field 6 of the format) makes it another model, so that no warm lease is found.
        model.write_bytes(adder_model() + b"\x32\x10" + os.urandom(8).hex().encode())
        auctions: list[dict[str, Any]] = []

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "bids":
                auctions.append(event)

        inputs = {"x": np.arange(3, dtype=np.float32)}
        result = cocoon.connect(self.requester.home).run(model, inputs, deadline_s=30, on_event=note)
        return result.provider, auctions

    def run(self) -> None:
        """Run a new model; the hostile provider is preferred, the honest one runs it."""
        ran, (auction,) = self.task()
        assert (auction["chosen"], ran) == (self.lower, self.honest)


def below(other: str) -> Identity:
    """A new identity whose peer id is lower than ``other``."""
    while peer_id((found := identity_of(os.urandom(32), os.urandom(HPKE_SEED_BYTES), 0)).key) >= other:
        pass
    return found


@pytest.fixture(scope="module")
def sellers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostileProvider, str, Town]]:
    """One that lies, whose peer id is the lower one, and one that does not."""
    folder = tmp_path_factory.mktemp("choice")
    honest = peer_id(load_or_create(folder / "provider").key)
    hostile = HostileProvider()
    hostile.identity = below(honest)
    with hostile.running(), town(folder) as place:
        place.link = hostile.link
        place.provider()
        yield hostile, honest, place


@pytest.fixture
def choice(sellers: tuple[HostileProvider, str, Town]) -> Iterator[Choice]:
    """A requester that knows neither of them yet: it takes the lower peer id first."""
    hostile, honest, place = sellers
    hostile.lie, hostile.greet, hostile.bid = None, None, None
    hostile.turns.clear()
    requester = place.requester(f"requester{len(place.peers)}")
    yield Choice(hostile, honest, requester, place.directory)
    assert requester.terminate() == 0
