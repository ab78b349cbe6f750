"""Which leases a provider signs (SCH-8 to SCH-10)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import CocoonError
from cocoon.core.ids import PeerKey
from cocoon.core.limits import LEASE_DURATION_S
from cocoon.scheduler.admission import House, admit
from tests.unit.scheduler.builders import NETWORK, PROVIDER, REQUESTER, lease, offer


def house(**changes: Any) -> House:
    usual: dict[str, Any] = {
        "network": NETWORK, "provider": PROVIDER, "offer": offer(), "leases_open": 0, "leases_of_requester": 0,
        "leases_max": 4, "leases_max_of_requester": 2,
    }
    return House(**{**usual, **changes})


def code_of(signer: PeerKey = REQUESTER, honoured: bool = True, at: House | None = None, **changes: Any) -> str:
    with pytest.raises(CocoonError) as caught:
        admit(lease(**changes), signer, honoured, at or house())
    return caught.value.code


def test_a_lawful_lease_is_admitted() -> None:
    assert admit(lease(), REQUESTER, True, house()) is None


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


def test_a_lease_under_an_offer_that_is_not_stood_by_is_refused() -> None:
    assert code_of(honoured=False) == "wrong_offer"


def test_a_full_house_is_busy() -> None:
    assert code_of(at=house(leases_open=4)) == "busy"
    assert code_of(at=house(leases_of_requester=2)) == "busy"


def test_a_ceiling_below_one_run_is_refused() -> None:
    dear, paid = offer(setup_nanoton=5), {"setup_nanoton": 5, "escrow": bytes([4]) * 32, "lane": 1}
    assert code_of(at=house(offer=dear), **paid, ceiling_nanoton=4) == "ceiling_exceeded"
    assert admit(lease(**paid, ceiling_nanoton=5), REQUESTER, True, house(offer=dear)) is None


def test_a_lease_has_a_lane_exactly_if_it_costs_something() -> None:
    dear = offer(setup_nanoton=5)
    assert code_of(at=house(offer=dear), setup_nanoton=5, ceiling_nanoton=9) == "wrong_lane"
    assert code_of(lane=1) == "wrong_lane"
    assert code_of(escrow=bytes([4]) * 32) == "wrong_escrow"
