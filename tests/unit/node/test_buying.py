"""Leases of one model at several providers, and lanes of leases that did not come to be or are over (LAN-7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from cocoon.core.errors import ProviderLost, StorageFull
from cocoon.core.ids import LeaseId
from cocoon.core.limits import LEASE_REPLY_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.ledger.lanes import BOOK_FACTS, LeaseReleased
from cocoon.node import records
from cocoon.node.asking import ask_offer
from cocoon.node.buying import Buyer
from cocoon.node.link import WorkLink
from cocoon.node.means import Order
from cocoon.node.models import hash_file
from cocoon.node.purchase import Purchase
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import public_bytes
from cocoon.scheduler.selection import RUNS, Quote
from cocoon.wire.messages import ModelOffer, ModelReady
from cocoon.wire.signing import sign
from tests.unit.ledger import parties
from tests.unit.node.scripted import Memory, Provider, Streets, identity, purse_of, reserve
from tests.unit.scheduler.builders import NETWORK, quote

REQUESTER, PROVIDER = identity(1), identity(2)
LANE = 1


class Scene:
    """A buyer that has just reserved its lane for a lease, and a provider that takes it and does not answer."""

    def __init__(self, nursery: trio.Nursery) -> None:
        streets = Streets(REQUESTER.key, nursery)
        streets.handlers[PROVIDER.key, "/cocoon/lease/1"] = self._mute
        self.asked = trio.Event()
        self.purse = purse_of(REQUESTER, streets, nursery)
        assert isinstance(self.purse.journal, Memory) and self.purse.treasury is not None
        self.journal, self.treasury = self.purse.journal, self.purse.treasury
        self.buyer = Buyer(self.purse, nursery)
        self.lease = sign(
            replace(
                parties.lease(paid=True).message, requester=REQUESTER.key, provider=PROVIDER.key, network=NETWORK,
                lane=LANE,
            ),
            REQUESTER,
        )
        reserve(self.treasury, LANE, PROVIDER.key, self.lease)

    async def _mute(self, stream: PeerStream) -> None:
        self.asked.set()
        await trio.sleep_forever()

    async def agree(self) -> None:
        """Propose the lease."""
        offered: Quote = replace(quote(PROVIDER.key), sealing_key=public_bytes(PROVIDER.hpke))
        await self.buyer._agree(self.lease, self.treasury.lane(LANE).head, offered)

    @property
    def released(self) -> list[LeaseId]:
        """Leases whose end is in the journal."""
        facts = [BOOK_FACTS.unpack(entry.body) for entry in self.journal.entries(records.LANE_FACT)]
        return [fact.lease for fact in facts if isinstance(fact, LeaseReleased)]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        yield Scene(nursery)
        nursery.cancel_scope.cancel()


async def test_a_task_that_is_cancelled_while_its_lease_is_proposed_leaves_the_lane_free() -> None:
    async with scene() as at:
        async with trio.open_nursery() as task:
            task.start_soon(at.agree)
            await at.asked.wait()
            task.cancel_scope.cancel()
        assert at.treasury.lane(LANE).lease is None and at.released == [LeaseId(at.lease.digest)]


async def test_a_lease_that_cannot_be_recorded_leaves_the_lane_free() -> None:
    async with scene() as at:
        at.journal.full = 1
        with pytest.raises(StorageFull):
            await at.agree()
        assert at.treasury.lane(LANE).lease is None and at.released == [LeaseId(at.lease.digest)]


async def test_a_lane_that_cannot_be_freed_while_the_disk_is_full_is_freed_as_a_debt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as at, trio.open_nursery() as nursery:
        nursery.start_soon(at.buyer.debts.run)

        async def fill() -> None:
            await at.asked.wait()
            at.journal.full = 3

        nursery.start_soon(fill)
        with pytest.raises(ProviderLost):
            await at.agree()
        assert at.buyer.debts.leases == {LeaseId(at.lease.digest)} and not at.released
        with trio.fail_after(60):
            while at.buyer.debts.open:
                await trio.sleep(LEASE_REPLY_NS / SECOND_NS)
        assert at.released == [LeaseId(at.lease.digest)] and at.treasury.lane(LANE).lease is None
        nursery.cancel_scope.cancel()


async def test_a_full_disk_at_the_end_of_a_lease_ends_no_peer_and_the_lane_is_freed_when_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as at:
        ended = SimpleNamespace(
            id=LeaseId(at.lease.digest), lease=at.lease, ended_well=True,
            tally=SimpleNamespace(lane=LANE, tab=SimpleNamespace(head=at.treasury.lane(LANE).head)),
        )
        at.journal.full = 4
        await at.buyer._part(ended)  # type: ignore[arg-type]
        assert at.released == [LeaseId(at.lease.digest)] and not at.buyer.debts.open
        assert len(at.purse.log.named("lane_not_freed")) == 4  # type: ignore[attr-defined]


async def test_one_model_is_opened_at_several_providers_side_by_side_and_all_leases_stay_warm(
    autojump_clock: trio.testing.MockClock, tmp_path: Path,
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    order = Order(hash_file(tmp_path / "model.onnx"), False, "infer", RUNS, 5, None)
    may_load = trio.Event()

    async def slow(link: WorkLink) -> None:
        await link.receive(ModelOffer)
        await may_load.wait()
        await link.send(ModelReady(load_us=1))
        await trio.sleep_forever()

    async def quick(link: WorkLink) -> None:
        await link.receive(ModelOffer)
        await link.send(ModelReady(load_us=1))
        await trio.sleep_forever()

    async def progress(event: dict[str, object]) -> None:
        pass

    async with trio.open_nursery() as nursery:
        streets = Streets(REQUESTER.key, nursery)
        purse = purse_of(REQUESTER, streets, nursery)
        buyer = Buyer(purse, nursery)
        sellers = [Provider(identity(2), slow), Provider(identity(3), quick)]
        for seller in sellers:
            seller.settle_in(streets)
        quotes = [await ask_offer(purse.mesh, NETWORK, "infer", seller.keys.key) for seller in sellers]
        opened: list[Purchase] = []

        async def open_slow() -> None:
            opened.append(await buyer.open(quotes[0], order, progress))

        for _ in range(2):                              # two tasks that want the same there share a lease
            nursery.start_soon(open_slow)
        await trio.testing.wait_all_tasks_blocked()
        second = await buyer.open(quotes[1], order, progress)
        assert buyer.warm(order) == [second] and not opened
        may_load.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(opened) == 2 and opened[0] is opened[1] and opened[0].provider == sellers[0].keys.key
        assert set(buyer.warm(order)) == {second, opened[0]}
        assert buyer.warm(replace(order, without=frozenset([second.provider]))) == [opened[0]]
        assert buyer.warm(replace(order, private=True)) == []
        nursery.cancel_scope.cancel()
