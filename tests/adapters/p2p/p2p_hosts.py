"""Real hosts in one process, over real sockets on loopback."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from cocoon.core.groups import leaves
from cocoon.core.ids import NetworkId
from cocoon.p2p.book import AddressBook
from cocoon.p2p.host import Host
from cocoon.p2p.service import MeshSettings, open_mesh

NETWORK = NetworkId(hashlib.sha256(b"the network of these tests").digest())
KEY = hashlib.sha256(b"cocoon/test/infer").digest()
PATIENCE_S = 20
"""No test waits longer; nothing is asserted about how long it took."""


def never_raises(*kinds: type[Exception]):
    """Turn an error that must not happen into a failed assertion of the test."""

    def decorate(test):
        @functools.wraps(test)
        async def run(*args, **kwargs):
            try:
                await test(*args, **kwargs)
            except (*kinds, BaseExceptionGroup) as error:
                found = [e for e in leaves(error) if isinstance(e, kinds)]
                if not found:
                    raise
                raise AssertionError(f"{found[0]!r} happened") from error

        return run

    return decorate


class MonotonicClock:
    def now_ns(self) -> int:
        return time.monotonic_ns()


class Recorder:
    """A logger that keeps what it was told and wakes whoever waits for an event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self._news = trio.Event()

    def info(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))
        self._news.set()
        self._news = trio.Event()

    def named(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == event]

    async def wait_for(self, event: str, **wanted: object) -> dict[str, object]:
        with trio.fail_after(PATIENCE_S):
            while True:
                for fields in self.named(event):
                    if wanted.items() <= fields.items():
                        return fields
                await self._news.wait()


def settings(**changes: object) -> MeshSettings:
    given: dict[str, object] = {"network": NETWORK, "boot_id": os.urandom(8), **changes}
    return MeshSettings(**given)  # type: ignore[arg-type]


@asynccontextmanager
async def mesh(log=None, book=None, seed=None, **changes):
    book = AddressBook() if book is None else book
    async with open_mesh(
        settings(**changes), seed or os.urandom(32), book, MonotonicClock(), log or Recorder()
    ) as running:
        yield running


@asynccontextmanager
async def pair(protocol: str, handler, **changes):
    """(server, client), connected, with ``protocol`` served by the first."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(mesh(**changes))
        client = await stack.enter_async_context(mesh())
        server.serve(protocol, handler)
        await client.connect(server.addresses()[0])
        yield server, client


async def echo(stream) -> None:
    while True:
        await stream.send(await stream.receive(1 << 24))


async def silent(stream) -> None:
    await trio.sleep_forever()


async def unguarded(_where, call) -> bool:
    await call()
    return True


@asynccontextmanager
async def bare_host(listen=("/ip4/127.0.0.1/tcp/0",), guard=unguarded):
    """A host without the mesh above it: no Hello, no heartbeat."""
    host = Host(os.urandom(32), guard)
    async with host.run(listen):
        yield host


async def until(condition, watch) -> None:
    """Wait until ``condition()`` holds, looking again whenever ``watch()`` returns."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await watch()


def tasks() -> int:
    """How many tasks are alive in this trio run."""
    return len(task_names())


def task_names() -> list[str]:
    names, todo = [], [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        names.append(task.name)
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)
    return sorted(names)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
