"""Every cure for py-libp2p 0.8.1 that must happen inside the library, each by itself.

Importing this module applies them, so it is the first import of ``host`` and
``dht``, and nothing else in Cocoon imports libp2p. Each cure has a regression
test in tests/adapters/p2p that fails without it; ``docs/dependencies.md`` says
which. Cures that a subclass can do are in ``swarm``.

Purity: shell (changes another package at import). Spec: docs/dependencies.md.
"""

from __future__ import annotations

import functools
import io
import logging
import struct
from collections.abc import Sequence
from typing import Any, Final

import trio

from cocoon.core.imports import without
from cocoon.core.limits import CONNECTION_BUFFER_BYTES, SEND_STALL_NS, STREAM_WINDOW_BYTES
from cocoon.core.turns import Turn
from cocoon.core.units import SECOND_NS
from cocoon.p2p.unused import stand_in

#: A Noise message holds this much plaintext; one Yamux frame should fill one (a third faster than two).
NOISE_PLAINTEXT_BYTES: Final = 65_535 - 16
YAMUX_HEADER_BYTES: Final = 12
FRAME_WRITE_S: Final = 15.0
"""A frame is written whole or the connection dies: cancelling it half-way would garble every other stream."""
FRAME_READ_S: Final = 60.0
"""Until the rest of an announced frame has come; the library's default, which it asks the environment for each time."""
STREAM_CLOSE_S: Final = 5.0
FRAMES_TOGETHER: Final = 4
"""Full frames of a stream that are written at once, each a Noise message; who comes next waits for a millisecond."""
GULP_BYTES: Final = 4 * (NOISE_PLAINTEXT_BYTES + 18)
"""Read of a connection at once: four Noise messages."""
WINDOW_POLL_S: Final = 0.005
"""The library has no event for new credit; it polls every 10 ms itself."""
UNSET_KAD_PROTOCOL: Final = "/cocoon/unset/kad/1"


def shielded(seconds: float) -> trio.CancelScope:
    """A scope that no outer cancellation reaches, and that ends by itself after ``seconds``."""
    return trio.CancelScope(deadline=trio.current_time() + seconds, shield=True)


# --- 1. parts of the library that are never used -------------------------------

stand_in()

# Only now may libp2p be imported.
with without("cffi"):
    # pycryptodome, for keys that we do not use, parses C declarations through it at each start: 50 ms. It takes ctypes.
    import libp2p
import libp2p.io.msgio as msgio  # noqa: E402
import libp2p.io.trio as tcp_stream  # noqa: E402
import libp2p.kad_dht.common  # noqa: E402
import libp2p.kad_dht.kad_dht  # noqa: E402
import libp2p.kad_dht.peer_routing  # noqa: E402
import libp2p.kad_dht.provider_store  # noqa: E402
import libp2p.kad_dht.value_store  # noqa: E402
import libp2p.network.connection.swarm_connection as swarm_connection  # noqa: E402
import libp2p.network.swarm as swarm_module  # noqa: E402
import libp2p.security.secure_session as secure_session  # noqa: E402
import libp2p.stream_muxer.muxer_multistream as muxer_multistream  # noqa: E402
import libp2p.stream_muxer.yamux.yamux as yamux  # noqa: E402
import libp2p.transport.tcp.tcp as tcp  # noqa: E402
import multiaddr.exceptions  # noqa: E402
import multiaddr.resolvers.dns as names  # noqa: E402
from google.protobuf.message import DecodeError as DecodeError  # noqa: E402
from libp2p.exceptions import BaseLibp2pError  # noqa: E402
from libp2p.io.abc import Reader  # noqa: E402
from libp2p.io.exceptions import ConnectionClosedError  # noqa: E402
from libp2p.io.utils import DEFAULT_RETRY_READ_COUNT, read_exactly  # noqa: E402
from libp2p.network.stream.net_stream import NetStream  # noqa: E402
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError  # noqa: E402

#: What a read, write, dial or negotiation may raise when the other side or the network fails.
TRANSPORT_ERRORS: Final = (
    BaseLibp2pError, OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError,
)
#: What parsing a stranger's multiaddress may raise.
MULTIADDR_ERRORS: Final = (
    ValueError, LookupError, multiaddr.exceptions.Error, multiaddr.exceptions.MultiaddrError,
)


