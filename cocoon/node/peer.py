"""A peer: every part of it built, joined and taken down in order.

Purity: shell.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import trio

from cocoon import __version__
from cocoon.config.hours import read_hours
from cocoon.config.network import NetworkFile, format_link
from cocoon.config.settings import Settings
from cocoon.core.errors import BootstrapUnreachable, CocoonError, Unavailable, Unreachable
from cocoon.core.ids import kind_key, peer_id
from cocoon.core.limits import ACQUAINT_NS, DHT_KEYS_ANNOUNCED, HANDSHAKE_NS, PEERS_WANTED
from cocoon.core.units import KINDS, MILLISECOND_NS, SECOND_NS, UNIT_OF, UnitKind
from cocoon.core.values import Value, asdict, replace
from cocoon.identity.keys import Identity
from cocoon.identity.service import load_or_create
from cocoon.node.accounts import Accounts
from cocoon.node.aliases import Aliases
from cocoon.node.allocator import keep_freed_memory
from cocoon.node.anchors import Anchors
from cocoon.node.asking import Directory
from cocoon.node.bids import BidDesk
from cocoon.node.buying import Buyer
from cocoon.node.calling import Caller
from cocoon.node.clock import MonotonicClock, local_minute, wall_ns
from cocoon.node.closing import CloseCounter, Closing
from cocoon.node.control import ControlServer, open_control
from cocoon.node.counter import OfferCounter
from cocoon.node.devnet import DevnetProcess
from cocoon.node.gossip import OfferGossip
from cocoon.node.library import Library
from cocoon.node.market import Market
from cocoon.node.means import Purse, Shop
from cocoon.node.money import Money, open_money
from cocoon.node.ports import remember_listen, remembered_listen
from cocoon.node.regard import Regard
from cocoon.node.selling import Seller
from cocoon.node.sharing import ServedFrom
from cocoon.node.shelf import ModelShelf
from cocoon.node.stock import Terms
from cocoon.node.till import Till
from cocoon.node.treasury import Treasury
from cocoon.node.verbs import Desk
from cocoon.node.yielding import yield_to_others
from cocoon.p2p.blobs import serve_blobs
from cocoon.p2p.bookfile import load_book
from cocoon.p2p.service import Mesh, MeshSettings, open_mesh
from cocoon.runtime.service import Runtime, WorkerLimits, open_runtime
from cocoon.runtime.workdir import working_directory
from cocoon.scheduler.strategy import Strategy
from cocoon.store.service import JOURNAL_FILE, Journal, Room, open_journal
from cocoon.telemetry.log import counters, get_logger
from cocoon.wire.messages import Profile

BOOK_FILE = "peers.book"
_STDIN, _READ_BYTES = 0, 4_096


class Parts(Value):
    """What a peer is built from, read before its loop starts."""

    home: Path
    settings: Settings
    network: NetworkFile
    identity: Identity
    #: This peer made the network, so nobody else need answer.
    founder: bool
    #: Print the join link before ``ready``.
    show_link: bool
    #: The chain that this peer runs beside itself, if any.
    devnet: DevnetProcess | None
    #: End with standard input: with the program that holds its other end.
    attached: bool = False


async def run(parts: Parts, out: Callable[[str], None]) -> None:
    """Run one peer until SIGTERM, SIGINT or ``cocoon stop``; then drain.

    Raises:
        BootstrapUnreachable: a newcomer reached nobody.
        CocoonError: the peer cannot start, or its journal failed.
    """
    keep_freed_memory()
    peer = _Peer(parts)
    failure: CocoonError | None = None
    async with AsyncExitStack() as stack:
        # Open before anything is said: whoever reads `ready` may end us at once.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        nursery = await stack.enter_async_context(trio.open_nursery())
        try:
            nursery.start_soon(_on_signal, signals, peer.shutdown)
            if parts.attached:
                nursery.start_soon(_on_end_of_input, peer.shutdown)
            await peer.open(stack, nursery)
            await peer.announce(out)
            nursery.start_soon(peer.meet_sellers)
            await peer.shutdown.wait()
            out("draining")
            await peer.drain()
        except CocoonError as error:
            failure = error         # raised at the end: taking the parts down under a cancelled scope would lose it
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _on_signal(signals: AsyncIterator[int], shutdown: trio.Event) -> None:
    async for _ in signals:
        shutdown.set()


async def _on_end_of_input(shutdown: trio.Event) -> None:
    # In a thread: standard input may be a file, for which nobody can wait otherwise.
    said = b"some"
    while said:
        said = await trio.to_thread.run_sync(  # type: ignore[call-arg]
            os.read, _STDIN, _READ_BYTES, abandon_on_cancel=True
        )
    shutdown.set()


class _Peer:
    """The parts of a running peer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = MonotonicClock()
        self._log = get_logger("node")
        self.shutdown = trio.Event()
        self._mesh: Mesh
        self._gossip: OfferGossip
        self._counter: OfferCounter | None = None
        self._shelf: ModelShelf
        self._control: ControlServer | None = None
        self._seller: Seller | None = None
        self._runtime: Runtime | None = None
        self._buyer: Buyer | None = None
        self._bids: BidDesk | None = None
        self._accounts: Accounts | None = None

    @property
    def _sells(self) -> bool:
        return self._parts.settings.provide and self._parts.settings.role == "peer"

    @property
    def _announces(self) -> bool:
        return self._sells or self._parts.founder or self._parts.settings.role == "bootstrap"

    async def open(self, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        """Open every part; the stack takes them down in the reverse order."""
        parts = self._parts
        room = Room(limit_bytes=parts.settings.journal_limit_bytes)
        journal = await stack.enter_async_context(open_journal(parts.home / JOURNAL_FILE, wall_ns, room=room))
        nursery.start_soon(journal.watch)
        if parts.devnet is not None:
            nursery.start_soon(parts.devnet.keep, get_logger("devnet"))
        money = None
        if parts.network.ledger != "none" and parts.settings.role == "peer":
            money = await stack.enter_async_context(
                open_money(parts.home, parts.network, parts.settings, journal, self._clock)
            )
        if self._sells:
            self._runtime = await stack.enter_async_context(_runtime(parts.settings, parts.home))
        boot_id = os.urandom(8)
        self._mesh = await stack.enter_async_context(self._open_mesh(boot_id))
        remember_listen(parts.home, self._mesh.listening())
        shelf = self._shelf = ModelShelf(parts.home, parts.settings.leased_models_bytes, self._mesh.withdraw)
        till = anchors = None
        if self._runtime is not None:
            till, anchors = await self._sell(self._runtime, journal, shelf, boot_id, money, nursery)
        self._gossip = OfferGossip(
            self._mesh, parts.network.id, KINDS, self._clock, get_logger("gossip"), self._counter
        )
        nursery.start_soon(self._gossip.run)
        if parts.settings.role == "peer":
            await self._buy(stack, nursery, journal, shelf, money, till, anchors)

    @asynccontextmanager
    async def _open_mesh(self, boot_id: bytes) -> AsyncIterator[Mesh]:
        parts = self._parts
        book_file = parts.home / BOOK_FILE
        settings = MeshSettings(
            network=parts.network.id, boot_id=boot_id, agent=f"cocoon/{__version__}", sells=self._sells,
            # Who only buys is a client of the DHT: it looks up and announces nothing.
            dht_server=self._announces,
            listen=remembered_listen(parts.home, parts.settings.listen),
            bootstraps=tuple(dict.fromkeys((*parts.settings.bootstraps, *parts.network.bootstraps))),
            book_file=book_file,
            direct_port=parts.settings.direct_port if self._sells and parts.settings.direct_links else None,
        )
        async with open_mesh(settings, parts.identity.seed, load_book(book_file), self._clock, self._log) as mesh:
            yield mesh

    async def _sell(
        self, runtime: Runtime, journal: Journal, shelf: ModelShelf, boot_id: bytes, money: Money | None,
        nursery: trio.Nursery,
    ) -> tuple[Till | None, Anchors | None]:
        parts = self._parts
        terms = terms_of(parts.settings)
        till = anchors = None
        if money is not None:
            till, anchors = await self._collect(money, journal, nursery)
            terms = replace(terms, payout=till.payout, provider_key=money.provider_key.key)
        report = asdict(runtime.device)
        report.pop("confinement")
        counter = self._counter = OfferCounter(
            partial(load_or_create, parts.home), parts.network.id, boot_id, terms, Profile(**report), self._clock,
            runtime.free_bytes,
            lambda: bids.pace.measured(shelf.public()),
        )
        if parts.settings.sell_hours:
            hours = read_hours(parts.settings.sell_hours)
            counter.capacity.in_hours = lambda: hours.holds(local_minute())
        if limit_ppm := parts.settings.yield_ppm:
            capacity, log = counter.capacity, get_logger("sell")
            nursery.start_soon(yield_to_others, limit_ppm, capacity, runtime, self._clock, log)
        counter.serve(self._mesh)
        bids = self._bids = BidDesk(
            parts.identity, counter, shelf, strategy_of(parts.settings), self._clock, terms.leases_max
        )
        shop = Shop(
            identity=parts.identity, network=parts.network.id, counter=counter, bids=bids, shelf=shelf, runtime=runtime,
            journal=journal, terms=terms, mesh=self._mesh, clock=self._clock, log=get_logger("sell"),
            till=till, anchors=anchors,
        )
        self._seller = Seller(shop)
        self._seller.serve()
        bids.serve(self._mesh, self._seller.closed)
        return till, anchors

    async def _collect(self, money: Money, journal: Journal, nursery: trio.Nursery) -> tuple[Till, Anchors]:
        """What a provider on a network with a ledger has besides: its till, its anchor, its part in closes."""
        settings, log = self._parts.settings, get_logger("till")
        till = Till(
            money, journal, self._clock, log,
            tranche_nanoton=settings.tranche_nanoton, strangers_nanoton=settings.strangers_nanoton,
        )
        await till.open(nursery)
        anchors = Anchors(money, self._parts.identity.key, journal, self._clock, log)
        nursery.start_soon(anchors.run)
        CloseCounter(till, log).serve(self._mesh)
        return till, anchors

    async def _buy(
        self, stack: AsyncExitStack, nursery: trio.Nursery, journal: Journal, shelf: ModelShelf, money: Money | None,
        till: Till | None, anchors: Anchors | None,
    ) -> None:
        parts, log = self._parts, get_logger("buy")
        serve_blobs(self._mesh, ServedFrom(shelf))
        treasury = closing = None
        if money is not None:
            treasury = Treasury(money, journal, nursery, log, parts.settings.lane_cap_nanoton)
            treasury.restore()
        regard = Regard(journal, self._clock, log)
        regard.restore()
        directory = Directory(self._mesh, parts.network.id, self._gossip)
        caller = Caller(self._mesh, parts.network.id, self._clock, log, regard, nursery)
        purse = Purse(
            identity=parts.identity, network=parts.network.id, mesh=self._mesh, journal=journal, clock=self._clock,
            log=log, regard=regard,
            directory=directory, market=Market(directory, self._clock, regard, caller),
            lease_idle_ns=parts.settings.lease_idle_ms * MILLISECOND_NS // 2, direct_links=parts.settings.direct_links,
            tranche_nanoton=parts.settings.tranche_nanoton, treasury=treasury,
        )
        buyer = self._buyer = Buyer(purse, nursery)
        if money is not None and treasury is not None:
            await buyer.debts.restore()
            nursery.start_soon(buyer.debts.run)
            closing = Closing(purse, treasury, nursery)
            closing.restore()
            self._accounts = Accounts(
                parts.network, money, journal, treasury, closing, buyer, till, anchors, self._bids
            )
        library = Library(self._mesh, shelf, Aliases(parts.home), log, self._announces, buyer.bought)
        desk = Desk(
            purse, buyer, library, self._status, self.shutdown, accounts=self._accounts, bids=self._bids,
            capacity=None if self._counter is None else self._counter.capacity, runtime=self._runtime,
        )
        control = open_control(parts.home, desk.verbs(), get_logger("control"))
        self._control = await stack.enter_async_context(control)

    async def announce(self, out: Callable[[str], None]) -> None:
        """Join, announce what is sold, and say so on one line each."""
        parts = self._parts
        try:
            await self._mesh.join()
        except BootstrapUnreachable as error:
            # Who has been here before waits for the others; a newcomer with a dead link should know at once.
            if not parts.founder and not (parts.home / BOOK_FILE).exists():
                await self._ask_foreigners()
                raise
            self._log.warning("nobody_answered", text=error.text)
            out(f"warning: {error.text}; still trying")
        if self._sells:
            for kind in _kinds(parts.settings):
                await self._mesh.provide(kind_key(parts.network.id, kind))
        if self._announces:
            for model in list(self._shelf.public())[: DHT_KEYS_ANNOUNCED - len(KINDS)]:
                await self._mesh.provide(model)
        if parts.show_link:
            known = (*self._mesh.addresses(), *parts.network.bootstraps)
            out(format_link(parts.network.with_bootstraps(known)))
        self._log.info("ready", peer=parts.identity.key, version=__version__)
        out("ready")

    async def meet_sellers(self) -> None:
        """Stay acquainted with a few sellers, so that the address book outlives the bootstraps."""
        while self._parts.settings.role == "peer":
            await self._mesh.find_providers(kind_key(self._parts.network.id, "infer"), PEERS_WANTED)
            await trio.sleep(ACQUAINT_NS / SECOND_NS)

    async def _ask_foreigners(self) -> None:
        """Raise ``WrongNetwork`` if somebody does answer at an address of the link, on another network."""
        with trio.move_on_after(HANDSHAKE_NS / SECOND_NS):
            for address in self._parts.network.bootstraps:
                try:
                    await self._mesh.connect(address)
                except Unreachable:
                    continue

    async def drain(self) -> None:
        """Finish what is under way, at most ``drain_ms``."""
        self._log.info("draining")
        with trio.move_on_after(self._parts.settings.drain_ms / 1_000):
            if self._control is not None:
                await self._control.drained()
            if self._buyer is not None:
                await self._buyer.release_idle()
            if self._seller is not None:
                await self._seller.drained()
            if self._accounts is not None:
                await self._accounts.collect()

    def _status(self) -> dict[str, Any]:
        parts, mesh = self._parts, self._mesh
        status: dict[str, Any] = {
            "peer": peer_id(parts.identity.key), "version": __version__, "pid": os.getpid(), "home": str(parts.home),
            "network": parts.network.id, "network_name": parts.network.name, "role": parts.settings.role,
            "sells": self._sells, "rests": self._rests(), "addresses": mesh.addresses(), "peers": mesh.joined,
            "connections": [peer_id(peer) for peer in mesh.connections()], "counters": counters.snapshot(),
            "gossip": self._gossip.summary(),
        }
        if self._runtime is not None:
            device = asdict(self._runtime.device)
            status["device"] = {**device, "confinement": list(device["confinement"])}
        return status

    def _rests(self) -> str:
        """Why nothing new is sold now; empty if it is, or if this peer never sells."""
        closed = self._counter.capacity.closed() if self._counter is not None else None
        return closed.text if closed is not None else ""


@asynccontextmanager
async def _runtime(settings: Settings, home: Path) -> AsyncIterator[Runtime]:
    limits = WorkerLimits(
        memory_bytes=settings.memory_limit_bytes, run_ns=settings.run_limit_ms * MILLISECOND_NS,
        threads=settings.threads,
    )
    warm_ns = settings.warm_ms * MILLISECOND_NS
    with working_directory(home) as workdir:
        async with open_runtime(limits, workdir, workers=settings.max_leases, warm_ns=warm_ns) as runtime:
            with _held_to(settings.power_limit_w, runtime):
                yield runtime


def _held_to(limit_w: int, runtime: Runtime) -> AbstractContextManager[None]:
    """The card within the power that its owner grants it."""
    if not limit_w:
        return nullcontext()
    if runtime.card is None:
        raise Unavailable(f"power_limit_w is {limit_w}, and there is no card here whose driver answers")
    return runtime.card.held_to(limit_w)


def _kinds(settings: Settings) -> tuple[str, ...]:
    """What is sold: tokens never for nothing by mistake, because only runs were given a price."""
    asks = _asks(settings)
    return tuple(kind for kind in KINDS if asks[UNIT_OF[kind]] or not settings.price_run_nanoton)


def _prices(settings: Settings) -> tuple[tuple[int, int], ...]:
    """Of the units of what is sold, in ascending order."""
    asks = _asks(settings)
    return tuple(sorted((int(UNIT_OF[kind]), asks[UNIT_OF[kind]]) for kind in _kinds(settings)))


def _asks(settings: Settings) -> dict[UnitKind, int]:
    """The price of 1,000 units of each sort."""
    return {
        UnitKind.RUN: settings.price_run_nanoton, UnitKind.PROMPT_TOKEN: settings.price_embed_token_nanoton,
        UnitKind.OUTPUT_TOKEN: settings.price_token_nanoton,
    }


def strategy_of(settings: Settings) -> Strategy:
    """How this provider bids, as the user's settings have it (AUC-13 to AUC-15)."""
    floors = (
        (int(UnitKind.RUN), settings.floor_run_nanoton),
        (int(UnitKind.PROMPT_TOKEN), settings.floor_embed_token_nanoton),
        (int(UnitKind.OUTPUT_TOKEN), settings.floor_token_nanoton),
    )
    return Strategy(
        ask_setup_nanoton=settings.price_setup_nanoton, asks=_prices(settings), kinds=_kinds(settings),
        floor_setup_nanoton=settings.floor_setup_nanoton, floors=floors, floor_hour_nanoton=settings.floor_hour_nanoton,
        idle_discount_ppm=settings.idle_discount_ppm, max_model_bytes=settings.model_limit_bytes,
        denied=frozenset(map(bytes.fromhex, settings.deny_models)),
        allowed=frozenset(map(bytes.fromhex, settings.allow_models)),
        denied_licences=settings.deny_licences, allowed_licences=settings.allow_licences,
    )


def terms_of(settings: Settings) -> Terms:
    """The seller's terms that the user's settings make."""
    return Terms(
        setup_nanoton=settings.price_setup_nanoton, prices=_prices(settings), kinds=_kinds(settings),
        max_model_bytes=settings.model_limit_bytes, max_memory_bytes=settings.memory_limit_bytes,
        max_run_ms=settings.run_limit_ms, max_payload_bytes=settings.payload_limit_bytes,
        leases_max=settings.max_leases, leases_max_of_requester=settings.max_leases_per_requester,
        lease_idle_ns=settings.lease_idle_ms * MILLISECOND_NS,
    )
