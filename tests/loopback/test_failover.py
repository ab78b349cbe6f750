"""A provider that dies in the middle costs its buyer a moment: what it had not delivered goes to the runner-up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.core.errors import ProviderLost
from cocoon.core.limits import TRANCHE_NANOTON
from tests.loopback.paid import (
    ASKS,
    RUN_NANOTON,
    SETUP_NANOTON,
    TON,
    Market,
    accepted,
    at_result,
    bill,
    covered,
    failed,
    inputs,
    market,
    seller_again,
    until,
)
from tests.loopback.town import Peer

UNITS = 30
DEARER = {**ASKS, "price_run_nanoton": str(2_000 * RUN_NANOTON)}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with a second provider, which asks twice as much. Each test brings back whom it killed."""
    with market(tmp_path_factory.mktemp("market")) as place:
        runner_up = place.place.provider("second", **DEARER)
        cocoon.connect(runner_up.home).fund(10 * TON)
        until(lambda: sellers(place) == 2, "the offer of the second provider")
        yield place


def sellers(here: Market) -> int:
    return len(here.buyer.offers())


def second(here: Market) -> Peer:
    return next(peer for peer in here.place.peers if peer.name == "second")


def test_each_side_sees_its_own_part_of_the_market(here: Market) -> None:
    """The first auction of the town, before anybody is killed: one call, one winner, one that was dearer."""
    here.run(here.model(), 3)
    (auction,), bought = told(here, here.requester, "auctions")
    assert [(bid["expected_nanoton"], bid["taken"], bid["reason"]) for bid in auction["bids"]] == [
        (bill(3), True, ""), (bill(6), False, "more than 50 % dearer"),
    ]
    assert (bought["auctions"], bought["offers"], bought["calls"]) == (1, 2, 0), "who only buys hears no call"

    (call,), sold = told(here, here.provider, "calls")
    assert (sold["heard"], sold["bid"], sold["won"], sold["lost"]) == (1, 1, 1, 0)
    assert (call["model"], call["units"], call["bid_nanoton"], call["outcome"]) == ("private", 3, bill(3), "won")
    until(lambda: told(here, second(here), "calls")[1]["lost"], "why the second provider lost")
    (call,), sold = told(here, second(here), "calls")
    assert (sold["won"], call["outcome"], call["reason"]) == (0, "lost", sold["reason"]) and "dearer" in call["reason"]
    buyer = peer_id_of(here.requester)
    assert all(buyer not in repr(told(here, peer, "calls")) for peer in (here.provider, second(here)))

    *_, model, last = command(here, here.provider, "earnings", "--by", "model", "--ask", str(1_100 * RUN_NANOTON))
    assert (model["units"], model["earned_nanoton"]) == (3, last["summary"]["earned_nanoton"])
    hindsight = last["summary"]["what_if"]
    assert (hindsight["won_nanoton"], hindsight["lost_dearer"]) == (bill(3), 0)
    assert hindsight["won_at_ask_nanoton"] == SETUP_NANOTON + 33 * RUN_NANOTON // 10
    cheaper = command(here, second(here), "earnings", "--ask", str(999 * RUN_NANOTON))[-1]["summary"]["what_if"]
    assert (cheaper["lost_dearer"], cheaper["no_dearer_at_least"], cheaper["no_dearer_at_most"]) == (1, 0, 1)
    here.buyer.settle()                                 # no warm lease is left for the next test to lose


def command(here: Market, peer: Peer, *words: str) -> list[dict[str, Any]]:
    """What a command says of a peer, object by object."""
    done = here.place.cocoon(peer, *words, "--json")
    assert done.code == 0, done
    return done.objects


def told(here: Market, peer: Peer, part: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One part of what `cocoon market` says, and its sums."""
    *items, last = command(here, peer, "market")
    return [item for item in items if item["part"] == part], last["summary"]


def test_the_runner_up_finishes_what_a_killed_provider_began_and_each_unit_is_accepted_once(here: Market) -> None:
    before = accepted(here.requester)
    first, other = (peer_id_of(peer) for peer in (here.provider, second(here)))
    model, heard = here.model(), []
    kill = at_result(9, here.provider.kill)
    results = here.buyer.run(
        model, inputs(UNITS), deadline_s=60, on_event=lambda event: (heard.append(event), kill(event))
    )
    for index, result in enumerate(results):
        np.testing.assert_allclose(result.outputs["y"], inputs(UNITS)[index]["x"] + 1)
    assert {result.provider for result in results} == {first, other}
    taken = {key: price for key, price in accepted(here.requester).items() if key not in before}
    assert len(taken) == UNITS
    assert sum(taken.values()) == sum(result.price_nanoton for result in results)
    leases = [event for event in heard if event["event"] == "lease"]
    assert [event["provider"] for event in leases] == [first, other]

    open_nanoton = sum(taken.values()) - sum(price for key, price in covered(here.requester).items() if key in taken)
    assert open_nanoton <= TRANCHE_NANOTON, "more than a tranche was delivered and not promised"
    seller_again(here)
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the account of the lost lease")
    assert taken.items() <= covered(here.requester).items(), "who came back was not paid for what was accepted"
    assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]
    until(lambda: sellers(here) == 2, "the offer of the provider that came back")
    seen = {offer["provider"]: offer["seen"] for offer in here.buyer.offers()}
    assert "1 lost" in seen[first] and "lost" not in seen[other]


def test_a_quote_says_what_runs_would_cost_at_each_provider_and_the_taken_one_first(here: Market) -> None:
    quoted = here.buyer.quote(here.model(), runs=UNITS)
    costs = [SETUP_NANOTON + UNITS * RUN_NANOTON, SETUP_NANOTON + UNITS * 2 * RUN_NANOTON]
    assert [one["expected_nanoton"] for one in quoted["quotes"]] == costs
    assert [one["misfit"] for one in quoted["quotes"]] == ["", ""]
    assert quoted["ceiling_nanoton"] == 3 * costs[0] and quoted["runs"] == UNITS


def peer_id_of(peer: Peer) -> str:
    return str(cocoon.connect(peer.home).status()["peer"])


def test_the_ceiling_holds_over_all_leases_of_a_task(here: Market) -> None:
    """What the first provider got counts, and so does the second one's set-up."""
    model = here.model()
    enough_for_the_first = SETUP_NANOTON + UNITS * RUN_NANOTON
    ended = failed(lambda: here.buyer.run(
        model, inputs(UNITS), deadline_s=60, max_price_nanoton=enough_for_the_first,
        on_event=at_result(9, here.provider.kill),
    ))
    assert ended == ProviderLost.code
    seller_again(here)
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the account of the lost lease")
    until(lambda: sellers(here) == 2, "the offer of the provider that came back")
