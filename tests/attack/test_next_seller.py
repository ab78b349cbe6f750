"""A seller that is preferred and sells nothing costs a requester no more than the next seller.

The hostile provider comes first in the ranking, because both are free and its
peer id is the lower one. Whatever it answers to the lease, the honest provider
beside it runs the task, and nothing is recorded that should not be.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.ids import peer_id
from cocoon.identity.keys import HPKE_SEED_BYTES, Identity, identity_of
from cocoon.identity.service import load_or_create
from cocoon.node import records
from cocoon.p2p.streams import PeerStream
from cocoon.wire.messages import LeaseClose, ModelOffer, ModelWant, Refusal
from cocoon.wire.schema import Message, pack
from tests.attack.conftest import gained, tally
from tests.attack.hostile_provider import HostileProvider, Talk
from tests.loopback.town import Peer, Town, town
from tests.models import adder_model


@dataclass
class Choice:
    """A requester between two sellers."""

    hostile: HostileProvider
    honest: str
    requester: Peer
    folder: Path

    def run(self) -> None:
        """Run a new model; the hostile provider is preferred, the honest one runs it."""
        model = self.folder / "model.onnx"
        # A description of its own (field 6 of the format) makes it another model, so that no warm lease is found.
        model.write_bytes(adder_model() + b"\x32\x10" + os.urandom(8).hex().encode())
        preferred: list[str] = []

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "bids":
                preferred.append(event["chosen"])

        inputs = {"x": np.arange(3, dtype=np.float32)}
        result = cocoon.connect(self.requester.home).run(model, inputs, deadline_s=30, on_event=note)
        assert preferred == [peer_id(self.hostile.identity.key)]
        assert result.provider == self.honest


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
    requester = place.requester(f"requester{len(place.peers)}")
    yield Choice(hostile, honest, requester, place.directory)
    assert requester.terminate() == 0


def says(*words: Message) -> Callable[[PeerStream], Awaitable[None]]:
    """Answers a lease with these words."""

    async def greet(stream: PeerStream) -> None:
        for word in words:
            await stream.send(pack(word))

    return greet


ANSWERS = ["corrupt", "audit_failed", "insufficient_funds", "no_such_code", "wrong_network", "released", "run_failed"]


@pytest.mark.parametrize("code", ANSWERS)
def test_a_refusal_of_a_lease_leads_to_the_next_seller(choice: Choice, code: str) -> None:
    before = tally(choice.requester.home)
    choice.hostile.greet = says(Refusal(code=code, text="your disk is broken"))
    choice.run()
    assert gained(choice.requester.home, before) == {
        records.LEASE_BOUGHT: 1, records.UNIT_ACCEPTED: 1, records.RECEIPT_ACCEPTED: 1,
    }


def test_a_seller_that_hangs_up_leads_to_the_next_one(choice: Choice) -> None:
    choice.hostile.greet = says()
    choice.run()


@pytest.mark.parametrize("word", [
    Refusal(code="corrupt", text="x"), LeaseClose(code="signer_lost"), ModelWant(file=0, first=0, count=9),
], ids=str)
def test_a_lease_that_is_agreed_on_and_comes_to_nothing_leads_to_the_next_seller(choice: Choice, word: Message) -> None:
    async def end(talk: Talk, offer: ModelOffer) -> None:
        await talk.link.send(word)

    choice.hostile.greet, choice.hostile.turns = None, {ModelOffer: end}
    choice.run()
