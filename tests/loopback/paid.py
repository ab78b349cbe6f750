"""A market with money: real peers over a real devnet, and the witnesses that say who was paid what.

What a peer owes and is owed is read from its journal, what it has from the
chain. Waits go on with the peer's own answers.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trio

import cocoon
from cocoon.config.service import read_network
from cocoon.core.errors import CocoonError
from cocoon.core.ids import peer_id
from cocoon.core.units import NANOTON_PER_TON
from cocoon.ledger.chain import open_chain
from cocoon.ledger.onchain import Transaction
from cocoon.ledger.verify import ReceiptFacts
from cocoon.node import records
from cocoon.node.clock import MonotonicClock
from cocoon.wire.judged import Statement
from tests import journals
from tests.journals import LaneKey
from tests.loopback.town import COCOON, PATIENCE_S, Peer, Town, town
from tests.models import adder_model

#: What the provider asks: a receipt is due with every run, a tranche is two of them.
RUN_NANOTON = 500_000
SETUP_NANOTON = 100_000
#: Eight short answers of a decoder at a time stay within a tranche.
TOKEN_NANOTON = 10_000
ASKS = {
    "price_run_nanoton": str(1_000 * RUN_NANOTON), "price_token_nanoton": str(1_000 * TOKEN_NANOTON),
    "price_setup_nanoton": str(SETUP_NANOTON),
}
TON = NANOTON_PER_TON
BLOCK_MS = "50"
#: Between two questions to a peer that works meanwhile on the same two cores.
PAUSE_S = 0.02


def bill(runs: int) -> int:
    """What a new lease of so many runs costs."""
    return SETUP_NANOTON + runs * RUN_NANOTON


def inputs(units: int) -> list[dict[str, np.ndarray]]:
    """Inputs of the adder, one map a unit."""
    return [{"x": np.arange(3, dtype=np.float32) + index} for index in range(units)]


@dataclass
class Market:
    """A bootstrap with its devnet, a provider that asks money, and a requester that has some."""

    place: Town
    bootstrap: Peer
    provider: Peer
    requester: Peer
    folder: Path
    _models: int = field(default=0)

    @property
    def buyer(self) -> cocoon.Client:
        """A client of the requester."""
        return cocoon.connect(self.requester.home)

    @property
    def seller(self) -> cocoon.Client:
        """A client of the provider."""
        return cocoon.connect(self.provider.home)

    def model(self) -> Path:
        """A model that no lease holds: the adder, with a tail that makes it another one."""
        self._models += 1
        path = self.folder / f"adder{self._models}.onnx"
        # Field 6 of ModelProto, doc_string: any text, and the model computes what it did.
        path.write_bytes(adder_model() + bytes([0x32, 4]) + b"%04d" % self._models)
        return path

    def run(self, model: Path, units: int, **options: Any) -> Ran:
        """One task of the requester."""
        told = Ran()
        told.results = self.buyer.run(model, inputs(units), on_event=told.events.append, **options)
        return told


@dataclass
class Ran:
    """A finished task."""

    results: list[Any] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def prices(self) -> list[int]:
        """What each unit cost."""
        return [result.price_nanoton for result in self.results]

    def event(self, name: str) -> dict[str, Any]:
        """The first event of this name."""
        return next(event for event in self.events if event["event"] == name)


@contextmanager
def market(directory: Path, forks: bool = True, **asks: str) -> Iterator[Market]:
    """A market whose peers end with the block. Provider and requester have ten coins each."""
    with town(directory, "ton", forks) as place:
        bootstrap = place.bootstrap(devnet_block_ms=BLOCK_MS)
        provider = place.up("provider", "--provide", "--join", place.link, **{**ASKS, **asks})
        requester = place.up("requester", "--join", place.link)
        for peer in (provider, requester):
            peer.wait_line("ready")
            cocoon.connect(peer.home).fund(10 * TON)
        yield Market(place, bootstrap, provider, requester, directory)


def seller_again(here: Market, **asks: str) -> Peer:
    """The provider, started again on its home."""
    here.provider = here.place.provider(**{**ASKS, **asks})
    return here.provider


# --- the chain ---------------------------------------------------------------


def kill_chain(here: Market) -> None:
    """The founder and its devnet, at once and for now."""
    here.bootstrap.kill_tree()


@contextmanager
def chain_alone(here: Market, offset_s: int = 0) -> Iterator[None]:
    """The founder is dead and its chain goes on by itself, perhaps in another time; then the founder is back."""
    kill_chain(here)
    chain = _chain(here, offset_s)
    try:
        yield
    finally:
        chain.terminate()
        here.bootstrap = here.place.bootstrap(devnet_block_ms=BLOCK_MS)


def _chain(here: Market, offset_s: int) -> Peer:
    """The founder's chain, once it answers. One of the town's processes: it ends with it whatever happens."""
    home = here.bootstrap.home
    network = read_network(home)
    assert network is not None
    chain = here.place.start(
        "chain", COCOON, "devnet", "--state", str(home / "devnet"), "--block-ms", BLOCK_MS,
        "--listen", network.liteservers[0].rpartition(":")[0], "--clock-offset-s", str(offset_s),
    )
    try:
        chain.wait_line("ready")
    except BaseException:
        chain.kill()
        raise
    return chain


def transactions(home: Path, address: bytes) -> list[Transaction]:
    """All transactions of an account, proven by the liteservers of the home's network."""
    network = read_network(home)
    assert network is not None and network.chain is not None
    facts, liteservers = network.chain, network.liteservers

    async def read() -> list[Transaction]:
        async with open_chain(facts, liteservers, MonotonicClock()) as chain:
            return await chain.transactions(address, 0, 1_024)

    return trio.run(read)


