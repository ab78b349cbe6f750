"""Figures of the market: from the submission of a task to its award, among eight real providers on this machine.

The requester's part of a peer runs in this process: its mesh, ``Market.buy``
and the proposal of the lease, with a journal of its own. Every provider is a
process. Runs cost nothing and the model is private, so neither a lane nor a
look-up of the model is part of it; nor are the control socket and the transfer
of the model.

Purity: shell.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import trio

from bench.peers import started_here
from bench.rows import ROOT, Row
from cocoon.config.network import NetworkFile, parse_link
from cocoon.core.errors import StreamClosed
from cocoon.core.ids import ModelId, PeerKey
from cocoon.core.limits import CALL_NS, LEASE_IDLE_NS, PROVIDERS_ASKED, TRANCHE_NANOTON
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.identity.service import load_or_create
from cocoon.node.asking import Directory
from cocoon.node.buying import Buyer
from cocoon.node.calling import Caller
from cocoon.node.clock import MonotonicClock, wall_ns
from cocoon.node.gossip import OfferGossip
from cocoon.node.link import WorkLink
from cocoon.node.market import Market, Wanted
from cocoon.node.means import Order, Purse
from cocoon.node.models import HeldModel
from cocoon.node.regard import Regard
from cocoon.p2p.book import AddressBook
from cocoon.p2p.service import MeshSettings, open_mesh
from cocoon.scheduler.round import RoundEnded
from cocoon.scheduler.selection import RUNS, Ranked
from cocoon.scheduler.verification import Called
from cocoon.store.service import JOURNAL_FILE, open_journal
from cocoon.telemetry.log import get_logger
from cocoon.wire.manifest import chunk_hash, implicit, model_id
from cocoon.wire.messages import LeaseClose, Refusal

AUCTIONS = 200
#: Every auction calls each provider, so it begins no sooner after the one before than a caller may call.
_PAUSE_S = 1.2 * CALL_NS / SECOND_NS
_GOAL = "15 ms"
_MODEL = bytes(1_024)
_UNITS = 100


@dataclass(frozen=True, slots=True)
class _Match:
    """One auction: bids that came, and nanoseconds since its task was submitted."""

    bids: int
    looked_up: int
    bids_in: int
    awarded: int
    accepted: int


class _Caller(Caller):
    """Notes when it was asked to call, and when the auction had ended."""

    called_ns = ended_ns = 0

    async def call(self, peers: Collection[PeerKey], called: Called) -> RoundEnded:
        """As the caller's own."""
        self.called_ns = time.perf_counter_ns()
        ended = await super().call(peers, called)
        self.ended_ns = time.perf_counter_ns()
        return ended


def match() -> list[Row]:
    """Submit to award with a warm set of eight: one task after the other, each with its auction and its lease."""
    with started_here() as members:
        free = {"COCOON_LEDGER": "none"}
        bootstrap = members.start("bootstrap", "up", "--role", "bootstrap", **free)
        link = members.wait_link(bootstrap)
        names = [f"provider{number}" for number in range(1, PROVIDERS_ASKED + 1)]
        started = [members.start(name, "up", "--provide", "--join", link, **free) for name in names]
        for peer in (bootstrap, *started):
            members.wait_ready(peer)
        matches = trio.run(_matches, parse_link(link))
    parts = (
        ("choice of sellers", [one.looked_up for one in matches]),
        (f"call to the last of {PROVIDERS_ASKED} bids", [one.bids_in - one.looked_up for one in matches]),
        ("ranking, losers told", [one.awarded - one.bids_in for one in matches]),
        ("lease proposed, signed, accepted, journalled", [one.accepted - one.awarded for one in matches]),
    )
    return [
        *_both(f"match, warm set of {PROVIDERS_ASKED}, submit to award", [one.awarded for one in matches], _GOAL),
        *_both(f"match, warm set of {PROVIDERS_ASKED}, to accepted lease", [one.accepted for one in matches]),
        *(row for what, took in parts for row in _both(f"  {what}", took)),
        Row("  bids in time", f"{sum(one.bids for one in matches):,} of {AUCTIONS * PROVIDERS_ASKED:,}"),
    ]


