"""A requester's peer believes nothing that a provider says of money.

The provider lives in this process, founds a network over a real devnet and
sells for coins; the requester is a real process with a wallet. No lie of the
provider gets it a voucher, and nothing leaves the escrow.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cocoon
from cocoon.config.network import ChainFacts, NetworkFile
from cocoon.core.errors import CocoonError
from cocoon.core.limits import DEVNET_CLAIM_MARGIN_S, DEVNET_CLOSE_DELAY_S
from cocoon.identity.keys import key_pair
from cocoon.ledger.onchain import OutMessage, Transaction
from cocoon.node import records
from cocoon.wire.judged import sign_cell
from cocoon.wire.orders import CloseOrder
from tests.adapters.devnet.devnet_process import running
from tests.attack.conftest import gained, tally
from tests.attack.hostile_provider import HostileProvider
from tests.attack.matrix import Lie, lies
from tests.loopback.paid import TON, transactions, until
from tests.loopback.town import PATIENCE_S, Peer, town

RUN_NANOTON, SETUP_NANOTON = 100_000, 50_000
KEY = key_pair(os.urandom(32))


@dataclass
class Market:
    """A hostile provider that asks coins, and a requester that knows only that one."""

    provider: HostileProvider
    requester: Peer
    folder: Path

    @property
    def client(self) -> cocoon.Client:
        """A client of the requester."""
        return cocoon.connect(self.requester.home)

    def attempt(self) -> str:
        """Run a new model on it: the code of the error, or ``done``."""
        model = self.folder / os.urandom(8).hex()
        model.write_bytes(os.urandom(64))               # a model of its own, so that no warm lease is found
        try:
            self.client.run(model, {"x": np.frombuffer(os.urandom(8), np.uint8)}, deadline_s=30)
        except CocoonError as error:
            return error.code
        return "done"

    def last_word(self) -> str:
        """The code with which the requester ended the lease."""
        try:
            while (code := self.provider.heard.get(timeout=PATIENCE_S)) == "released":
                pass                                    # a lease before, given back or settled meanwhile
        except queue.Empty:
            raise AssertionError("the requester has nothing against what it got") from None
        return code


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("market")
    with running(folder / "devnet") as devnet:
        faucet = devnet.faucet.hash_part
        chain = ChainFacts(devnet.genesis, DEVNET_CLOSE_DELAY_S, DEVNET_CLAIM_MARGIN_S, faucet=faucet)
        server = f"{devnet.host}:{devnet.port}:{devnet.key}"
        network = NetworkFile("hostile", "ton", os.urandom(16), chain=chain, liteservers=(server,))
        asks = {"setup_nanoton": SETUP_NANOTON, "run_nanoton": RUN_NANOTON}
        hostile = HostileProvider(network, payout=os.urandom(32), provider_key=KEY, **asks)
        with hostile.running() as provider, town(folder, ledger="ton") as place:
            place.link = provider.link
            # Each lie leaves a lane behind that only its expiry ends; the caps of an hour are not the matter here.
            caps = {"wallet_hour_nanoton": str(100 * TON), "wallet_day_nanoton": str(100 * TON)}
            requester = place.requester(**caps)
            cocoon.connect(requester.home).fund(100 * TON)
            yield Market(provider, requester, folder)


@pytest.fixture
def market(stage: Market) -> Iterator[Market]:
    """With a provider that is honest until told otherwise; nothing may leave the escrow, whatever it does."""
    stage.provider.lie, stage.provider.close = None, None
    for heard in (stage.provider.heard, stage.provider.countersigned):
        while not heard.empty():
            heard.get()
    yield stage
    assert stage.requester.process.poll() is None, stage.requester.last_words()
    assert not left_the_escrow(stage)


def escrow_history(market: Market) -> list[Transaction]:
    """All that ever happened to the requester's escrow, by the chain."""
    return transactions(market.requester.home, bytes.fromhex(market.client.wallet()["escrow"]))


def left_the_escrow(market: Market) -> list[OutMessage]:
    """What it ever sent to anybody but its owner."""
    owner = bytes.fromhex(market.client.wallet()["address"])
    return [message for one in escrow_history(market) for message in one.outs if message.dest != owner]


def test_without_a_lie_the_same_provider_is_paid(market: Market) -> None:
    before = tally(market.requester.home)
    assert market.attempt() == "done"
    came = gained(market.requester.home, before)
    assert came[records.UNIT_ACCEPTED] == came[records.RECEIPT_ACCEPTED] == 1
    assert market.provider.countersigned.get(timeout=PATIENCE_S)


@pytest.mark.parametrize("lie", [
    *lies("receipt"),
    Lie("receipt", "lane", lambda _: 0, "wrong_lane"),
    Lie("receipt", "seq", lambda seq: seq + 100, "wrong_seq"),
    Lie("receipt", "total_nanoton", lambda total: total - 1, "wrong_total"),
    Lie("receipt", "total_nanoton", lambda total: total + RUN_NANOTON, "wrong_total"),
], ids=str)
def test_a_lie_in_a_receipt_gets_no_voucher(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    assert market.attempt() == "receipt_missing"
    assert market.last_word() == lie.code
    came = gained(market.requester.home, before)
    assert came[records.UNIT_ACCEPTED] == 1 and records.RECEIPT_ACCEPTED not in came
    assert market.provider.countersigned.empty()


@pytest.mark.parametrize("lie", [
    Lie("statement", "price_nanoton", lambda price: price + 1, "wrong_price"),
    Lie("statement", "price_nanoton", lambda price: price - 1, "wrong_price"),
    Lie("statement", "price_nanoton", lambda price: 0, "wrong_price"),
    Lie("statement", "units", lambda units: units + 1, "wrong_units"),
], ids=str)
def test_a_lie_about_the_price_of_a_run_is_no_result(market: Market, lie: Lie) -> None:
    market.provider.lie = lie
    before = tally(market.requester.home)
    assert market.attempt() == lie.code
    assert market.last_word() == lie.code
    assert not gained(market.requester.home, before).keys() & {records.UNIT_ACCEPTED, records.RECEIPT_ACCEPTED}


def _by_another_key(order: CloseOrder) -> bytes:
    return sign_cell(order.hash(), key_pair(bytes(32)))


def _of_another_total(order: CloseOrder) -> bytes:
    return sign_cell(CloseOrder(order.head, order.lane, order.total_nanoton + 10**6).hash(), KEY)


def test_after_all_of_it_the_same_provider_is_still_paid(market: Market) -> None:
    assert market.attempt() == "done"
    assert market.client.audit()["clean"], market.client.audit()
    assert any(one.success for one in escrow_history(market)), "there is no escrow that anything could leave"


@pytest.mark.parametrize("close", [_by_another_key, _of_another_total])
def test_a_close_that_is_not_signed_as_asked_is_never_sent(market: Market, close: Any) -> None:
    """Last in the file: the lane ends by its expiry then, and costs what was vouched at the most."""
    assert market.attempt() == "done"
    market.provider.close = close
    settled = market.client.settle()
    assert settled["lanes_open"] == 0 and settled["lanes_waiting"] >= 1
    until(lambda: _all_end_soon(market), "the expiries that were brought forward")
    assert market.client.audit()["clean"]


def _all_end_soon(market: Market) -> bool:
    wallet = market.client.wallet()
    return all(lane["expires_s"] <= wallet["chain_time_s"] + DEVNET_CLOSE_DELAY_S for lane in wallet["lanes"])
