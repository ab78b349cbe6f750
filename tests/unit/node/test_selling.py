"""The places of a provider (LEA-3, LEA-9): whatever breaks, each is given back."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from cocoon.core.errors import CocoonError, LaneBusy, StorageFull, StreamClosed
from cocoon.core.ids import LeaseId
from cocoon.core.values import replace
from cocoon.ledger.events import StatementMade
from cocoon.node import records
from cocoon.node.bids import BidDesk
from cocoon.node.counter import OfferCounter
from cocoon.node.means import Shop
from cocoon.node.sale import Sale
from cocoon.node.selling import Seller
from cocoon.node.stock import Terms
from cocoon.node.till import FREE, Entry
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.hpke import public_bytes, seal_keys
from cocoon.privacy.link import LinkKeys
from cocoon.scheduler.sale import AnswerRuns, ReserveRuns
from cocoon.scheduler.strategy import Strategy
from cocoon.wire.market import Bid, BidReply
from cocoon.wire.messages import KeyBox, Lease, LeaseAccept, LeaseOpen
from cocoon.wire.schema import pack
from cocoon.wire.signing import Signed, open_signed, sign
from tests.unit.ledger import parties
from tests.unit.ledger.parties import BIRTH
from tests.unit.node.scripted import Clock, Heard, Memory, connected, identity
from tests.unit.scheduler import builders

PROVIDER, REQUESTER = identity(1), identity(2)
PRICED = Terms(prices=((1, 1_500),))


class Till:
    """Takes leases in and lets them go, or fails at it."""

    def __init__(self, **failures: CocoonError) -> None:
        self._failures = failures

    async def enter(self, *args: object, **more: object) -> Entry:
        self._fail("enter")
        return FREE

    async def abandon(self, terms: object) -> None:
        self._fail("abandon")

    async def leave(self, terms: object, issuer: object) -> None:
        self._fail("leave")

    def _fail(self, where: str) -> None:
        if where in self._failures:
            raise self._failures[where]


def shop(till: Till) -> Shop:
    """A shop with a counter, a journal and this till."""
    counter = OfferCounter(lambda: PROVIDER, builders.NETWORK, bytes(8), PRICED, builders.PROFILE, Clock())
    strategy = Strategy(asks=PRICED.prices, max_model_bytes=PRICED.max_model_bytes)
    bids = BidDesk(PROVIDER, counter, None, strategy, Clock(), PRICED.leases_max)  # type: ignore[arg-type]
    bids._closed = lambda: None
    mesh = SimpleNamespace(direct=None)
    rest: dict[str, Any] = {"bids": bids, "shelf": None, "runtime": None, "mesh": mesh, "anchors": None}
    return Shop(
        identity=PROVIDER, network=builders.NETWORK, counter=counter, journal=Memory(),  # type: ignore[arg-type]
        terms=PRICED, clock=Clock(), log=Heard(), till=till, **rest,  # type: ignore[arg-type]
    )


def paid_lease(at: Shop) -> Signed[Lease]:
    """A lease under a bid that this shop has just made."""
    reply = at.bids._answer(REQUESTER.key, builders.call(nonce=os.urandom(16)))
    assert isinstance(reply, BidReply)
    bid = open_signed(reply.bid, Bid)
    body = builders.lease(
        requester=REQUESTER.key, provider=PROVIDER.key, bid=bid.digest, prices=bid.message.prices,
        ceiling_nanoton=1_000, escrow=BIRTH.address(), lane=1, owner=BIRTH.owner, lane_key=BIRTH.lane_key,
        index=BIRTH.index, close_delay_s=BIRTH.close_delay_s, network_tag=BIRTH.network_tag, tranche_nanoton=500,
    )
    return sign(body, REQUESTER)


def opening(lease: Signed[Lease]) -> bytes:
    """The first frame of a lease."""
    keys = LinkKeys.from_bytes(os.urandom(64))
    box = seal_keys(
        public_bytes(PROVIDER.hpke), LeaseId(lease.digest), keys, sender=REQUESTER.key, receiver=PROVIDER.key
    )
    keybox = sign(KeyBox(lease=lease.digest, box=box), REQUESTER)
    return pack(LeaseOpen(lease=lease.pack(), keybox=keybox.pack(), voucher=b"", signature=b""))


async def vanishing(first: bytes) -> PeerStream:
    """A stream whose other side says ``first`` and is gone."""
    ours, theirs = connected(PROVIDER.key, REQUESTER.key)
    await theirs.send(first)
    await theirs.reset()
    return ours


@pytest.mark.parametrize("till", [
    pytest.param(Till(enter=LaneBusy("another lease is open on it")), id="refused"),
    pytest.param(Till(), id="agreed"),
    pytest.param(Till(abandon=StorageFull("no room")), id="agreed on a full disk"),
])
async def test_a_requester_that_is_gone_before_the_answer_leaves_its_place(till: Till) -> None:
    at = shop(till)
    seller = Seller(at)
    with pytest.raises((StreamClosed, StorageFull)):
        await seller._take(await vanishing(opening(paid_lease(at))))
    assert not seller._open and at.counter.capacity.leases_open == 0
    with trio.fail_after(1):
        await seller.drained()


class Gate(Till):
    """Asks the chain of each lease until all are there, as long as a slow one takes."""

    def __init__(self, leases: int) -> None:
        super().__init__()
        self._missing = leases
        self._open = trio.Event()

    async def enter(self, *args: object, **more: object) -> Entry:
        self._missing -= 1
        if not self._missing:
            self._open.set()
        await self._open.wait()
        return FREE


async def test_of_two_leases_under_one_bid_that_wait_for_the_chain_one_is_made() -> None:
    at = shop(Gate(2))
    seller, first = Seller(at), paid_lease(at)
    second = sign(replace(first.message, nonce=os.urandom(16), lane=2), REQUESTER)

    async def propose(lease: Signed[Lease]) -> None:
        with pytest.raises(StreamClosed):               # what it answers reaches nobody; what it signed is journalled
            await seller._take(await vanishing(opening(lease)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(propose, first)
        nursery.start_soon(propose, second)
    assert len(list(at.journal.entries(records.LEASE_SOLD))) == 1
    assert not seller._open


class Closes:
    """A worker, a model on its way, or a link: it is told when its lease is over."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True

    def discard(self) -> None:
        self.closed = True

    def post(self, message: object) -> None:
        raise AssertionError("said on a lease that is over")

    async def flush(self) -> None:
        """Nothing was said."""