# --- 2. cancellation must not garble a connection ------------------------------


class CalmYamux(yamux.Yamux):
    """Yamux whose frames are atomic, whose buffers are bounded and whose slots are given back."""

    async def _write_frame(self, data: bytes) -> None:
        """Write a frame, or some, whole; a cancellation is taken before, never inside."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with shielded(FRAME_WRITE_S * max(1, len(data) // NOISE_PLAINTEXT_BYTES)) as scope:
            async with self._write_lock:
                await self.secured_conn.write(data)     # which lets others go first
        if scope.cancelled_caught:
            # Part of the frame may be out: nothing after it could be understood.
            self.event_shutting_down.set()
            await self.secured_conn.close()
            raise MuxedStreamError(f"a frame could not be written within {FRAME_WRITE_S} s")

    async def open_stream(self) -> yamux.YamuxStream:
        """Open a stream, or fail at once where the library would wait for ever for a free slot."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.stream_backlog_semaphore.value == 0:
            raise MuxedConnUnavailable("this connection already has 256 streams of ours open")
        with shielded(FRAME_WRITE_S):
            return await super().open_stream()
        raise MuxedConnUnavailable("a stream could not be opened in time")

    async def read_stream(self, stream_id: int, n: int = -1) -> bytes:
        """Read, and do not leave an event behind for a stream that is gone."""
        try:
            return await super().read_stream(stream_id, n)
        finally:
            if stream_id not in self.streams:
                self.stream_events.pop(stream_id, None)

    async def _read_data_body(self, length: int) -> bytes:
        """Refuse a frame that would take more memory than all windows of the connection allow."""
        held = sum(map(len, self.stream_buffers.values()))
        if length > STREAM_WINDOW_BYTES or held + length > CONNECTION_BUFFER_BYTES:
            # The only exception that makes the library close the whole connection.
            raise trio.TooSlowError(f"peer sent {length} bytes on top of {held} unread ones")
        if _unread(self.secured_conn) >= length:        # it came with its header: nobody waits
            return await self.secured_conn.read(length)
        with trio.fail_after(FRAME_READ_S):
            return await _read_exactly(self.secured_conn, length)


def mux_with_calm_yamux() -> None:
    """The library takes its own class whatever muxer class a host was given."""
    muxer_multistream.Yamux = CalmYamux  # type: ignore[attr-defined]


_original_read = tcp_stream.TrioTCPStream.read
_original_credit = yamux.YamuxStream._auto_tune_and_send_window_update
_original_close = NetStream.close
_original_reset = NetStream.reset
_original_new_stream = swarm_connection.SwarmConn.new_stream


async def _shielded_credit(self: yamux.YamuxStream, *, bytes_read: int = 0) -> None:
    """Give credit for what was read, an eighth of the window at a time.

    The library sends a frame for every read, which costs both sides more than a
    small message does. The bytes have already left the buffer: a cancellation
    here would lose them.
    """
    unreleased: int = getattr(self, "cocoon_unreleased", 0) + bytes_read
    if unreleased < self.target_recv_window // 8:
        self.cocoon_unreleased = unreleased  # type: ignore[attr-defined]
        return
    self.cocoon_unreleased = 0  # type: ignore[attr-defined]
    with trio.CancelScope(shield=True):
        await _original_credit(self, bytes_read=unreleased)


async def _shielded_close(self: NetStream) -> None:
    """A close that is cancelled leaks the stream and one of 256 slots."""
    with shielded(STREAM_CLOSE_S):
        await _original_close(self)


async def _shielded_reset(self: NetStream) -> None:
    with shielded(STREAM_CLOSE_S):
        await _original_reset(self)


async def _shielded_new_stream(self: swarm_connection.SwarmConn) -> NetStream:
    """Between the opened stream and its bookkeeping there must be no cancellation."""
    await trio.lowlevel.checkpoint_if_cancelled()
    with shielded(FRAME_WRITE_S):
        return await _original_new_stream(self)
    raise MuxedConnUnavailable("a stream could not be opened in time")


