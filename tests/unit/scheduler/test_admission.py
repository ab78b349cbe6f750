"""Which leases a provider signs (SCH-8 to SCH-10)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import CocoonError
from cocoon.core.ids import PeerKey
from cocoon.core.limits import LEASE_DURATION_S
from cocoon.scheduler.admission import House, admit
from cocoon.scheduler.bidding import StandingBid
from cocoon.wire.market import NO_MODEL
from tests.unit.scheduler.builders import NETWORK, PROVIDER, REQUESTER, lease, offer


def house(**changes: Any) -> House:
    usual: dict[str, Any] = {
        "network": NETWORK, "provider": PROVIDER, "offer": offer(), "leases_open": 0, "leases_of_requester": 0,
        "leases_max": 4, "leases_max_of_requester": 2,
    }
    return House(**{**usual, **changes})


def bid(**changes: Any) -> StandingBid:
    usual: dict[str, Any] = {
        "call": bytes([5]) * 32, "requester": REQUESTER, "kind": "infer", "model": NO_MODEL, "setup_nanoton": 0,
        "prices": ((1, 0),), "until_ns": 1,
    }
    return StandingBid(**{**usual, **changes})


FREE = bid()


def code_of(
    signer: PeerKey = REQUESTER, under: StandingBid | None = FREE, at: House | None = None, **changes: Any
) -> str:
    with pytest.raises(CocoonError) as caught:
        admit(lease(**changes), signer, under, at or house())
    return caught.value.code


def test_a_lawful_lease_is_admitted() -> None:
    assert admit(lease(), REQUESTER, bid(), house()) is None
    named = bytes([3]) * 32
    assert admit(lease(private=False, model=named), REQUESTER, bid(model=named), house()) is None


@pytest.mark.parametrize(("field", "value", "code"), [
    ("network", bytes(32), "wrong_network_id"),
    ("provider", bytes([8]) * 32, "wrong_provider"),
    ("requester", bytes([8]) * 32, "wrong_requester"),
    ("setup_nanoton", 1, "wrong_price"),
    ("prices", ((1, 1),), "wrong_price"),
    ("prices", (), "wrong_price"),
    ("escrow", bytes([1]) * 32, "wrong_escrow"),
    ("lane", 1, "wrong_lane"),
    ("duration_s", 0, "wrong_duration"),
    ("duration_s", LEASE_DURATION_S + 1, "wrong_duration"),
    ("max_runs", 0, "wrong_units"),
    ("kind", "map", "kind_refused"),
    ("run_ms", 30_001, "limit_exceeded"),
])
def test_each_wrong_field_of_a_lease_has_its_own_code(field: str, value: object, code: str) -> None:
    assert code_of(**{field: value}) == code


def test_a_lease_without_a_bid_that_binds_is_refused() -> None:
    assert code_of(under=None) == "bid_expired"


def test_a_bid_for_one_model_buys_no_other() -> None:
    named = bytes([3]) * 32
    assert code_of(private=False) == code_of(under=bid(model=named)) == "wrong_model"
    assert code_of(under=bid(model=bytes([4]) * 32), model=named, private=False) == "wrong_model"


def test_the_prices_are_those_of_the_bid_and_not_of_the_offer() -> None:
    dear = house(offer=offer(setup_nanoton=5, prices=((1, 9),)))
    assert admit(lease(), REQUESTER, bid(), dear) is None
    assert code_of(at=dear, setup_nanoton=5, prices=((1, 9),)) == "wrong_price"


def test_a_full_house_is_busy() -> None:
    assert code_of(at=house(leases_open=4)) == "busy"
    assert code_of(at=house(leases_of_requester=2)) == "busy"


def test_a_ceiling_below_one_run_is_refused() -> None:
    dear, paid = bid(setup_nanoton=5), {"setup_nanoton": 5, "escrow": bytes([4]) * 32, "lane": 1}
    assert code_of(under=dear, **paid, ceiling_nanoton=4) == "ceiling_exceeded"
    assert admit(lease(**paid, ceiling_nanoton=5), REQUESTER, dear, house()) is None


def test_a_lease_has_a_lane_exactly_if_it_costs_something() -> None:
    dear = bid(setup_nanoton=5)
    assert code_of(under=dear, setup_nanoton=5, ceiling_nanoton=9) == "wrong_lane"
    assert code_of(lane=1) == "wrong_lane"
    assert code_of(escrow=bytes([4]) * 32) == "wrong_escrow"
