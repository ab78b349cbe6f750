"""One flipped byte on the way, whatever it hits, and the message is refused, not misread.

What is signed is refused by its signature (tests/unit/wire/test_tampering.py).
What is not signed travels inside the sealed link of a lease, or on a stream
inside Noise: here every byte of the former is flipped, and bytes at every part
of the latter, on a real connection through a relay.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from cocoon.core.errors import BadSeal, StreamClosed
from cocoon.p2p.addresses import Address, parse
from cocoon.p2p.host import Host, RawStream
from cocoon.privacy.link import SealedReader, SealedWriter
from tests.adapters.p2p.p2p_hosts import PATIENCE_S, bare_host

VECTORS: dict[str, bytes] = {
    name: bytes.fromhex(vector["packed"])
    for name, vector in json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text()).items()
}
MASKS = (0x01, 0x80, 0xFF)
KEY = bytes(range(32))
PROTOCOL = "/cocoon/test-flip/1"
#: Words on streams outside a lease; the two of them that hold signed bodies are flipped here all the same.
IN_NOISE = (
    "hello", "beat", "refusal", "offer_request", "offer_reply", "lease_open", "manifest_request", "manifest_reply",
    "chunk_request",
)
FLIPS = 4
SEED = 20261123


@pytest.mark.parametrize("name", VECTORS)
def test_no_flipped_byte_of_a_sealed_message_opens(name: str) -> None:
    frames = SealedWriter(KEY).seal(VECTORS[name])
    for index, frame in enumerate(frames):
        for at in range(len(frame)):
            for mask in MASKS:
                bad = bytearray(frame)
                bad[at] ^= mask
                reader = SealedReader(KEY)
                for earlier in frames[:index]:
                    reader.feed_frame(earlier)
                with pytest.raises(BadSeal):
                    reader.feed_frame(bad)
    reader = SealedReader(KEY)
    assert [reader.feed_frame(frame) for frame in frames][-1] == VECTORS[name]


@dataclass
class Relay:
    """Passes bytes on between a dialler and one peer; flips one when told to."""

    target: tuple[str, int]
    #: Position in the next bytes towards the peer, as a fraction of them; None passes all on.
    flip_at: float | None = None
    flipped: int = 0

    async def serve(self, dialler: trio.SocketStream) -> None:
        """One connection, both ways, until one side ends it."""
        async with dialler, await trio.open_tcp_stream(*self.target) as peer, trio.open_nursery() as nursery:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream, *, towards: bool) -> None:
                try:
                    async for data in source:
                        await sink.send_all(self._pass(data) if towards else data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass  # the other side is gone, which is what flipping is for
                nursery.cancel_scope.cancel()

            nursery.start_soon(partial(pump, dialler, peer, towards=True))
            await pump(peer, dialler, towards=False)

    def _pass(self, data: bytes) -> bytes:
        if self.flip_at is None:
            return data
        bad = bytearray(data)
        bad[int(self.flip_at * len(bad))] ^= 0x01
        self.flip_at = None
        self.flipped += 1
        return bytes(bad)


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Host, Host, Relay, Address, list[bytes]]]:
    """(peer, dialler, relay between them, address of the relay, what the peer was told).

    Bare hosts: a mesh would learn the other's own address and go round the relay.
    """
    told: list[bytes] = []

    async def listen(stream: RawStream) -> None:
        try:
            while data := await stream.read(1 << 16):
                told.append(data)
                await stream.write(b"heard")
        except StreamClosed:
            await stream.reset()

    async with bare_host() as peer, bare_host() as dialler, trio.open_nursery() as nursery:
        peer.set_handler(PROTOCOL, listen)
        target = peer.listening()[0]
        _, _, host, _, port = target.text.split("/")
        relay = Relay((host, int(port)))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay.serve, listeners)
        address, _ = parse(f"/ip4/127.0.0.1/tcp/{listeners[0].socket.getsockname()[1]}")
        yield peer, dialler, relay, address, told
        nursery.cancel_scope.cancel()


async def test_a_flipped_byte_on_a_stream_ends_the_connection_and_is_never_heard() -> None:
    moments = random.Random(SEED)
    async with relayed() as (peer, dialler, relay, address, told):
        trials = 0
        for name in IN_NOISE:
            for part in range(FLIPS):
                connection = await dialler.dial(peer.peer, address)
                stream = await connection.open(PROTOCOL)
                await stream.write(b"before")
                assert await stream.read(1 << 16) == b"heard"
                relay.flip_at = (part + moments.random()) / FLIPS
                trials += 1
                with trio.fail_after(PATIENCE_S):
                    assert await last_word(stream, VECTORS[name]) == b"", f"{name}: answered after a flip"
                    await connection.closed.wait()
        assert relay.flipped == trials
        assert told == [b"before"] * trials, "something else than what was said was heard"
        stream = await (await dialler.dial(peer.peer, address)).open(PROTOCOL)
        await stream.write(VECTORS["beat"])
        assert await stream.read(1 << 16) == b"heard"
        assert told[-1] == VECTORS["beat"], "without a flip the relay changes nothing"
        await stream.close()


async def last_word(stream: RawStream, data: bytes) -> bytes:
    """What the peer answers to ``data``; nothing if the stream ends instead."""
    try:
        await stream.write(data)
        return await stream.read(1 << 16)
    except StreamClosed:
        return b""
