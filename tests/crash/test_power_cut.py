"""Power goes while results are not flushed: what one side forgot is forgone, the rest paid, and no lane stays locked.

Real processes; the newest transactions are taken out of the journal of the one that was killed. That
everything before a receipt is flushed, tests/adapters/store and tests/unit/node/test_tally.py show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cocoon.core.errors import CocoonError
from cocoon.node import records
from tests.crash.power import cut
from tests.loopback.paid import (
    SETUP_NANOTON,
    Market,
    accepted,
    covered,
    inputs,
    kept,
    market,
    seller_again,
    until,
    vouched,
)

#: Dear enough to count, and cheap enough that no receipt is due before the session ends.
RUN_NANOTON = 1_000
RUNS = 8
LOST = 3


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Market]:
    with market(tmp_path, price_run_nanoton=str(1_000 * RUN_NANOTON)) as place:
        yield place


def run_until_death(here: Market, victim: str) -> None:
    """Some runs of an open session, each with its row, none under a receipt; then one side is killed."""
    with pytest.raises(CocoonError), here.buyer.session(here.model(), runs=100, deadline_s=20) as session:
        for one in inputs(RUNS):
            session.run(one)
        getattr(here, victim).kill()
        session.run(inputs(1)[0])
    assert len(accepted(here.requester)) == RUNS and not covered(here.requester)


def settled(here: Market) -> dict[tuple[bytes, int], int]:
    """Once nothing is owed any more: what is under receipts, on both sides alike."""
    until(lambda: here.buyer.wallet()["unsettled_leases"] == 0, "the settled lease")
    under = covered(here.requester)
    assert sum(under.values()) == SETUP_NANOTON + (RUNS - LOST) * RUN_NANOTON
    until(lambda: kept(here.provider) == vouched(here.requester), "the voucher")
    assert sum(kept(here.provider).values()) == sum(under.values())
    assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]
    return under


def test_a_provider_that_forgot_its_newest_statements_is_paid_for_the_others(here: Market) -> None:
    run_until_death(here, "provider")
    assert cut(here.provider.home, records.RECEIPT_FACT, LOST) >= LOST
    seller_again(here, price_run_nanoton=str(1_000 * RUN_NANOTON))
    under = settled(here)
    assert under.items() <= accepted(here.requester).items() and len(under) == RUNS - LOST
    until(lambda: here.run(here.model(), 1), "a new lease")


def test_a_requester_that_forgot_the_newest_results_is_not_asked_to_pay_for_them(here: Market) -> None:
    run_until_death(here, "requester")
    # What is owed stands before what is given, in one transaction.
    assert cut(here.requester.home, records.RECEIPT_FACT, LOST) >= 2 * LOST
    assert len(accepted(here.requester)) == RUNS - LOST
    here.requester = here.place.requester()
    settled(here)
    until(lambda: here.run(here.model(), 1), "a new lease")