def shield_streams() -> None:
    """Make credit, close, reset and open atomic under cancellation."""
    yamux.YamuxStream._auto_tune_and_send_window_update = _shielded_credit  # type: ignore[method-assign]
    NetStream.close = _shielded_close  # type: ignore[method-assign]
    NetStream.reset = _shielded_reset  # type: ignore[method-assign]
    swarm_connection.SwarmConn.new_stream = _shielded_new_stream  # type: ignore[method-assign]


# --- 3. a slow reader is not a dead one ----------------------------------------


async def _patient_write(self: yamux.YamuxStream, data: bytes) -> None:
    """Send all of ``data``; the library gives up after 5 s without credit, we after ``SEND_STALL_NS``."""
    sent, view = 0, memoryview(data)
    stalled_s = 0.0
    while sent < len(data):
        if self.send_closed or self.closed or self.reset_received:
            raise MuxedStreamError("the stream is closed for sending")
        room = min(self.send_window, NOISE_PLAINTEXT_BYTES - YAMUX_HEADER_BYTES, len(data) - sent)
        if room <= 0:
            if stalled_s * SECOND_NS >= SEND_STALL_NS:
                raise MuxedStreamError(f"the reader took nothing for {SEND_STALL_NS // SECOND_NS} s")
            await trio.sleep(WINDOW_POLL_S)
            stalled_s += WINDOW_POLL_S
            continue
        stalled_s = 0.0
        parts: list[bytes | memoryview] = []
        while room > 0 and len(parts) < 2 * FRAMES_TOGETHER:
            self.send_window -= room    # no await since it was read, so no lock is needed
            header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, self.stream_id, room)
            parts += (header, view[sent : sent + room])
            sent += room
            room = min(self.send_window, NOISE_PLAINTEXT_BYTES - YAMUX_HEADER_BYTES, len(data) - sent)
        await self.conn._write_frame(b"".join(parts))


def wait_for_slow_readers() -> None:
    """Replace the 5 s limit, and bound what one stream may have in flight towards us."""
    yamux.YamuxStream.write = _patient_write  # type: ignore[method-assign]
    yamux.MAX_WINDOW_SIZE = STREAM_WINDOW_BYTES


# --- 4. a connection is read in gulps ------------------------------------------


async def _gulping_read(self: tcp_stream.TrioTCPStream, n: int | None = None) -> bytes:
    """Read as the library does, but ask the system for all that is there.

    A Noise message is read in two steps, its length and itself; each was a call of the system and a pass of the loop.
    """
    if n == 0:
        return b""
    unread: io.BytesIO | None = getattr(self, "cocoon_unread", None)
    if unread is not None and (data := unread.read(n)):
        return data
    unread = self.cocoon_unread = io.BytesIO(await _original_read(self, GULP_BYTES))  # type: ignore[attr-defined]
    return unread.read(n)


def read_in_gulps() -> None:
    """Replace the reading of TCP connections."""
    tcp_stream.TrioTCPStream.read = _gulping_read  # type: ignore[method-assign]


def _unread(session: Any) -> int:
    """Bytes that were decrypted and not read yet."""
    held, at = getattr(session, "cocoon_held", (b"", 0))
    return len(held) - at


async def _cutting_read(self: secure_session.SecureSession, n: int | None = None) -> bytes:
    """Read as the library does, which copies what was decrypted four times to cut a frame off it."""
    if n == 0:
        return b""
    held, at = self.__dict__.pop("cocoon_held", (b"", 0))
    held = held or await self.conn.read_msg()
    if not held:
        raise ConnectionClosedError("Connection closed")
    parts, missing = [], len(held) - at if n is None else n
    while True:
        parts.append(held if at == 0 and len(held) <= missing else held[at : at + missing])
        missing -= len(parts[-1])
        at += len(parts[-1])
        if at < len(held):
            self.cocoon_held = held, at  # type: ignore[attr-defined]
        if not missing:
            break
        held, at = await self.conn.read_msg(), 0
        if not held:
            break                       # the library returns what there is
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Begun(Reader):
    """A reader that gives again what was read already."""

    def __init__(self, data: bytes, reader: Any) -> None:
        self._data: bytes | None = data
        self._reader = reader

    async def read(self, n: int | None = None) -> bytes:
        data, self._data = self._data, None
        return await self._reader.read(n) if data is None else data


