"""The bad-input matrix of a market with money, on the real commands: liteservers that lie, wrong clocks, expired lanes.

No funds, a chain that is away, asks above the ceiling and sellers that are all busy have tests where their market is:
``test_paid_vanishing.py``, ``tests/attack/test_auction.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import cocoon
from cocoon.config.network import format_link, parse_link
from cocoon.config.service import read_network
from cocoon.core.errors import ChainDisagrees, ClockSkewed
from cocoon.core.limits import DEVNET_CLOSE_DELAY_S
from cocoon.core.values import replace
from cocoon.sdk.npz import save
from tests.adapters.ledger.ledger_parts import Middleman, Spoil, honest
from tests.loopback.paid import ASKS, Market, accepted, chain_alone, inputs, market, paid_for, until
from tests.loopback.town import PATIENCE_S, Peer
from tests.loopback.verdict import refused

CLOCKS = Path(__file__).parent / "clocks"
DAY_S = 86_400


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """Each test leaves the market as it found it, but for the time of its chain."""
    with market(tmp_path_factory.mktemp("market")) as place:
        yield place


# --- a liar among the liteservers ------------------------------------------------


@dataclass(frozen=True)
class Upstream:
    """The true liteserver."""

    host: str
    port: int
    key: str


@contextmanager
def middlemen(here: Market, *spoils: Spoil) -> Iterator[list[Middleman]]:
    """Liteservers with keys of their own that ask the true one, and may lie; they serve from another thread."""
    network = read_network(here.bootstrap.home)
    assert network is not None
    host, port, key = network.liteservers[0].split(":")
    made = [Middleman(Upstream(host, int(port), key), spoil) for spoil in spoils]    # type: ignore[arg-type]
    serving, over = threading.Event(), trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            for one in made:
                await nursery.start(one.serve)
            stop.append(trio.lowlevel.current_trio_token())
            serving.set()
            await over.wait()
            nursery.cancel_scope.cancel()

    stop: list[trio.lowlevel.TrioToken] = []
    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert serving.wait(PATIENCE_S)
    try:
        yield made
    finally:
        stop[0].run_sync_soon(over.set)
        thread.join(PATIENCE_S)


def fork(question: str, name: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Shows another chain with the same genesis."""
    if name in ("liteServer.masterchainInfo", "liteServer.blockHeader"):
        key = "last" if "last" in values else "id"
        values = {**values, key: {**values[key], "root_hash": bytes(31) + b"\1"}}
    return name, values


def buyer_over(here: Market, name: str, servers: list[str]) -> Peer:
    """A requester whose join link names these liteservers."""
    link = format_link(replace(parse_link(here.place.link), liteservers=tuple(servers)))
    peer = here.place.up(name, "--join", link)
    peer.wait_line("ready")
    return peer


def task(here: Market, folder: Path) -> tuple[str, ...]:
    save(folder / "in.npz", inputs(1)[0], overwrite=True)
    return ("run", str(here.model()), "--input", str(folder / "in.npz"), "--json")


def test_one_liar_among_three_liteservers_stops_nobody(here: Market, tmp_path: Path) -> None:
    with middlemen(here, honest, honest, fork) as servers:
        peer = buyer_over(here, "among-three", [server.text for server in servers])
        assert here.place.cocoon(peer, "wallet", "fund", "--json").code == 0
        done = here.place.cocoon(peer, *task(here, tmp_path))
        assert done.code == 0, done
        assert here.place.cocoon(peer, "ledger", "audit", "--json").code == 0
        assert servers[2].asked, "the liar was never asked"
        assert peer.terminate() == 0


def test_if_one_of_two_liteservers_lies_nothing_is_promised(here: Market, tmp_path: Path) -> None:
    with middlemen(here, honest, fork) as servers:
        peer = buyer_over(here, "between-two", [server.text for server in servers])
        refused(here.place.cocoon(peer, *task(here, tmp_path)), ChainDisagrees, "different blocks")
        assert accepted(peer) == {}
        assert peer.terminate() == 0


# --- wrong clocks --------------------------------------------------------------------


def with_clock(here: Market, start: Callable[[], Peer], offset_s: int, patch: pytest.MonkeyPatch) -> Peer:
    """A peer whose wall clock is wrong by so much; what it does with time is its own affair."""
    with patch.context() as within:
        within.setattr(here.place, "forks", False)          # a clock is set when Python starts
        within.setenv("PYTHONPATH", str(CLOCKS))
        within.setenv("CLOCK_OFFSET_S", str(offset_s))
        return start()


@pytest.mark.parametrize(("offset_s", "side"), [(-2 * DAY_S, "behind"), (2 * DAY_S, "ahead of")])
def test_who_has_a_wrong_clock_orders_no_lane_and_is_told_so(
    here: Market, tmp_path: Path, offset_s: int, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = with_clock(here, lambda: here.place.requester(f"buyer{offset_s}"), offset_s, monkeypatch)
    assert here.place.cocoon(peer, "wallet", "fund", "--json").code == 0
    refused(here.place.cocoon(peer, *task(here, tmp_path)), ClockSkewed, f"s {side} the chain")
    assert accepted(peer) == {}
    assert peer.terminate() == 0
    peer = here.place.requester(f"buyer{offset_s}")
    assert here.place.cocoon(peer, *task(here, tmp_path)).code == 0, "the clock was set"
    assert peer.terminate() == 0


@pytest.mark.parametrize("offset_s", [-2 * DAY_S, 2 * DAY_S], ids=["behind", "ahead"])
def test_who_has_a_wrong_clock_sells_by_the_time_of_the_chain(
    here: Market, offset_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = {"price_run_nanoton": str(int(ASKS["price_run_nanoton"]) // 2)}
    peer = with_clock(here, lambda: here.place.provider(f"seller{offset_s}", **ASKS | cheap), offset_s, monkeypatch)
    seller = cocoon.connect(peer.home)
    ran = here.run(here.model(), 20)
    assert {result.provider for result in ran.results} == {seller.status()["peer"]}
    until(lambda: seller.earnings()["earned_nanoton"] == sum(ran.prices), "the last voucher")
    assert here.buyer.audit()["clean"] and seller.audit()["clean"]
    assert peer.terminate() == 0


# --- expired lanes ---------------------------------------------------------------------


def test_a_lane_that_has_expired_is_left_and_another_one_taken(here: Market) -> None:
    """Last in the file: afterwards the chain is ahead of the clock."""
    here.run(here.model(), 3)
    before = paid_for(here)
    old = {lane["lane"] for lane in here.buyer.wallet()["lanes"]}
    here.buyer.recover()                                # the owner's own message: every lane ends after the close delay
    with chain_alone(here, offset_s=DEVNET_CLOSE_DELAY_S + 1):
        until(lambda: here.buyer.wallet()["chain_time_s"] > max(
            lane["expires_s"] for lane in here.buyer.wallet()["lanes"] if lane["lane"] in old
        ), "the expiry of the lanes")
        ran = until(lambda: here.run(here.model(), 3), "a lease on a lane that lives")
        assert paid_for(here) - before == sum(ran.prices)
        assert {lane["lane"] for lane in here.buyer.wallet()["lanes"]} - old, "no lane is new"
        assert here.buyer.audit()["clean"] and here.seller.audit()["clean"]
