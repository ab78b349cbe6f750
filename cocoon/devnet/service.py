"""A devnet as a service: one chain, its clock, its clients.

The virtual machine runs in the loop's thread, the disk's flushes do not.

Purity: shell. Spec: docs/spec/devnet.md, rules DEV-1 to DEV-4.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from cocoon.core.errors import BadConfig, CocoonError, Corrupt, ListenFailed
from cocoon.core.groups import single_error
from cocoon.core.limits import (
    DEVNET_BLOCK_NS_MAX,
    DEVNET_BLOCK_NS_MIN,
    DEVNET_GAS_PRICE_MAX,
    DEVNET_WAIT_NS,
)
from cocoon.core.units import MILLISECOND_NS, SECOND_NS
from cocoon.core.values import Value
from cocoon.devnet import tl
from cocoon.devnet.adnl import SEED_BYTES, ServerKey
from cocoon.devnet.chain import Chain, found, is_founded
from cocoon.devnet.clients import Hall
from cocoon.devnet.configuration import GAS_PRICE_NANOTON, NONCE_BYTES, configuration
from cocoon.devnet.faucet import SUPPLY_NANOTON, faucet
from cocoon.devnet.producer import Producer
from cocoon.devnet.queries import Queries, failure
from cocoon.devnet.store import Store, open_store
from cocoon.identity.files import create_secret, read_secret, unavailable
from cocoon.store.lock import lock_home
from cocoon.telemetry.log import get_logger
from cocoon.telemetry.service import open_log

KEY_FILE = "liteserver.key"
LOG_FILE = "devnet.jsonl"
BLOCK_NS = 500 * MILLISECOND_NS
_PORT, _GAS_PRICE, _FAUCET = "port", "gas_price_nanoton", "faucet"
_log = get_logger("devnet")
_WAIT, _SEND = "liteServer.waitMasterchainSeqno", "liteServer.sendMessage"


def wall_clock_s() -> int:
    """Seconds since 1970 by this machine's clock."""
    return int(time.time())


class Settings(Value):
    """How a devnet runs.

    Attributes:
        folder: Private directory of its state, made if missing.
        host: Address to listen on.
        port: 0 takes the port of the last start, or any.
        block_ns: Between two blocks that have work.
        gas_price_nanoton: Of a new chain; None takes what the chain has, or the network's own 400.
        now_s: Wall clock, seconds since 1970; chain time follows it and never falls.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    block_ns: int = BLOCK_NS
    gas_price_nanoton: int | None = None
    now_s: Callable[[], int] = wall_clock_s


class Announcement(Value):
    """What a client must know.

    Attributes:
        genesis: Root hash of the masterchain's zerostate.
        liteserver: ``ip:port:<public key in base64>``.
        faucet: Account that gives coins, workchain 0.
    """

    genesis: bytes
    liteserver: str
    faucet: bytes

    def as_json(self) -> dict[str, str]:
        """The first line that ``cocoon devnet`` prints."""
        return {"genesis": self.genesis.hex(), "liteserver": self.liteserver, "faucet": self.faucet.hex()}


async def run(settings: Settings, ready: Callable[[Announcement], None]) -> None:
    """Run a devnet until cancelled; ``ready`` is called once clients are served.

    Raises:
        BadConfig: a setting is out of bounds, or contradicts the chain on disk.
        ListenFailed: the address cannot be bound.
        HomeInUse, Corrupt, SchemaNewer, StorageFull, Unavailable: why the chain cannot be used (any more).
    """
    async with open_devnet(settings) as devnet:
        ready(devnet.announcement)
        await trio.sleep_forever()


class Devnet(Value):
    """A running devnet."""

    announcement: Announcement
    chain: Chain
    store: Store
    producer: Producer


@asynccontextmanager
async def open_devnet(settings: Settings) -> AsyncIterator[Devnet]:
    """Run a devnet while the block runs; raises as ``run``."""
    _check(settings)
    with (
        single_error(), lock_home(settings.folder), _log_in(settings.folder),
        open_store(settings.folder) as store,
    ):
        if not is_founded(store):
            _found(store, settings)
        _check_price(store, settings)
        chain = Chain(store)
        producer = Producer(chain, store, settings.now_s, settings.block_ns)
        await producer.make_block()
        key = _server_key(settings.folder / KEY_FILE)
        desk = Desk(producer, Queries(chain, store, settings.now_s))
        hall = Hall(key, desk.answer, producer.watched)
        async with trio.open_nursery() as nursery:
            listener = await _listen(settings, store)
            host, port = listener.socket.getsockname()[:2]
            nursery.start_soon(producer.run)
            nursery.start_soon(trio.serve_listeners, hall.serve, [listener])
            where = f"[{host}]" if ":" in host else host
            announcement = Announcement(chain.genesis, f"{where}:{port}:{key.text}", store.needed(_FAUCET))
            yield Devnet(announcement, chain, store, producer)
            nursery.cancel_scope.cancel()


@contextmanager
def _log_in(folder: Path) -> Iterator[None]:
    """The devnet's log, open.

    Raises:
        StorageFull, Unavailable: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(open_log(home=folder, name=LOG_FILE))
        except OSError as error:
            raise unavailable(f"cannot make a log in {folder}", error) from error
        yield


