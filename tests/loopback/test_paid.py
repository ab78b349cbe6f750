"""A stranger's work is paid the moment it is accepted: lanes, vouchers, ceilings, and the books of both sides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cocoon
from cocoon.core.errors import CeilingExceeded, NotFound, UsageError, wrong
from cocoon.sdk.npz import save
from tests.loopback.paid import (
    RUN_NANOTON,
    SETUP_NANOTON,
    TON,
    Market,
    beside,
    bill,
    inputs,
    market,
    paid_for,
    receipts,
    until,
    vouched,
)
from tests.loopback.town import Outcome, Peer
from tests.loopback.verdict import refused


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """Shared; each test takes models of its own and compares with what it found."""
    with market(tmp_path_factory.mktemp("market")) as place:
        yield place


def command(here: Market, *words: str, peer: Peer | None = None) -> Outcome:
    """A command of the requester, or of ``peer``, without traceback whatever its end."""
    done = here.place.cocoon(peer or here.requester, *words)
    assert "Traceback" not in done.out + done.err, done
    return done


def lanes(here: Market) -> dict[int, dict[str, Any]]:
    """The requester's lanes, in proven state."""
    return {lane["lane"]: lane for lane in here.buyer.wallet()["lanes"]}


def test_work_is_paid_the_moment_it_is_accepted(here: Market) -> None:
    before = paid_for(here)
    ran = here.run(here.model(), 12)
    (bid,) = ran.event("bids")["bids"]
    assert (bid["warm"], bid["lost"]) == (False, ""), "a model that it never saw, won, fetched and loaded"
    assert ran.prices == [SETUP_NANOTON + RUN_NANOTON] + 11 * [RUN_NANOTON], "set-up is paid once, with the first run"
    assert paid_for(here) - before == bill(12) == sum(ran.prices)
    assert all(result.receipt for result in ran.results)
    earned = here.seller.earnings()
    assert earned["earned_nanoton"] == sum(vouched(here.requester).values())


def test_a_second_task_goes_on_the_warm_lease_and_pays_no_set_up(here: Market) -> None:
    model = here.model()
    first, open_lanes = here.run(model, 1), lanes(here)
    before = paid_for(here)
    second = here.run(model, 3)
    assert second.event("lease")["warm"] and not first.event("lease")["warm"]
    assert second.results[0].lease == first.results[0].lease
    assert second.prices == 3 * [RUN_NANOTON]
    assert paid_for(here) - before == 3 * RUN_NANOTON
    assert lanes(here).keys() == open_lanes.keys(), "a warm lease needs no further lane"


def test_two_models_at_once_take_a_lane_each(here: Market) -> None:
    before, known = paid_for(here), lanes(here)
    models = here.model(), here.model()
    one, two = beside(lambda: here.run(models[0], 6), lambda: here.run(models[1], 6))
    assert one.prices[0] == two.prices[0] == SETUP_NANOTON + RUN_NANOTON, "each lease has its own set-up"
    leases = {bytes.fromhex(ran.results[0].lease) for ran in (one, two)}
    on = {facts.lane for facts in receipts(here.requester) if facts.lease in leases}
    assert len(on) == 2 and on <= lanes(here).keys()
    assert len(lanes(here)) <= len(known) + 2
    assert paid_for(here) - before == 2 * bill(6)


def test_below_the_price_nothing_is_promised_and_nothing_locked(here: Market, tmp_path: Path) -> None:
    save(tmp_path / "in.npz", inputs(1)[0])
    warm = here.model()
    here.run(warm, 1)
    until(lambda: {lane["stage"] for lane in lanes(here).values()} == {"on chain"}, "the lane of a lease on credit")
    asked = ("--input", str(tmp_path / "in.npz"), "--json", "--max-price")
    for model, ceiling in ((here.model(), bill(1) - 1), (warm, RUN_NANOTON - 1), (here.model(), 0)):
        before, owed = here.buyer.wallet(), paid_for(here)
        done = command(here, "run", str(model), *asked, str(ceiling))
        refused(done, CeilingExceeded, str(bill(1)))
        after = here.buyer.wallet()
        assert {**after, "chain_time_s": 0} == {**before, "chain_time_s": 0} and paid_for(here) == owed
    paid = command(here, "run", str(here.model()), *asked, str(bill(1)))
    assert paid.code == 0 and paid.objects[0]["price_nanoton"] == bill(1), "the price itself is enough"