# --- journals ----------------------------------------------------------------


def receipts(peer: Peer, kind: str = records.RECEIPT_ACCEPTED) -> list[ReceiptFacts]:
    """The countersigned receipts in a journal, each checked."""
    return journals.receipts(peer.home, kind)


def vouched(
    peer: Peer, kind: str = records.RECEIPT_ACCEPTED, *, to: Peer | None = None
) -> dict[LaneKey, int]:
    """Total of the newest voucher by lane, as this side's receipts say it; ``to`` leaves only this provider's."""
    only = None if to is None else cocoon.connect(to.home).status()["peer"]
    totals: dict[LaneKey, int] = {}
    for facts in receipts(peer, kind):
        if only is not None and peer_id(facts.provider) != only:
            continue
        key = (facts.escrow, facts.lane)
        totals[key] = max(totals.get(key, 0), facts.total_nanoton)
    return totals


def kept(peer: Peer) -> dict[LaneKey, int]:
    """Total of the newest voucher by lane in a provider's till: what a claim would show."""
    return journals.kept(peer.home)


def accepted(peer: Peer) -> dict[tuple[bytes, int], int]:
    """Prices of the units that a requester accepted, by (lease, number)."""
    units = journals.accepted(peer.home)
    prices: dict[tuple[bytes, int], int] = {(unit.lease, unit.number): unit.price_nanoton for unit in units}
    assert len(prices) == len(units), "a run was accepted twice"
    return prices


def covered(peer: Peer, kind: str = records.RECEIPT_ACCEPTED) -> dict[tuple[bytes, int], int]:
    """Prices of the runs under countersigned receipts, by (lease, number)."""
    lines: list[Statement] = [line for facts in receipts(peer, kind) for line in facts.statements]
    prices = {(line.lease, line.number): line.price_nanoton for line in lines}
    assert len(prices) == len(lines), "a run stands under two receipts"
    return prices


def paid_for(here: Market) -> int:
    """Every accepted unit is under a voucher, and the provider holds it; returns the sum over all providers.

    The last voucher may still be between the two when the buyer's task is done.
    """
    under = covered(here.requester)
    assert accepted(here.requester).items() <= under.items(), "an accepted unit is not paid"
    total = sum(under.values())
    assert sum(vouched(here.requester).values()) == total
    promised = vouched(here.requester, to=here.provider)
    ours = {escrow for escrow, _ in promised}
    until(lambda: {lane: t for lane, t in kept(here.provider).items() if lane[0] in ours} == promised, "a voucher")
    assert vouched(here.provider, records.RECEIPT_SETTLED) == kept(here.provider)
    return total


# --- waiting -----------------------------------------------------------------


def until(check: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; a typed error of a peer that is coming up counts as no."""
    deadline, last = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline:
        try:
            if last := check():
                return last
        except CocoonError as error:
            last = error
        select.select([], [], [], PAUSE_S)
    raise AssertionError(f"{what} did not come: {last}")


def at_result(number: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """An ``on_event`` that acts once, at the so-many-th result."""
    seen = 0

    def hear(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["event"] == "result"
        if seen == number and event["event"] == "result":
            act()

    return hear


def failed(run: Callable[[], Any]) -> str:
    """The code with which ``run`` ended; ``done`` if it did not fail."""
    try:
        run()
    except CocoonError as error:
        return error.code
    return "done"


def beside(*jobs: Callable[[], Any]) -> Sequence[Any]:
    """Run jobs at the same time; their answers in order. What one of them raises is raised here."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(PATIENCE_S) for future in [pool.submit(job) for job in jobs]]
