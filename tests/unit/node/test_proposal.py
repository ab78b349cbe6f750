"""P2P-10: a direct connection is a gain, and its failure no loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cocoon.core.errors import Unreachable
from cocoon.core.ids import PeerKey
from cocoon.node.proposal import _direct
from cocoon.wire.messages import LeaseAccept
from tests.unit.node.scripted import Heard

NAMED = LeaseAccept(lease=bytes(32), keybox=bytes(32), nonce=bytes(32), resumed=False, port=4_001, token=bytes(16))
UNNAMED = LeaseAccept(lease=bytes(32), keybox=bytes(32), nonce=bytes(32), resumed=False)


class Opened:
    """The libp2p stream of a lease."""

    peer = PeerKey(bytes(32))
    closed = False

    async def close(self) -> None:
        self.closed = True


class Mesh:
    """Dials a port, or does not reach it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.dialled: list[tuple[PeerKey, int, bytes]] = []

    async def dial_direct(self, peer: PeerKey, port: int, token: bytes) -> object:
        self.dialled.append((peer, port, token))
        if isinstance(self.answer, Unreachable):
            raise self.answer
        return self.answer


def purse(mesh: Mesh, wants: bool = True) -> Any:
    return cast(Any, SimpleNamespace(mesh=mesh, log=Heard(), direct_links=wants))


async def test_a_lease_moves_to_the_connection_that_its_provider_names() -> None:
    mesh, opened = Mesh("direct"), Opened()
    assert await _direct(purse(mesh), cast(Any, opened), NAMED) == "direct"  # type: ignore[comparison-overlap]
    assert mesh.dialled == [(opened.peer, NAMED.port, NAMED.token)] and opened.closed


async def test_a_port_that_cannot_be_reached_leaves_the_lease_where_it_is() -> None:
    opened = Opened()
    assert await _direct(purse(Mesh(Unreachable("no way"))), cast(Any, opened), NAMED) is opened  # type: ignore[comparison-overlap]
    assert not opened.closed


@pytest.mark.parametrize(("accept", "wants"), [(UNNAMED, True), (NAMED, False)])
async def test_nothing_is_dialled_that_is_not_named_or_not_wanted(accept: LeaseAccept, wants: bool) -> None:
    mesh, opened = Mesh("direct"), Opened()
    assert await _direct(purse(mesh, wants), cast(Any, opened), accept) is opened  # type: ignore[comparison-overlap]
    assert not mesh.dialled and not opened.closed
