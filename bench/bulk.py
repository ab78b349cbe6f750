"""How fast a work link carries much data one way: payloads of 4 MiB, sealed and kept until they are acknowledged.

Two processes, each a peer: this one sends, its child receives. Once over a connection of the link's own, and once
over the libp2p stream that serves where there is none.

Purity: shell.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import trio

from bench.rows import ROOT, Row
from cocoon.core.errors import StreamClosed
from cocoon.core.ids import NetworkId, PeerKey
from cocoon.core.units import MIB
from cocoon.node.allocator import keep_freed_memory
from cocoon.node.clock import MonotonicClock
from cocoon.node.link import WorkLink
from cocoon.p2p.book import AddressBook
from cocoon.p2p.service import Mesh, MeshSettings, open_mesh
from cocoon.p2p.streams import PeerStream
from cocoon.privacy.link import SealedReader, SealedWriter
from cocoon.wire.messages import ModelReady, RunRequest

PAYLOAD_BYTES = 4 * MIB
#: Payloads of one round over a connection of its own, and over the shared one.
DIRECT, SHARED, ROUNDS = 128, 16, 3
#: No measure takes longer; the receiver is killed then.
_PATIENCE_S = 300
_PROTOCOL = "/cocoon/bench-bulk/1"
_NETWORK = NetworkId(hashlib.sha256(b"bench").digest())
#: Nothing secret travels here.
_THERE, _BACK = hashlib.sha256(b"there").digest(), hashlib.sha256(b"back").digest()


class _Silent:
    def info(self, event: str, **fields: object) -> None:
        pass


def bulk() -> list[Row]:
    """Megabytes a second one way, from the first payload until the other side has read the last; medians."""
    command = [sys.executable, "-m", "bench.bulk"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        try:
            direct, shared = trio.run(_send_all, json.loads(receiver.stdout.readline()))
        finally:
            receiver.kill()
    return [
        Row("bulk sealed one way, a link of its own", f"{direct:,.0f} MB/s", "1,500 MB/s"),
        Row("  over libp2p", f"{shared:,.0f} MB/s", "250 MB/s"),
    ]


async def _send_all(address: str) -> tuple[float, float]:
    keep_freed_memory()
    with trio.fail_after(_PATIENCE_S):
        return await _rates(address)


async def _rates(address: str) -> tuple[float, float]:
    async with _peer() as mesh:
        receiver = await mesh.connect(address)
        direct = [await _rate(mesh, receiver, DIRECT, direct=True) for _ in range(ROUNDS)]
        shared = [await _rate(mesh, receiver, SHARED, direct=False) for _ in range(ROUNDS)]
    return median(direct), median(shared)


async def _rate(mesh: Mesh, receiver: PeerKey, payloads: int, *, direct: bool) -> float:
    stream = opened = await mesh.open_stream(receiver, _PROTOCOL)
    await opened.send(json.dumps([payloads, direct]).encode())
    port, token = json.loads(await opened.receive())
    if direct:
        stream = await mesh.dial_direct(receiver, port, bytes.fromhex(token))
    link = WorkLink(stream, SealedWriter(_THERE), SealedReader(_BACK), _no_other)
    payload = os.urandom(PAYLOAD_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep_sending)
        began = time.perf_counter()
        nursery.start_soon(_send, link, payloads, payload)
        await link.receive(ModelReady)
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    await link.close()
    await opened.close()
    return payloads * PAYLOAD_BYTES / 1e6 / took


async def _send(link: WorkLink, payloads: int, payload: bytes) -> None:
    for number in range(payloads):
        await link.send(RunRequest(number=number, salt=bytes(16), inputs=payload))


async def _no_other(received: int) -> tuple[PeerStream, int]:
    raise StreamClosed("the bench has one stream")


@asynccontextmanager
async def _peer() -> AsyncIterator[Mesh]:
    settings = MeshSettings(_NETWORK, os.urandom(8), direct_port=0)
    async with open_mesh(settings, os.urandom(32), AddressBook(), MonotonicClock(), _Silent()) as mesh:
        yield mesh


async def _receive_all() -> None:
    keep_freed_memory()                                 # as a peer does
    async with _peer() as mesh:
        mesh.serve(_PROTOCOL, lambda stream: _receive(mesh, stream))
        print(json.dumps(mesh.addresses()[0]), flush=True)
        await trio.sleep_forever()


async def _receive(mesh: Mesh, opened: PeerStream) -> None:
    payloads, direct = json.loads(await opened.receive())
    stream = opened
    assert mesh.direct is not None
    with mesh.direct.expect() as ticket:
        await opened.send(json.dumps([mesh.direct.port, ticket.token.hex()]).encode())
        if direct:
            await ticket.arrived.wait()
            raw = ticket.take()
            assert raw is not None
            stream = mesh.adopt(opened.peer, raw)
    link = WorkLink(stream, SealedWriter(_BACK), SealedReader(_THERE), _no_other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep_sending)
        for _ in range(payloads):
            await link.receive(RunRequest)
        await link.send(ModelReady(load_us=0))
        nursery.cancel_scope.cancel()
    await link.close()


if __name__ == "__main__":
    trio.run(_receive_all)
