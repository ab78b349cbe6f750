"""A settled town for tests that do not harm their peers, and an empty one for those that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loopback.town import Peer, Town, town


@dataclass(frozen=True, slots=True)
class Settled:
    """A bootstrap, a provider and a requester, all ready."""

    town: Town
    bootstrap: Peer
    provider: Peer
    requester: Peer


def settle(place: Town) -> Settled:
    """Start the usual three."""
    return Settled(place, place.bootstrap(), place.provider(), place.requester())


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    """Shared by the tests of one module; they leave its peers up."""
    with town(tmp_path_factory.mktemp("town")) as place:
        yield settle(place)


@pytest.fixture
def empty_town(tmp_path: Path) -> Iterator[Town]:
    """No peer yet."""
    with town(tmp_path) as place:
        yield place