def _both(what: str, took_ns: list[int], goal: str = "") -> list[Row]:
    took_ms = [ns / MILLISECOND_NS for ns in took_ns]
    return [Row(f"{what}, p50", f"{median(took_ms):.1f} ms", goal), Row(f"{what}, p95", f"{_p95(took_ms):.1f} ms")]


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


async def _matches(network: NetworkFile) -> list[_Match]:
    with tempfile.TemporaryDirectory(prefix="cocoon-bench-", dir=ROOT / "build") as folder:
        async with _requester(Path(folder), network) as (purse, buyer, caller):
            await _all_bid(purse.market)
            found = []
            for _ in range(AUCTIONS):
                began_s = trio.current_time()
                found.append(await _one(purse.market, buyer, caller))
                await trio.sleep_until(began_s + _PAUSE_S)
            return found


async def _all_bid(market: Market) -> None:
    """Auctions until every provider is known and has bid: the call streams are open then."""
    with trio.fail_after(60):
        while len((await market.buy(_wanted())).quotes) < PROVIDERS_ASKED:
            await trio.sleep(_PAUSE_S)


async def _one(market: Market, buyer: Buyer, caller: _Caller) -> _Match:
    """One task up to its lease, which is given back."""
    submitted_ns = time.perf_counter_ns()
    sold = await market.buy(_wanted())
    awarded_ns = time.perf_counter_ns()
    assert isinstance(sold.verdict, Ranked), sold.missed
    *_, link = await buyer._propose(sold.verdict.quotes[0], _order())
    accepted_ns = time.perf_counter_ns()
    await _give_back(link)
    return _Match(
        len(sold.quotes), caller.called_ns - submitted_ns, caller.ended_ns - submitted_ns, awarded_ns - submitted_ns,
        accepted_ns - submitted_ns,
    )


async def _give_back(link: WorkLink) -> None:
    """Until the provider has closed, so that its place is free for the next one."""
    await link.send(LeaseClose(code="released"))
    with suppress(StreamClosed):
        while True:
            await link.receive(Refusal, LeaseClose)
    await link.close()


@asynccontextmanager
async def _requester(home: Path, network: NetworkFile) -> AsyncIterator[tuple[Purse, Buyer, _Caller]]:
    """The buying half of a peer, joined."""
    identity, clock, log = load_or_create(home), MonotonicClock(), get_logger("bench")
    settings = MeshSettings(network=network.id, boot_id=os.urandom(8), bootstraps=network.bootstraps)
    async with (
        open_journal(home / JOURNAL_FILE, wall_ns) as journal,
        open_mesh(settings, identity.seed, AddressBook(), clock, log) as mesh,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(journal.watch)
        await mesh.join()
        regard = Regard(journal, clock, log)
        gossip = OfferGossip(mesh, network.id, ("infer",), clock, log)
        nursery.start_soon(gossip.run)
        directory = Directory(mesh, network.id, gossip)
        caller = _Caller(mesh, network.id, clock, log, regard, nursery)
        purse = Purse(
            identity=identity, network=network.id, mesh=mesh, journal=journal, clock=clock, log=log, regard=regard,
            directory=directory, market=Market(directory, clock, regard, caller), lease_idle_ns=LEASE_IDLE_NS,
            direct_links=True, tranche_nanoton=TRANCHE_NANOTON, treasury=None,
        )
        yield purse, Buyer(purse, nursery), caller
        nursery.cancel_scope.cancel()


def _wanted() -> Wanted:
    """Runs of a private model."""
    return Wanted("infer", RUNS, None, len(_MODEL), _UNITS, 60_000, 0)


def _order() -> Order:
    """The same, for the lease; no byte of the model is read before it is agreed on."""
    manifest = implicit(len(_MODEL), [chunk_hash(_MODEL)])
    held = HeldModel(ModelId(model_id(manifest)), manifest, (), ((chunk_hash(_MODEL),),))
    return Order(held, private=True, kind="infer", measure=RUNS, units=_UNITS, ceiling_nanoton=0)
