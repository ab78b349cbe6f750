"""The bootstrap is gone for good: members find each other by their address books, strangers are told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cocoon
from cocoon.core.errors import BootstrapUnreachable
from tests.loopback.conftest import settle
from tests.loopback.town import PATIENCE_S, Peer, Town
from tests.loopback.verdict import refused, run
from tests.models import affine_inputs, affine_model


def come_back(place: Town, *names: str) -> list[Peer]:
    """Peers on homes that exist, in this order, without a link; each ready before the next."""
    provide = {"provider": ("--provide",)}
    peers = []
    for name in names:
        peers.append(place.up(name, *provide.get(name, ())))
        peers[-1].wait_line("ready")
    return peers


def acquainted(one: Peer, other: Peer) -> None:
    """Wait until ``one`` is connected to ``other``; nobody has bought anything yet."""
    deadline, key = time.monotonic() + PATIENCE_S, cocoon.connect(other.home).status()["peer"]
    while key not in (known := cocoon.connect(one.home).status()["connections"]):
        assert time.monotonic() < deadline, known


def leave(*peers: Peer) -> None:
    """End them in the lawful way."""
    for peer in peers:
        assert peer.terminate() == 0, peer.last_words()


def task(place: Town, requester: Peer, folder: Path) -> dict[str, Any]:
    """What the first unit of a good task was told."""
    done = run(place, requester, folder, affine_model(), affine_inputs())
    assert done.code == 0, done
    return done.objects[0]


def test_restarted_members_find_each_other_without_the_bootstrap(empty_town: Town, tmp_path: Path) -> None:
    settled = settle(empty_town)
    acquainted(settled.requester, settled.provider)
    leave(settled.bootstrap, settled.requester, settled.provider)
    provider, requester = come_back(empty_town, "provider", "requester")
    done = [task(empty_town, requester, tmp_path)]
    leave(provider, requester)
    requester, provider = come_back(empty_town, "requester", "provider")
    assert "still trying" in requester.wait_line("warning: none of the known peers answered")
    done.append(task(empty_town, requester, tmp_path))
    assert len({item["provider"] for item in done}) == 1 and len({item["lease"] for item in done}) == 2
    listed = empty_town.cocoon(requester, "receipts", "ls", "--json")
    assert {item["hash"] for item in listed.objects[:-1]} == {item["receipt"] for item in done}
    newcomer = empty_town.cocoon(tmp_path / "newcomer", "up", "--join", settled.bootstrap.lines[0], "--json")
    refused(newcomer, BootstrapUnreachable, "none of the known peers answered: /ip4/127.0.0.1/tcp/")