def test_without_a_ceiling_three_times_the_median_is_the_ceiling(here: Market) -> None:
    ran = here.run(here.model(), 2)
    assert ran.event("bids")["ceiling_nanoton"] == 3 * bill(2)
    assert ran.event("bids")["bids"][0]["expected_nanoton"] == bill(2) == sum(ran.prices)


# --- commands ----------------------------------------------------------------


def test_the_wallet_shows_what_is_locked_for_whom(here: Market) -> None:
    here.run(here.model(), 1)
    shown = command(here, "wallet", "--json")
    *listed, last = shown.objects
    summary = last["summary"]
    assert shown.code == 0 and summary["lanes"] == len(listed) == len(lanes(here))
    assert summary["escrow_locked_nanoton"] == sum(
        lane["cap_nanoton"] - lane["paid_nanoton"] for lane in listed if lane["stage"] == "on chain"
    )
    assert summary["balance_nanoton"] + summary["escrow_balance_nanoton"] < 10 * TON
    text = command(here, "wallet").out
    assert summary["address"] in text and "escrow_locked_nanoton" in text


def test_coins_come_from_the_faucet_and_too_many_are_refused(here: Market) -> None:
    before = here.seller.wallet()["balance_nanoton"]
    done = command(here, "wallet", "fund", str(TON), "--json", peer=here.provider)
    assert done.code == 0
    # A claim may have been under way: it costs the provider less than it brings.
    assert done.objects[-1]["summary"]["balance_nanoton"] >= before + TON // 2
    refused(command(here, "wallet", "fund", str(10**15), "--json"), UsageError, "amount_nanoton")
    assert command(here, "wallet", "fund", "0", "--json").code == 2


def test_earnings_are_the_sum_of_the_vouchers(here: Market) -> None:
    here.run(here.model(), 4)
    seller = cocoon.connect(here.provider.home)
    # The buyer has recorded its last promise, and the provider may not have heard it yet.
    promised = sum(vouched(here.requester).values())
    until(lambda: seller.earnings()["earned_nanoton"] == promised, "the last voucher")
    done = command(here, "earnings", "--json", peer=here.provider)
    *listed, last = done.objects
    summary = last["summary"]
    assert done.code == 0 and summary["lanes"] == len(listed)
    assert summary["earned_nanoton"] == promised
    assert summary["earned_nanoton"] == summary["claimed_nanoton"] + summary["pending_nanoton"]
    assert summary["lost_nanoton"] == 0
    assert command(here, "earnings", peer=here.provider).code == 0
    assert command(here, "earnings", "--json").objects[-1]["summary"]["earned_nanoton"] == 0, "it sells nothing"


def test_the_audit_of_both_sides_is_clean_in_the_middle_of_trade(here: Market) -> None:
    here.run(here.model(), 7)
    for peer in (here.requester, here.provider):
        done = command(here, "ledger", "audit", "--json", peer=peer)
        assert done.code == 0 and done.objects[-1]["summary"]["clean"] is True, done.out
        assert "clean" in command(here, "ledger", "audit", peer=peer).out


def test_the_words_are_shown_only_to_who_asks_twice(here: Market) -> None:
    shy = command(here, "wallet", "words", "--json")
    assert shy.code == 2 and "--show" in shy.err
    shown = command(here, "wallet", "words", "--show", "--json")
    assert shown.code == 0 and len(shown.objects[-1]["summary"]["words"].split()) == 24


# --- receipts for third parties ----------------------------------------------


