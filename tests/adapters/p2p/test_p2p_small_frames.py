"""What small messages cost with py-libp2p 0.8.1, by docs/dependencies.md; each test fails without its cure."""

from __future__ import annotations

import trio

from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, TYPE_WINDOW_UPDATE

from cocoon.core.errors import CocoonError
from tests.adapters.p2p.p2p_hosts import never_raises, pair


async def test_small_reads_send_no_credit_of_their_own(monkeypatch):
    """The library answers every read with a frame of its own."""
    written = []
    original = compat.CalmYamux._write_frame

    async def noted(self, data):
        written.append(data[1])
        await original(self, data)

    async def echo(stream):
        while True:
            await stream.send(await stream.receive())

    async with pair("/test/small/1", echo) as (server, client):
        stream = await client.open_stream(server.peer, "/test/small/1")
        monkeypatch.setattr(compat.CalmYamux, "_write_frame", noted)
        for number in range(50):
            await stream.send(bytes([number]) * 100)
            assert await stream.receive() == bytes([number]) * 100
        # A few frames of that type say that streams are open, of heartbeats too; the library sends a hundred more.
        assert written.count(TYPE_DATA) >= 100 and written.count(TYPE_WINDOW_UPDATE) < 10
        await stream.close()


@never_raises(CocoonError, trio.TooSlowError)
async def test_messages_that_came_together_are_read_together(monkeypatch):
    """The library asks the system twice for each of them."""
    asked = []
    original = trio.SocketStream.receive_some

    async def noted(self, n=None):
        asked.append(n)
        return await original(self, n)

    async def count(stream):
        for _ in range(200):
            await stream.receive()
        await stream.send(b"all")
        await stream.receive()

    async with pair("/test/gulps/1", count) as (server, client):
        stream = await client.open_stream(server.peer, "/test/gulps/1")
        monkeypatch.setattr(trio.SocketStream, "receive_some", noted)
        for number in range(200):
            await stream.send(bytes([number]) * 100)
        assert await stream.receive() == b"all"
        # Of both sides, heartbeats and credit among them; the library asks 400 times and more.
        assert len(asked) < 300
        await stream.close()
