"""Money in a simulated market: a chain that takes what the contract would, and sums that are right to the nanoton."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.rng import stream
from cocoon.core.units import NANOTON_PER_TON, SECOND_NS
from cocoon.ledger.escrow import EscrowBirth, LaneState
from cocoon.node import records
from cocoon.wire.judged import Voucher
from sim.engine.chain import CLAIM_FEE_NANOTON, GENESIS_S, ORDER_FEE_NANOTON, Chain, Claim, OpenLanes, Pace
from sim.engine.heap import Heap
from sim.scenario import read_scenario
from tests.unit.sim.worlds import run

BUYER, SELLER = b"b" * 32, b"s" * 32
BIRTH = EscrowBirth(BUYER, bytes(32), 1, 0, 60)
ADDRESS = BIRTH.address()
CAP = NANOTON_PER_TON
PAID = """
name = "paid"
seconds = 90
paid = true
lane_life_s = 3740
[[providers]]
name = "p"
count = 4
ask_nanoton = [300000000, 500000000]
setup_nanoton = 70000
[[requesters]]
name = "r"
count = 3
tasks = 12
every_ms = 4000
units = [1, 10]
spread = [1, 2]
lease_idle_s = 3
"""


def chain() -> Chain:
    made = Chain(Heap(), Pace(), stream(1, b"", "chain"))
    made.wallets |= {BUYER: 10 * NANOTON_PER_TON, SELLER: NANOTON_PER_TON}
    made.found(BIRTH)
    return made


def lane(cap: int = CAP, expires_s: int = GENESIS_S + 100) -> LaneState:
    return LaneState(SELLER, bytes(32), cap, 0, expires_s)


def send(made: Chain, message: Any, seconds: int = 2) -> bool:
    done: list[bool] = []
    made.send(message, done.append)
    made.heap.run(made.heap.now_ns + seconds * SECOND_NS)
    return done[0]


def order(number: int, lanes: dict[int, LaneState], deposit: int = 2 * CAP, until_s: int = GENESIS_S + 50) -> OpenLanes:
    return OpenLanes(ADDRESS, number, until_s, lanes, deposit, BUYER)


def claim(total: int, number: int = 1) -> Claim:
    return Claim(ADDRESS, Voucher(1, ADDRESS, number, 1, total, bytes(32)), SELLER)


def test_orders_run_by_number_while_valid_and_covered() -> None:
    made = chain()
    assert not send(made, order(1, {1: lane()}))
    assert not send(made, order(0, {1: lane()}, deposit=CAP))       # the reserve is not covered
    assert not send(made, order(0, {1: lane()}, until_s=GENESIS_S))
    assert send(made, order(0, {1: lane()}))
    assert not send(made, order(0, {2: lane()}))                    # the number is used up
    assert not send(made, order(1, {0: lane()}))                    # an id below the next one
    assert not send(made, order(1, {1: lane(cap=CAP - 1)}))         # a cap never falls
    assert send(made, order(1, {1: lane(cap=CAP + 1)}))
    assert made.escrows[ADDRESS].lanes[1].cap_nanoton == CAP + 1
    assert made.total_nanoton == 11 * NANOTON_PER_TON


def test_claims_pay_the_difference_once_up_to_the_cap_before_the_expiry() -> None:
    made = chain()
    assert send(made, order(0, {1: lane()}))
    before = made.wallets[SELLER]
    assert send(made, claim(50)) and send(made, claim(70))
    assert not send(made, claim(70)) and not send(made, claim(CAP + 1)) and not send(made, claim(80, number=2))
    assert made.wallets[SELLER] == before + 70 - 5 * CLAIM_FEE_NANOTON
    made.heap.run(101 * SECOND_NS)
    assert not send(made, claim(90))
    assert made.paid == {(ADDRESS, 1): 70} and made.total_nanoton == 11 * NANOTON_PER_TON


def test_nothing_runs_while_the_chain_is_away() -> None:
    made = chain()
    made.away_until_ns = 20 * SECOND_NS
    done: list[bool] = []
    made.send(order(0, {1: lane()}), done.append)
    made.heap.run(19 * SECOND_NS)
    assert done == [] and made.is_away
    made.heap.run(22 * SECOND_NS)
    assert done == [True] and made.fees_nanoton == ORDER_FEE_NANOTON


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_accepted_is_what_was_promised_and_nobody_is_owed(seed: int) -> None:
    world, found = run(read_scenario(PAID), seed)
    assert found.breaches == () and found.metrics["ended"] == {"done": found.metrics["tasks"]}
    owed = sum(
        records.UnitAccepted.unpack(row.body).price_nanoton
        for peer in world.ground.peers for row in peer.journal.entries(records.UNIT_ACCEPTED)
    )
    assert 0 < owed == found.metrics["promised_nanoton"]
    assert all(buyer.buying.owed == {} for buyer in world.buyers.values())
    assert 0 < found.metrics["paid_nanoton"] <= owed
