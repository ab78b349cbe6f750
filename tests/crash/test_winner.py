"""The winner of an auction dies at each step of a task; the task completes, and each unit is paid once, where it ran.

One devnet, one requester, and two providers, of which the cheaper one is taken
whenever it bids. It dies by SIGKILL at the named step, comes back on its home
and settles; the next case stands on what this one left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.ids import peer_id
from cocoon.sdk.fields import take_hex
from tests import journals
from tests.crash import books
from tests.crash.pair import Case, begin, mark, see_death
from tests.loopback.paid import BLOCK_MS, TON, Market, accepted, covered, failed, inputs, kept, until, vouched
from tests.loopback.town import Peer, town

UNITS = 8
#: A unit of the winner costs one tranche, so each has a receipt of its own. The runner-up asks as much more as it
#: takes to be second even to a provider that lost every lease of the matrix.
UNIT_NANOTON = {"winner": 1_000_000, "runner": 4_000_000}
CEILING_NANOTON = 2 * UNITS * UNIT_NANOTON["runner"]
_WALLET = {"wallet_hour_nanoton": str(10**15), "wallet_day_nanoton": str(10**15)}

#: Where in a task's life; mostly the second of several runs, so that one unit is delivered before and others are open.
STEPS = {
    "call-heard": Case("winner", "heard:Call", "after"),
    "bid-signed": Case("winner", "sent:BidReply", "before"),
    "bid-sent": Case("winner", "sent:BidReply", "after"),
    "award-heard": Case("winner", "heard:LeaseOpen", "after", 1, (("lease_sold", 0),)),
    "lease-not-journalled": Case("winner", "row:lease_sold", "before"),
    "lease-journalled": Case("winner", "row:lease_sold", "after"),
    "accept-not-sent": Case("winner", "sent:LeaseAccept", "before", 1, (("lease_sold", 1), ("runs_reserved", 0))),
    "accept-sent": Case("winner", "sent:LeaseAccept", "after", 1, (("lease_sold", 1), ("runs_reserved", 0))),
    "model-received": Case("winner", "heard:Chunk", "after", 1, (("lease_sold", 1), ("runs_reserved", 0))),
    "model-loaded": Case("winner", "sent:ModelReady", "before", 1, (("lease_sold", 1), ("runs_reserved", 0))),
    "run-not-journalled": Case("winner", "row:runs_reserved", "before"),
    "run-journalled": Case("winner", "row:runs_reserved", "after"),
    "statement-not-journalled": Case("winner", "row:receipt_fact:StatementMade", "before", 2),
    "statement-journalled": Case("winner", "row:receipt_fact:StatementMade", "after", 2),
    "result-sent": Case("winner", "sent:RunResult", "after", 2, (("receipt_fact:StatementMade", 2),)),
    "receipt-journalled": Case("winner", "row:receipt_issued", "after", 2),
    "receipt-sent": Case("winner", "sent:ReceiptIssued", "after", 2, (("receipt_issued", 2), ("receipt_settled", 1))),
    "voucher-heard": Case("winner", "heard:Countersign", "after", 2, (("receipt_issued", 2), ("receipt_settled", 1))),
    "voucher-not-journalled": Case("winner", "row:receipt_settled", "before", 2),
    "voucher-journalled": Case("winner", "row:receipt_settled", "after", 2),
    "lease-closing": Case("winner", "heard:LeaseClose", "after", 1, (("receipt_settled", UNITS),)),
    "lane-left": Case("winner", "row:till_fact:LaneLeft", "before", 1, (("receipt_settled", UNITS),)),
}
#: An auction that is lost with its bid, a lease that is lost with results under way, and one whose money is.
FEW = ("bid-sent", "result-sent", "voucher-heard")
#: The lease takes no run yet, so that the task never heard of it; and the task is done by then.
NO_LEASE = tuple(STEPS)[: tuple(STEPS).index("run-not-journalled")]
AT_THE_END = ("lease-closing", "lane-left")


@dataclass(slots=True)
class Scene:
    """The market, and what its requester's client was told so far."""

    here: Market
    sellers: dict[str, Peer] = field(default_factory=dict)
    #: Receipts, hex; of the last task who gave a lease, in order.
    told: set[str] = field(default_factory=set)
    leases: list[str] = field(default_factory=list)

    def start(self, name: str, root: tuple[str, ...] = ()) -> Peer:
        """A provider, up on its home."""
        price = str(1_000 * UNIT_NANOTON[name])
        command = ("up", "--provide", "--join", self.here.place.link)
        peer = begin(self.here.place, name, *command, root=root, price_run_nanoton=price, **_WALLET)
        self.sellers[name] = peer
        return peer

    def hear(self, event: dict[str, Any]) -> None:
        """What the client is told."""
        if event["event"] == "receipt":
            self.told.add(take_hex(event, "hash"))
        elif event["event"] == "lease":
            self.leases.append(event["provider"])

    def named(self, *sellers: str) -> list[str]:
        """Peer ids of these providers."""
        return [str(cocoon.connect(self.sellers[name].home).status()["peer"]) for name in sellers]

    def everybody_sells(self) -> None:
        """The requester has an offer of each provider."""
        until(lambda: len(self.here.buyer.offers()) == len(UNIT_NANOTON), "the offers of both providers")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One devnet and its market for all steps."""
    folder = tmp_path_factory.mktemp("winner")
    with town(folder, ledger="ton") as place:
        bootstrap = place.bootstrap(devnet_block_ms=BLOCK_MS)
        requester = begin(place, "requester", "up", "--join", place.link, **_WALLET)
        found = Scene(Market(place, bootstrap, requester, requester, folder))
        for peer in (requester, *map(found.start, UNIT_NANOTON)):
            cocoon.connect(peer.home).fund(10 * TON)
        yield found


@pytest.mark.parametrize("step", FEW)
def test_a_task_outlives_its_winner(scene: Scene, step: str) -> None:
    outlive(scene, step)


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_a_task_outlives_its_winner_at_each_step(scene: Scene, step: str) -> None:
    outlive(scene, step)


def outlive(scene: Scene, step: str) -> None:
    """One task whose winner dies at ``step``; then everything adds up."""
    here, case, winner = scene.here, STEPS[step], scene.sellers["winner"]
    here.buyer.settle()                                 # no lease is warm: each case begins with an auction
    assert winner.terminate() == 0, winner.last_words()
    before, already = mark(winner), len(journals.accepted(here.requester.home))
    winner = scene.start("winner", case.root)
    scene.everybody_sells()
    scene.leases.clear()
    results = here.buyer.run(
        here.model(), inputs(UNITS), deadline_s=60, max_price_nanoton=CEILING_NANOTON, on_event=scene.hear
    )
    if step in AT_THE_END:
        print(f"while the winner dies the books close with: {failed(here.buyer.settle)}")
    see_death(case, winner, before)

    for index, result in enumerate(results):
        np.testing.assert_array_equal(result.outputs["y"], inputs(UNITS)[index]["x"] + 1)
    assert [result.unit for result in results] == list(range(UNITS))
    units = journals.accepted(here.requester.home)[already:]
    assert sorted(unit.unit for unit in units) == list(range(UNITS)), "a unit was accepted twice, or not at all"
    assert {unit.unit: peer_id(unit.provider) for unit in units} == {one.unit: one.provider for one in results}
    scene.start("winner")
    took_part = ["runner"] if step in NO_LEASE else ["winner"] if step in AT_THE_END else ["winner", "runner"]
    assert scene.leases == scene.named(*took_part)
    assert {one.provider for one in results} <= {*scene.leases}
    all_is_paid(scene)


def all_is_paid(scene: Scene) -> None:
    """Whoever came back gets what it is owed: each provider for what was accepted from it, once, and no more."""
    here = scene.here
    scene.everybody_sells()
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the account of the lost lease")
    owed = Counter[str]()
    for unit in journals.accepted(here.requester.home):
        owed[peer_id(unit.provider)] += unit.price_nanoton
    assert accepted(here.requester).items() <= covered(here.requester).items(), "an accepted unit is under no receipt"
    for name, seller in scene.sellers.items():
        client, promised = cocoon.connect(seller.home), vouched(here.requester, to=seller)
        assert [sum(promised.values())] == [owed[peer] for peer in scene.named(name)], f"promised to the {name}"
        assert kept(seller) == promised, f"the {name} holds other vouchers than it was promised"
        assert client.audit()["clean"], client.audit()["differences"]
    homes = [seller.home for seller in scene.sellers.values()]
    assert books.check_receipts(here.requester.home, homes, scene.told) == 0, "a run was paid for no unit"
    assert here.buyer.audit()["clean"], here.buyer.audit()["differences"]