class Desk:
    """Answers what clients ask."""

    def __init__(self, producer: Producer, queries: Queries) -> None:
        self._producer = producer
        self._queries = queries

    async def answer(self, query: bytes) -> bytes:
        """The answer to one ``liteServer.query``; a failure is one too."""
        try:
            name, values = tl.decode_whole(query)
            if name != "liteServer.query":
                return await self._asked(query)
            return await self._asked(values["data"])
        except CocoonError as error:
            return failure(error)
        except Exception as error:  # a defect met by one client's question must not end the chain
            _log.failure("question_failed", error)
            return failure(CocoonError("internal error; see the devnet's log"))

    async def _asked(self, data: bytes) -> bytes:
        await self._producer.freshen()
        name, values, rest = tl.decode(data)
        if name == _WAIT:
            wait_ns = min(max(values["timeout_ms"], 0) * MILLISECOND_NS, DEVNET_WAIT_NS)
            await self._producer.reach(values["seqno"], wait_ns / SECOND_NS)
            data = rest
        return await self._dispatch(*tl.decode_whole(data))

    async def _dispatch(self, name: str, values: dict[str, Any]) -> bytes:
        if name != _SEND:
            return self._queries.answer(name, values)
        await self._producer.submit(values["body"])
        return tl.encode("liteServer.sendMsgStatus", status=1)


def _check(settings: Settings) -> None:
    if not DEVNET_BLOCK_NS_MIN <= settings.block_ns <= DEVNET_BLOCK_NS_MAX:
        least, most = DEVNET_BLOCK_NS_MIN // MILLISECOND_NS, DEVNET_BLOCK_NS_MAX // MILLISECOND_NS
        raise BadConfig(f"a block every {settings.block_ns} ns; choose {least} to {most} ms")
    price = settings.gas_price_nanoton
    if price is not None and not 1 <= price <= DEVNET_GAS_PRICE_MAX:
        raise BadConfig(f"a gas price of {price} nanoton; choose 1 to {DEVNET_GAS_PRICE_MAX}")


def _found(store: Store, settings: Settings) -> None:
    """Make a zerostate that no other network has."""
    price = settings.gas_price_nanoton or GAS_PRICE_NANOTON
    at_s = settings.now_s()
    holder, account = faucet(at_s)
    config = configuration(os.urandom(NONCE_BYTES), price)
    facts = [(_GAS_PRICE, str(price).encode()), (_FAUCET, holder[1])]
    found(store, config, {holder: (account, SUPPLY_NANOTON)}, at_s, facts)


def _check_price(store: Store, settings: Settings) -> None:
    has = store.number(_GAS_PRICE)
    if settings.gas_price_nanoton not in (None, has):
        raise BadConfig(
            f"the chain in {settings.folder} has a gas price of {has} nanoton, not {settings.gas_price_nanoton};"
            " take another folder for another price"
        )


def _server_key(path: Path) -> ServerKey:
    """The key on disk, made at the first start."""
    try:
        seed = read_secret(path, SEED_BYTES)
    except FileNotFoundError:
        seed = os.urandom(SEED_BYTES)
        create_secret(path, seed)
    if len(seed) != SEED_BYTES:
        raise Corrupt(f"{path} holds {len(seed)} bytes where a key has {SEED_BYTES}")
    return ServerKey.from_seed(seed)


async def _listen(settings: Settings, store: Store) -> trio.SocketListener:
    """Bind the port that was asked for, else the one of the last start, else any."""
    remembered = store.number(_PORT, absent=0)
    for port in dict.fromkeys((settings.port, ) if settings.port else (remembered, 0)):
        try:
            listeners = await trio.open_tcp_listeners(port, host=settings.host)
        except (OSError, socket.gaierror) as error:
            failed = error
            continue
        listener, *others = listeners  # a name may stand for several addresses
        for other in others:
            await other.aclose()
        bound = listener.socket.getsockname()[1]
        if bound != remembered:
            store.remember(_PORT, str(bound).encode())
        return listener
    where = f"{settings.host}:{settings.port}" if settings.port else f"any port of {settings.host}"
    raise ListenFailed(f"cannot listen on {where}: {failed.strerror or failed}")
