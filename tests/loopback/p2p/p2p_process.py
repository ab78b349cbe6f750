"""One peer in a process of its own; the test speaks to it over stdin and stdout, one JSON object a line.

Started with one JSON argument: seed (hex), settings of MeshSettings, book (path or null).
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from cocoon.core.errors import CocoonError
from cocoon.core.ids import peer_id, peer_key
from cocoon.p2p.book import AddressBook
from cocoon.p2p.bookfile import load_book
from cocoon.p2p.service import MeshSettings, open_mesh

ECHO = "/test/echo/1"


class Clock:
    def now_ns(self) -> int:
        return time.monotonic_ns()


class Silent:
    def info(self, event: str, **fields: object) -> None:
        pass


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def echo(stream) -> None:
    while True:
        await stream.send(await stream.receive())


async def hold(mesh, peer, stream) -> None:
    """Block in receive and report what woke it."""
    try:
        await stream.receive()
        say(event="woke", code="frame")
    except CocoonError as error:
        say(event="woke", code=error.code, peer=peer_id(peer))


async def report_losses(mesh) -> None:
    async with mesh.watch() as lost:
        async for notice in lost:
            say(event="lost", peer=peer_id(notice.peer), reason=notice.reason)


async def obey(mesh, nursery, order) -> object:
    match order:
        case ["join"]:
            return await mesh.join()
        case ["provide", key]:
            return await mesh.provide(bytes.fromhex(key))
        case ["find", key]:
            return [peer_id(p) for p in await mesh.find_providers(bytes.fromhex(key), 8)]
        case ["connect", address]:
            return peer_id(await mesh.connect(address))
        case ["connections"]:
            return [peer_id(p) for p in mesh.connections()]
        case ["nodes"]:
            return mesh.directory.nodes()
        case ["echo", who]:
            stream = await mesh.open_stream(peer_key(who), ECHO)
            await stream.send(b"hello")
            reply = await stream.receive()
            await stream.close()
            return reply.decode()
        case ["hold", who]:
            stream = await mesh.open_stream(peer_key(who), ECHO)
            nursery.start_soon(hold, mesh, peer_key(who), stream)
            return True
    raise ValueError(order)


async def live(given: dict) -> None:
    book = load_book(Path(given["book"])) if given["book"] else AddressBook()
    settings = MeshSettings(
        network=hashlib.sha256(given.get("network", "loopback").encode()).digest(),
        boot_id=bytes(8),
        sells=given.get("sells", False),
        dht_server=given.get("dht_server", False),
        listen=tuple(given.get("listen", ["/ip4/127.0.0.1/tcp/0"])),
        bootstraps=tuple(given.get("bootstraps", [])),
        book_file=Path(given["book"]) if given["book"] else None,
    )
    async with open_mesh(settings, bytes.fromhex(given["seed"]), book, Clock(), Silent()) as mesh:
        mesh.serve(ECHO, echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_losses, mesh)
            say(event="ready", peer=peer_id(mesh.peer), addresses=mesh.addresses(), listening=mesh.listening())
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                try:
                    say(event="done", result=await obey(mesh, nursery, json.loads(line)))
                except CocoonError as error:
                    say(event="failed", code=error.code, text=error.text)
            nursery.cancel_scope.cancel()
    say(event="closed")


def main(argv: Sequence[str]) -> int:
    """Live as the JSON of the only argument says."""
    trio.run(live, json.loads(argv[0]))
    return 0
