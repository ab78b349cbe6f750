"""The home is lost and only its 24 words are left: they bring everything back, and nobody is cheated by it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import cocoon
from cocoon.core.errors import BadWords, NoLedger
from cocoon.core.limits import DEVNET_CLOSE_DELAY_S
from cocoon.node.wallet import wallet_words
from tests.loopback.paid import TON, Market, chain_alone, market, paid_for, until
from tests.loopback.town import PATIENCE_S, Outcome, town
from tests.loopback.verdict import refused


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with market(tmp_path_factory.mktemp("market")) as place:
        yield place


def restore(here: Market, name: str, words: str) -> Outcome:
    """``cocoon wallet restore`` on a home, the words on standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "cocoon", "wallet", "restore", "--json"], input=words, capture_output=True, text=True,
        env=here.place.environment(here.folder / name), timeout=PATIENCE_S,
    )
    assert "Traceback" not in done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr, 0.0)


def test_words_that_are_no_wallet_are_refused_without_repeating_them(here: Market) -> None:
    lost = wallet_words(here.requester.home).split()
    for words in (" ".join(lost[:23]), " ".join([*lost[:23], "cocoon"]), " ".join([*lost[1:], lost[0]]), ""):
        done = restore(here, "wrong", words)
        refused(done, BadWords)
        assert not any(f"{one} {two}" in done.out + done.err for one, two in zip(lost, lost[1:], strict=False))
    refused(restore(here, "requester", " ".join(lost)), BadWords, "already")


def test_the_words_alone_recover_all_that_is_unlocked_at_once_and_the_rest_after_its_expiry(here: Market) -> None:
    here.run(here.model(), 40)                          # worth far more than the fee of a claim
    owed, lost = paid_for(here), here.buyer.wallet()
    words = wallet_words(here.requester.home)
    here.requester.kill()
    assert restore(here, "heir", words).code == 0
    heir = here.place.requester("heir")
    client = cocoon.connect(heir.home)
    assert client.wallet()["address"] == lost["address"] and client.wallet()["escrow"] == lost["escrow"]

    first = here.place.cocoon(heir, "wallet", "recover", "--json").objects[-1]["summary"]
    assert first["recovered_nanoton"] > 0 and client.wallet()["escrow_unlocked_nanoton"] == 0
    # The provider sees that its lane will end, and its claim may have come before the command looked.
    assert first["locked_nanoton"] > 0 and lost["escrow_locked_nanoton"] - first["locked_nanoton"] in (0, owed)
    assert first["free_at_s"] <= client.wallet()["chain_time_s"] + DEVNET_CLOSE_DELAY_S
    again = here.place.cocoon(heir, "wallet", "recover", "--json").objects[-1]["summary"]
    assert again["recovered_nanoton"] == 0, "nothing of what is locked"
    until(lambda: here.seller.earnings()["claimed_nanoton"] == owed, "the provider's claim within the close delay")

    with chain_alone(here, offset_s=DEVNET_CLOSE_DELAY_S + 1):
        last = here.place.cocoon(heir, "wallet", "recover", "--json").objects[-1]["summary"]
        assert (last["locked_nanoton"], last["free_at_s"]) == (0, 0)
        assert last["recovered_nanoton"] + owed >= first["locked_nanoton"]
        fees = 10 * TON - owed - last["balance_nanoton"]
        assert 0 < fees < TON // 10, "what is gone is what was bought, gas, and the reserve of the escrow"
        assert here.seller.earnings()["lost_nanoton"] == 0 and here.seller.audit()["clean"]


def test_on_a_network_without_a_ledger_every_command_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with town(tmp_path_factory.mktemp("free")) as place:
        peer = place.up("peer")
        peer.wait_line("ready")
        for words in ("wallet", "wallet fund", "wallet settle", "wallet recover", "earnings", "ledger audit"):
            refused(place.cocoon(peer, *words.split(), "--json"), NoLedger)
        assert place.cocoon(peer, "wallet", "words", "--show", "--json").code == 18, "it has no wallet"