async def _read_exactly(reader: Any, n: int, retry_count: int = DEFAULT_RETRY_READ_COUNT) -> bytes:
    """Read as the library does, which copies twice also what came whole."""
    data: bytes = await reader.read(n)
    return data if len(data) == n else await read_exactly(_Begun(data, reader), n, retry_count)


def cut_what_was_decrypted() -> None:
    """Replace the reading of sealed connections."""
    secure_session.SecureSession.read = _cutting_read  # type: ignore[method-assign]
    msgio.read_exactly = _read_exactly  # type: ignore[attr-defined]
    yamux.read_exactly = _read_exactly  # type: ignore[attr-defined]


# --- 5. a lock that is free costs nothing --------------------------------------

_LOCKS: Final = {
    CalmYamux: ("_write_lock", "streams_lock"), NetStream: ("_state_lock",),
    tcp_stream.TrioTCPStream: ("read_lock", "write_lock"),
}


def _with_turns(cls: Any, names: Sequence[str]) -> None:
    original = cls.__init__

    @functools.wraps(original)
    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for name in names:
            setattr(self, name, Turn())

    cls.__init__ = begin


def lock_without_a_pass() -> None:
    """The library's locks pass the loop each time they are taken, five times a frame on each side."""
    for cls, locks in _LOCKS.items():
        _with_turns(cls, locks)


# --- 6. listening ports are ours alone -----------------------------------------


def _reuse_address_only(sock: Any) -> None:
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)


def own_listening_ports() -> None:
    """No SO_REUSEPORT: with it a second peer on a taken port starts happily and gets half of the dials."""
    tcp._set_reuse_flags = _reuse_address_only


# --- 7. the public IPFS network stays away ------------------------------------

_KAD_MODULES = (
    libp2p.kad_dht.common,
    libp2p.kad_dht.kad_dht,
    libp2p.kad_dht.peer_routing,
    libp2p.kad_dht.provider_store,
    libp2p.kad_dht.value_store,
)


def leave_ipfs_kad() -> None:
    """Take ``/ipfs/kad/1.0.0`` out of all five modules that hold it.

    The protocol of a network is given to each host by ``dht``; what remains
    here is an id that nobody serves, so that a forgotten path of the library
    can reach nobody instead of merging us with the public network.
    """
    for module in _KAD_MODULES:
        module.PROTOCOL_ID = UNSET_KAD_PROTOCOL  # type: ignore[attr-defined]


# --- 8. the DNS resolver is loaded for a DNS name alone -------------------------


def resolve_names_late() -> None:
    """Each host makes a resolver, which loads sixty modules; now the first name that is looked up does."""
    resolver = functools.cached_property(lambda _: names.dns.asyncresolver.Resolver())
    resolver.__set_name__(names.DNSResolver, "_resolver")
    names.DNSResolver.__init__ = lambda _: None
    names.DNSResolver._resolver = resolver


# --- 9. dial delay, and the root logger ----------------------------------------


def dial_without_delay() -> None:
    """The library waits 250 ms after each dial for a second one that we never make."""
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.0


def keep_logs_quiet() -> None:
    """Peers must not be able to write on our stderr; our own events say what matters.

    ``swarm_connection`` calls ``logging.warning`` itself, which would install a
    handler on the root logger of the whole process.
    """
    quiet = logging.getLogger("libp2p")
    quiet.setLevel(logging.CRITICAL + 1)
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")  # type: ignore[assignment, attr-defined]
    logging.getLogger("libp2p.network.stream.net_stream").setLevel(logging.CRITICAL + 1)


mux_with_calm_yamux()
shield_streams()
cut_what_was_decrypted()
lock_without_a_pass()
wait_for_slow_readers()
read_in_gulps()
own_listening_ports()
leave_ipfs_kad()
resolve_names_late()
dial_without_delay()
keep_logs_quiet()
