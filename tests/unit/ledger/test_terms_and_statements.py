"""Terms of a lease and the checks of one statement (MON-4 to MON-8, REC-1 to REC-4)."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon.core.errors import WrongField
from cocoon.core.units import UnitKind
from cocoon.ledger.statement import check_statement
from cocoon.ledger.terms import terms_of
from cocoon.wire.commitment import Commitment, commit
from tests.unit.ledger import parties
from tests.unit.ledger.parties import BIRTH, LANE_OWNER, REQUESTER, SALT, lease, statement, terms


def test_a_price_0_lease_is_vouched_for_by_the_requesters_peer_key() -> None:
    free = terms()
    assert (free.lane, free.escrow, free.voucher_key) == (0, bytes(32), REQUESTER.key)
    assert free.lease == lease().digest
    assert free.bill_nanoton(10**6) == 0


def test_a_lease_without_prices_is_free() -> None:
    assert terms_of(lease(prices=())).price_nanoton == 0


def test_a_priced_lease_is_vouched_for_by_its_lane_key() -> None:
    assert terms(paid=True).voucher_key == LANE_OWNER.key


@pytest.mark.parametrize(("units", "bill"), [(0, 0), (1, 9), (2, 10), (3, 12), (1000, 1507)])
def test_a_bill_is_the_set_up_and_the_rounded_price_of_all_units_together(units: int, bill: int) -> None:
    assert terms(paid=True).bill_nanoton(units) == bill


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"setup_nanoton": 1}, "wrong_price"), ({"prices": ((1, 1),)}, "wrong_price"),
        ({"prices": ((1, 0), (2, 0))}, "wrong_price"), ({"prices": ((5, 0),)}, "wrong_price"),
        ({"kind": "generate"}, "wrong_price"), ({"escrow": b"\x06" * 32}, "wrong_escrow"),
        ({"lane": 1}, "wrong_escrow"), ({"tranche_nanoton": 1}, "wrong_tranche"),
        ({"owner": b"\x06" * 32}, "wrong_escrow"),
        ({"lane_key": b"\x06" * 32}, "wrong_escrow"), ({"index": 1}, "wrong_escrow"),
        ({"close_delay_s": 1}, "wrong_escrow"), ({"network_tag": 1}, "wrong_network_id"),
        ({"paid": True, "lane": 0}, "wrong_escrow"), ({"paid": True, "escrow": bytes(32)}, "wrong_escrow"),
        ({"paid": True, "tranche_nanoton": 0}, "wrong_tranche"),
        ({"paid": True, "prices": ((1, 1), (2, 1))}, "wrong_price"),
    ],
)
def test_a_lease_that_contradicts_itself_about_money_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        terms_of(lease(**changes))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"escrow": b"\x06" * 32}, {"owner": b"\x06" * 32}, {"lane_key": REQUESTER.key}, {"index": 1},
        {"close_delay_s": 61}, {"network_tag": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_lane_key_counts_only_if_the_escrows_address_follows_from_it(changes: dict[str, Any]) -> None:
    """Whoever describes an escrow that does not exist could sign its vouchers himself."""
    with pytest.raises(WrongField) as refused:
        terms_of(lease(paid=True, **changes))
    assert refused.value.code == "wrong_escrow"


def test_vouchers_carry_the_tag_of_the_chain_or_without_one_of_the_network() -> None:
    assert terms(paid=True).network_tag == BIRTH.network_tag
    assert terms().network_tag == int.from_bytes(parties.NETWORK[:4], "big")


def check(given: Any, paid: bool = False) -> None:
    check_statement(
        given, terms(paid), number=3, inputs=commit(SALT, b"in 3"), outputs=commit(SALT, b"out 3"), units=1,
        price_nanoton=2 if paid else 0,
    )


def test_a_true_statement_passes() -> None:
    check(statement(terms(), 3))
    check(statement(terms(paid=True), 3, 2), paid=True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lease": b"\x00" * 32}, "wrong_lease"), ({"number": 4}, "wrong_number"),
        ({"input": b"\x00" * 32}, "wrong_input"), ({"input_alg": 2}, "wrong_input"),
        ({"output": b"\x00" * 32}, "wrong_output"), ({"output_alg": 2}, "wrong_output"),
        ({"units": 2}, "wrong_units"), ({"units": 0}, "wrong_units"), ({"price_nanoton": 1}, "wrong_price"),
    ],
)
def test_each_wrong_field_of_a_statement_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WrongField) as refused:
        check(statement(terms(), 3, **changes))
    assert refused.value.code == code


def test_times_are_the_providers_word() -> None:
    check(statement(terms(), 3, queued_us=0, ran_us=(1 << 32) - 1))


def test_units_are_the_ones_counted_here() -> None:
    agreed = terms(unit_kind=2)
    given = statement(agreed, 3, units=5)
    inputs = Commitment(given.input_alg, given.input)
    outputs = Commitment(given.output_alg, given.output)
    check_statement(given, agreed, number=3, inputs=inputs, outputs=outputs, units=5, price_nanoton=0)
    with pytest.raises(WrongField) as refused:
        check_statement(given, agreed, number=3, inputs=inputs, outputs=outputs, units=4, price_nanoton=0)
    assert refused.value.code == "wrong_units"


def test_a_salt_keeps_equal_inputs_apart() -> None:
    assert commit(SALT, b"in 3") != commit(b"\x06" * 16, b"in 3")
    assert parties.statement(terms(), 3) == statement(terms(), 3)


def test_a_lease_on_a_decoder_is_billed_by_the_token() -> None:
    assert terms_of(lease(kind="generate", prices=((5, 0),))).unit_kind == UnitKind.OUTPUT_TOKEN
    assert terms_of(lease(kind="generate", prices=())).unit_kind == UnitKind.OUTPUT_TOKEN
