"""Either side, or the chain, vanishes: what was accepted is paid, and nobody loses more than a tranche."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoon.core.errors import ChainUnreachable, InsufficientFunds, LocalPeerLost, NoProvider, ProviderLost
from cocoon.core.limits import DEVNET_CLOSE_DELAY_S, TRANCHE_NANOTON
from cocoon.node import records
from cocoon.sdk.npz import save
from tests.loopback.paid import (
    ASKS,
    BLOCK_MS,
    RUN_NANOTON,
    TON,
    Market,
    accepted,
    at_result,
    bill,
    chain_alone,
    covered,
    failed,
    inputs,
    kept,
    kill_chain,
    market,
    paid_for,
    receipts,
    seller_again,
    until,
    vouched,
)
from tests.loopback.verdict import refused


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """Each test brings back whom it killed."""
    with market(tmp_path_factory.mktemp("market")) as place:
        yield place


def test_a_provider_killed_in_mid_task_is_paid_for_what_was_accepted_when_it_is_back(here: Market) -> None:
    model = here.model()
    ended = failed(lambda: here.buyer.run(
        model, inputs(40), deadline_s=30, on_event=at_result(9, here.provider.kill)
    ))
    assert ended in (ProviderLost.code, NoProvider.code)
    taken = accepted(here.requester)
    assert len(taken) >= 9
    open_nanoton = sum(taken.values()) - sum(covered(here.requester).values())
    assert open_nanoton <= TRANCHE_NANOTON, "more than a tranche was delivered and not promised"
    seller_again(here)
    until(lambda: here.run(model, 1), "a lease with the provider that came back")
    assert here.buyer.wallet()["unsettled_leases"] == 0
    paid_for(here)
    assert accepted(here.requester).items() >= taken.items()
    assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]


def test_a_requester_killed_in_mid_task_pays_what_it_accepted_when_it_is_back(here: Market) -> None:
    model = here.model()
    ended = failed(lambda: here.buyer.run(
        model, inputs(40), deadline_s=30, on_event=at_result(9, here.requester.kill)
    ))
    assert ended == LocalPeerLost.code
    taken = accepted(here.requester)
    assert len(taken) >= 9
    here.requester = here.place.requester()
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the settled lease")
    assert taken.items() <= covered(here.requester).items()
    paid_for(here)
    until(lambda: here.run(model, 2), "a lease with the provider")
    paid_for(here)
    assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]


def test_a_second_provider_gives_credit_for_one_tranche_until_its_lane_is_there(here: Market) -> None:
    here.run(here.model(), 1)                           # the escrow is there, and enough lies unlocked in it
    rival = here.place.provider("rival", price_run_nanoton=str(int(ASKS["price_run_nanoton"]) // 2))
    try:
        ran = here.run(here.model(), 30)
        with_rival = [facts for facts in receipts(here.requester) if facts.lease.hex() == ran.results[0].lease]
        assert {facts.lane for facts in with_rival} == {max(facts.lane for facts in receipts(here.requester))}
        assert _credits(rival) >= 1, "its lease waited for the lane, or never asked"
        until(lambda: kept(rival) == vouched(rival, records.RECEIPT_SETTLED) != {}, "the rival's vouchers")
        assert sum(kept(rival).values()) == sum(ran.prices)
        assert here.buyer.audit()["clean"]
    finally:
        assert rival.terminate() == 0


def _credits(peer: object) -> int:
    from tests.attack.conftest import tally

    return tally(peer.home)[records.CREDIT_FACT]        # type: ignore[attr-defined]


def test_a_provider_that_gives_no_credit_is_waited_for_and_then_serves(here: Market) -> None:
    here.run(here.model(), 1)
    wary = here.place.provider(
        "wary", price_run_nanoton=str(int(ASKS["price_run_nanoton"]) // 4), strangers_nanoton="0"
    )
    try:
        ran = here.run(here.model(), 10)
        until(lambda: sum(kept(wary).values()) == sum(ran.prices), "the wary provider's vouchers")
        assert _credits(wary) == 0
    finally:
        assert wary.terminate() == 0


def test_without_coins_a_task_names_the_remedy_and_promises_nothing(here: Market, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", inputs(1)[0])
    poor = here.place.requester("poor")
    task = ("run", str(here.model()), "--input", str(tmp_path / "in.npz"), "--json")
    refused(here.place.cocoon(poor, *task), InsufficientFunds)
    assert receipts(poor) == [] and here.place.cocoon(poor, "wallet", "--json").objects[-1]["summary"]["lanes"] <= 1
    assert here.place.cocoon(poor, "wallet", "fund", "--json").code == 0
    done = here.place.cocoon(poor, *task)
    assert done.code == 0 and done.objects[0]["price_nanoton"] == bill(1), done
    assert poor.terminate() == 0


def test_without_the_chain_open_lanes_go_on_and_new_ones_say_why_not(here: Market, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", inputs(1)[0])
    warm, cold = here.model(), here.model()
    here.run(warm, 1)
    caps = [lane["cap_nanoton"] for lane in here.buyer.wallet()["lanes"]]
    before, more_than_any = paid_for(here), max(caps) // RUN_NANOTON + 1
    kill_chain(here)
    ran = here.run(warm, 20)
    assert paid_for(here) - before == sum(ran.prices), "a warm lease needs no chain"
    large = ("--input", str(tmp_path / "in.npz")) * more_than_any
    refused(here.place.cocoon(here.requester, "run", str(cold), *large, "--json"), ChainUnreachable)
    assert here.run(warm, 1).prices, "nothing of that hurt the open lease"
    here.bootstrap = here.place.bootstrap(devnet_block_ms=BLOCK_MS)
    until(lambda: here.run(cold, 1), "a lease once the chain is back")
    paid_for(here)


def test_a_provider_gone_for_good_costs_its_requester_nothing_but_the_close_delay(here: Market) -> None:
    """Last in the file: afterwards the chain is ahead of the clock."""
    model = here.model()
    here.run(model, 3)
    owed = paid_for(here)
    here.provider.kill()
    summary = here.place.cocoon(here.requester, "wallet", "settle", "--json").objects[-1]["summary"]
    assert summary["lanes_open"] == 0 and summary["lanes_waiting"] > 0, "its lanes end with their expiry"
    until(lambda: _closes_within(here, DEVNET_CLOSE_DELAY_S), "the expiries that were brought forward")
    with chain_alone(here, offset_s=DEVNET_CLOSE_DELAY_S + 1):
        until(lambda: here.buyer.wallet()["escrow_locked_nanoton"] == 0, "the pruned lanes")
        until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the end of what was owed to nobody")
        wallet = here.buyer.wallet()
        assert {lane["stage"] for lane in wallet["lanes"]} == {"not on chain any more"}
        assert wallet["balance_nanoton"] + wallet["escrow_unlocked_nanoton"] > 10 * TON - TON // 2 - owed
        assert here.buyer.audit()["clean"], here.buyer.audit()
    seller_again(here)
    until(lambda: here.run(model, 1), "a new lane with it, should it come back after all")


def _closes_within(here: Market, delay_s: int) -> bool:
    wallet = here.buyer.wallet()
    expiries = [lane["expires_s"] for lane in wallet["lanes"] if lane["stage"] == "being closed"]
    return max(expiries) <= wallet["chain_time_s"] + delay_s