def test_a_receipt_convinces_somebody_who_has_it_its_proof_and_a_root(here: Market, tmp_path: Path) -> None:
    ran = here.run(here.model(), 6)
    receipt = ran.results[0].receipt
    plain = command(here, "receipts", "export", receipt, "--output", str(tmp_path / "bought"), "--json")
    assert plain.code == 0 and plain.objects[-1]["summary"]["anchored"] is False, "its provider anchors, not its buyer"
    settled = command(here, "wallet", "settle", "--json", peer=here.provider)
    assert settled.code == 0, settled
    assert re.fullmatch("[0-9a-f]{64}", settled.objects[-1]["summary"]["anchor_tx"])

    sold = ("receipts", "export", receipt, "--output", str(tmp_path / "sold"), "--json")
    done = command(here, *sold, peer=here.provider)
    told = done.objects[-1]["summary"]
    assert done.code == 0 and told["anchored"] is True and told["receipt"] == receipt
    assert told["anchor"] == settled.objects[-1]["summary"]["anchor"]
    refused(command(here, *sold, peer=here.provider), UsageError, "--force")

    nobody = tmp_path / "nobody"                        # no peer, no network, no home
    checked = here.place.cocoon(nobody, "receipts", "verify", str(tmp_path / "sold"), "--root", told["root"], "--json")
    assert checked.code == 0, checked
    assert checked.objects[0] == {"verified": True, **{k: v for k, v in told.items() if k != "file"}}
    assert checked.objects[0]["total_nanoton"] in {facts.total_nanoton for facts in receipts(here.requester)}
    other = told["root"][:-1] + ("0" if told["root"][-1] != "0" else "1")
    for file, root in ((tmp_path / "sold", other), (tmp_path / "bought", told["root"])):
        lied = here.place.cocoon(nobody, "receipts", "verify", str(file), "--root", root, "--json")
        assert (lied.code, lied.error["code"]) == (5, wrong("root", "").code), lied
    data = bytearray((tmp_path / "sold").read_bytes())
    data[-1] ^= 1                                       # in the last hash of the path, or in the index
    (tmp_path / "bent").write_bytes(data)
    assert here.place.cocoon(nobody, "receipts", "verify", str(tmp_path / "bent"), "--json").code == 5
    assert not nobody.exists()


def test_a_receipt_that_nobody_has_is_not_found(here: Market) -> None:
    refused(command(here, "receipts", "export", "00" * 32, "--json"), NotFound)
    assert command(here, "receipts", "export", "nonsense", "--json").code == 2
    assert command(here, "receipts", "verify", "00" * 32, "--root", "x", "--json").code == NotFound.exit_code


# --- the end -----------------------------------------------------------------


def test_a_task_larger_than_its_lane_fills_it_up_or_takes_another(here: Market) -> None:
    model = here.model()
    here.run(model, 1)
    cap = lanes(here)[newest_lane(here)]["cap_nanoton"]
    units, before = cap // RUN_NANOTON + 1, paid_for(here)
    ran = here.run(model, units)
    assert paid_for(here) - before == sum(ran.prices) == bill(units), "it is a new lease, with a set-up"
    assert lanes(here)[newest_lane(here)]["cap_nanoton"] >= bill(units)


def newest_lane(here: Market) -> int:
    """The lane of the newest receipt."""
    return receipts(here.requester)[-1].lane


def test_the_books_close_to_the_nanoton(here: Market) -> None:
    """Last in the file: it closes every lane that the others opened."""
    here.run(here.model(), 9)
    owed = paid_for(here)
    # Opened while another became free, and never used: its provider knows nothing of it, so it waits for its expiry.
    used = {lane for _, lane in vouched(here.requester)}
    unused = [lane for number, lane in lanes(here).items() if number not in used]
    done = command(here, "wallet", "settle", "--json")
    summary = done.objects[-1]["summary"]
    assert done.code == 0, done
    assert (summary["lanes_open"], summary["lanes_waiting"], summary["unsettled_leases"]) == (0, len(unused), 0)
    assert len(unused) <= 1
    assert command(here, "wallet", "settle", "--json", peer=here.provider).code == 0
    earned = here.seller.earnings()
    assert earned["earned_nanoton"] == earned["claimed_nanoton"] == owed and earned["pending_nanoton"] == 0
    assert earned["claimed_nanoton"] > earned["fees_nanoton"] > 0, "cold models, loaded for their buyer, were a profit"
    wallet = here.buyer.wallet()
    assert wallet["escrow_locked_nanoton"] == sum(lane["cap_nanoton"] for lane in unused)
    for client in (here.buyer, here.seller):
        assert client.audit()["clean"] is True, client.audit()
    sold = next(item for item in here.seller.receipts() if item["side"] == "sold")
    assert cocoon.connect(here.provider.home).export(sold["hash"]) != here.seller.record(sold["hash"]), "all anchored"