async def test_a_full_disk_at_the_end_of_a_lease_leaves_no_worker_no_model_and_no_link() -> None:
    at = shop(Till(leave=StorageFull("no room")))
    lease = paid_lease(at)
    accept = sign(LeaseAccept(lease=lease.digest, keybox=bytes(32), nonce=bytes(32), resumed=False), PROVIDER)
    link, worker, delivery = parts = Closes(), Closes(), Closes()
    sale = Sale(at, lease, accept, link, 0)  # type: ignore[arg-type]
    sale._execution._seat, sale._delivery = worker, delivery  # type: ignore[assignment]
    with pytest.raises(StorageFull):
        await sale._clear()
    assert all(part.closed for part in parts)


async def test_a_number_is_reserved_durably_before_its_run_and_a_result_does_not_wait_for_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = shop(Till())
    lease = paid_lease(at)
    accept = sign(LeaseAccept(lease=lease.digest, keybox=bytes(32), nonce=bytes(32), resumed=False), PROVIDER)
    sale, journal = Sale(at, lease, accept, Closes(), 0), at.journal  # type: ignore[arg-type]
    assert isinstance(journal, Memory)
    made = StatementMade(parties.statement(parties.terms(), 1))
    monkeypatch.setattr(sale, "_state", lambda number: made)
    await sale._record([ReserveRuns(4)])
    assert [row.kind for row in journal.rows] == [records.RUNS_RESERVED] and journal.flushed == 1
    await sale._record([AnswerRuns((1, 2))])
    assert [row.kind for row in journal.rows[1:]] == [records.RECEIPT_FACT] and journal.flushed == 1
    await sale._record([AnswerRuns((3,)), ReserveRuns(8)])
    assert journal.flushed == len(journal.rows) == 4
