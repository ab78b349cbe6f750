"""What small messages cost with py-libp2p 0.8.1, by docs/dependencies.md; each test fails without its cure."""

from __future__ import annotations

import trio

from cocoon.p2p import compat  # first: libp2p cannot be imported without it

# isort: split
import importlib.util

from hypothesis import given
from hypothesis import strategies as st
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.utils import read_exactly
from libp2p.security import secure_session
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, TYPE_WINDOW_UPDATE

from cocoon.core.errors import CocoonError, StreamClosed
from cocoon.p2p.host import RawStream
from tests.adapters.p2p.p2p_hosts import never_raises, pair


async def echo(stream):
    """Say everything back, until the other side has heard enough."""
    while True:
        await stream.send(await stream.receive())


async def talk(stream):
    """Fifty small questions, each answered before the next."""
    for number in range(50):
        await stream.send(bytes([number]) * 100)
        assert await stream.receive() == bytes([number]) * 100


async def test_small_reads_send_no_credit_of_their_own(monkeypatch):
    """The library answers every read with a frame of its own."""
    written = []
    original = compat.CalmYamux._write_frame

    async def noted(self, data):
        written.append(data[1])
        await original(self, data)

    async with pair("/test/small/1", echo) as (server, client):
        stream = await client.open_stream(server.peer, "/test/small/1")
        monkeypatch.setattr(compat.CalmYamux, "_write_frame", noted)
        await talk(stream)
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


@never_raises(CocoonError, trio.TooSlowError)
async def test_a_lock_that_nobody_has_is_taken_without_a_pass_of_the_loop(monkeypatch):
    """The library passes it for each, five times a frame on either side."""
    passes = []
    original = trio.Lock.acquire

    async def noted(self):
        passes.append(self)
        await original(self)

    async with pair("/test/locks/1", echo) as (server, client):
        stream = await client.open_stream(server.peer, "/test/locks/1")
        monkeypatch.setattr(trio.Lock, "acquire", noted)
        await talk(stream)
        # Those of heartbeats and of credit; the library passes the loop a thousand times.
        assert len(passes) < 100
        await stream.close()


@never_raises(CocoonError, trio.TooSlowError)
async def test_what_was_decrypted_is_not_copied_to_cut_a_frame_off_it(monkeypatch):
    """The library puts the rest of each message into a buffer, and takes it out again."""
    filled = []
    monkeypatch.setattr(secure_session.SecureSession, "_fill", lambda self, rest: filled.append(len(rest)))
    async with pair("/test/cuts/1", echo) as (server, client):
        stream = await client.open_stream(server.peer, "/test/cuts/1")
        await stream.send(bytes(200_000))
        assert await stream.receive() == bytes(200_000)
        assert not filled
        await stream.close()


def libraries_own_session():
    """The library's class without the cure."""
    spec = importlib.util.spec_from_file_location("uncured", secure_session.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SecureSession


class Scripted:
    """Gives these messages, then the end."""

    def __init__(self, messages):
        self.messages = list(messages)

    async def read_msg(self):
        return self.messages.pop(0) if self.messages else b""


async def all_read(cls, messages, sizes):
    """What each read gives, up to the end."""
    session, found = cls.__new__(cls), []
    session.conn = Scripted(messages)
    session._reset_internal_buffer()
    for size in sizes:
        try:
            found.append(await session.read(size))
        except ConnectionClosedError:
            found.append("closed")
    return found


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6), st.lists(st.none() | st.integers(0, 20), max_size=12))
def test_the_cure_reads_what_the_library_reads(messages, sizes):
    async def both():
        cured = await all_read(secure_session.SecureSession, messages, sizes)
        assert cured == await all_read(libraries_own_session(), messages, sizes)

    trio.run(both)


class Trickle:
    """A reader that gives these pieces, each as far as it is asked for, then the end."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    async def read(self, n=None):
        piece, *self.pieces = self.pieces or [b""]
        if piece[n:]:
            self.pieces.insert(0, piece[n:])
        return piece[:n]


@given(st.lists(st.binary(max_size=5), max_size=5), st.integers(0, 20), st.integers(1, 6))
def test_the_cure_reads_exactly_what_the_library_reads(pieces, n, retries):
    async def told(read):
        reader = Trickle(pieces)
        try:
            return await read(reader, n, retries), reader.pieces
        except IncompleteReadError as error:
            return error.expected_bytes, error.received_bytes, str(error)

    async def both():
        assert await told(compat._read_exactly) == await told(read_exactly)

    trio.run(both)


class Full:
    """A stream of the library's with more to read than anybody reads, at once."""

    async def read(self, n):
        return bytes(n)


async def test_a_reader_that_always_may_go_on_lets_others_go_first():
    """The library's locks did, and no longer do."""
    passes, stream = [], RawStream(Full(), None)

    async def others():
        while True:
            await trio.lowlevel.checkpoint()
            passes.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(200):
            assert len(await stream.read(1 << 16)) == 1 << 16
        assert len(passes) >= 10, "once in a mebibyte, twelve times"
        nursery.cancel_scope.cancel()


async def test_a_stream_that_was_given_up_gives_no_more_of_what_came():
    stream = RawStream(Full(), None)
    assert await stream.read(9) == bytes(9)
    stream.wake()
    heard = None
    try:
        heard = await stream.read(9)
    except StreamClosed as error:
        assert "given up" in error.text
    assert heard is None
