"""`cocoon ledger supply`: anybody on a devnet can add up its whole chain."""

from __future__ import annotations

import pytest

from tests.loopback.town import Town

SUPPLY = 5_000_000 * 10**9
FUNDED = 3 * 10**9


@pytest.fixture
def paid_town(tmp_path):
    town = Town(tmp_path, ledger="ton")
    yield town
    town.close()


def test_a_peer_adds_up_the_chain_and_says_where_every_nanoton_is(paid_town):
    paid_town.bootstrap()
    requester = paid_town.requester()
    assert paid_town.cocoon(requester, "wallet", "fund", str(FUNDED), "--json").code == 0
    done = paid_town.cocoon(requester, "ledger", "supply", "--json")
    found = done.objects[-1]["summary"]
    assert done.code == 0 and found["conserved"] is True and found["under_way_nanoton"] == 0
    assert found["genesis_nanoton"] == found["balances_nanoton"] + found["fees_nanoton"] == SUPPLY
    # The faucet took one message, the wallet its coins; nobody else has an account.
    assert (found["transactions"], found["accounts"]) == (2, 2) and found["blocks"] >= 2
    told = paid_town.cocoon(requester, "ledger", "supply")
    assert told.code == 0 and str(SUPPLY) in told.out and "5000000 TON" in told.out


def test_a_network_without_a_ledger_has_no_supply(tmp_path):
    town = Town(tmp_path)
    try:
        town.bootstrap()
        done = town.cocoon(town.requester(), "ledger", "supply", "--json")
        assert done.code != 0 and done.error["code"] == "no_ledger"
    finally:
        town.close()
