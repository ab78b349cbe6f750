"""The control socket: how the command line and applications reach this peer.

One request a connection; replies are events, then ``done`` or ``error``. While a
verb takes its time, the peer says that it still works on it. The socket lies in
COCOON_HOME; a token in a file of mode 0600 keeps out a process that can reach the
socket but not the file.

Purity: shell. Spec: docs/spec/control.md, rules CTL-1 to CTL-10.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from cocoon.core.errors import CocoonError, LocalPeerLost, PolicyRefusal, StreamClosed, UsageError
from cocoon.core.limits import CONTROL_CLIENTS, CONTROL_READ_NS, MESSAGE_BYTES
from cocoon.core.pieces import coalesced
from cocoon.core.turns import Turn
from cocoon.core.units import KIB, MIB, SECOND_NS
from cocoon.identity.files import write_private
from cocoon.node.args import Args
from cocoon.p2p.sockets import SocketBytes
from cocoon.telemetry.log import Log, hide
from cocoon.wire.codec import decode, encode_pieces
from cocoon.wire.framing import FrameParser, framed

CONTROL_FILE = "control.json"
SOCKET_FILE = "control.sock"
_READ_BYTES = 256 * KIB
#: What the system keeps for a client that is busy; as much as it grants.
_BUFFER_BYTES = MIB


class Caller:
    """One connection of a local client, after its request was read."""

    def __init__(self, raw: SocketBytes) -> None:
        self._raw = raw
        self._parser = FrameParser(MESSAGE_BYTES)
        self._inbox: deque[bytes] = deque()
        self._sending = Turn()
        #: Pieces of frames that were posted and not sent.
        self._posted: list[bytes] = []
        # Half a frame went out: whatever followed would be read as its other half.
        self._torn = False
        #: What the client passed beside its bytes, and nobody took yet.
        self._descriptor: int | None = None
        #: Called once the final reply has left.
        self.afterwards: Callable[[], None] | None = None

    def post(self, message: dict[str, Any]) -> None:
        """Let a reply leave with the next ``flush``, behind those that were posted before."""
        self._posted += framed(encode_pieces(message, keys="str"))

    async def say(self, message: dict[str, Any]) -> None:
        """Send one reply, and what was posted before; raises as ``flush``."""
        self.post(message)
        await self.flush()

    async def flush(self) -> None:
        """Send what was posted; a cancelled frame is finished first, or the conversation is over.

        Raises:
            LocalPeerLost: the client hung up, or did not read.
        """
        if not self._posted and not self._sending.taken:
            return                                      # else what another took with it is on its way
        try:
            async with self._sending:
                if self._torn:
                    raise LocalPeerLost("the client did not read")
                posted, self._posted = self._posted, []
                await self._send_whole([memoryview(piece) for piece in coalesced(posted)])
        except StreamClosed:
            raise LocalPeerLost("the client hung up") from None

    async def _send_whole(self, pieces: list[memoryview]) -> None:
        """Send these. Cancelled in their midst the rest goes out all the same, if the client takes it soon."""
        left = pieces
        try:
            while left:
                left = await self._raw.write_some(left)
        finally:
            if left and left is not pieces:
                self._torn = True                       # unless the rest goes out after all
                until = trio.current_time() + CONTROL_READ_NS / SECOND_NS
                with trio.CancelScope(shield=True, deadline=until):
                    while left:
                        left = await self._raw.write_some(left)
                    self._torn = False

    async def say_waiting(self, answered: trio.Event) -> None:
        """Say every ``CONTROL_READ_NS`` that the answer is still to come, until it is or the client has hung up."""
        # Never cancelled once the answer is there: half a frame would make it unreadable.
        while not answered.is_set():
            with trio.move_on_after(CONTROL_READ_NS / SECOND_NS):
                await answered.wait()
                return
            try:
                await self.say({"event": "waiting"})
            except LocalPeerLost:
                return                                  # whether its verb goes on is the verb's own business

    async def hear(self) -> dict[str, Any]:
        """The client's next frame.

        Raises:
            LocalPeerLost: it hung up.
            Malformed: no frame of ours.
        """
        while not self._inbox:
            try:
                data = await self._read()
            except StreamClosed:
                data = b""
            if not data:
                raise LocalPeerLost("the client hung up")
            self._inbox.extend(self._parser.feed(data))
        message = decode(self._inbox.popleft(), max_bytes=MESSAGE_BYTES, keys="str")
        if not isinstance(message, dict):
            raise UsageError("a request is a map")
        return message

    async def _read(self) -> bytes:
        data, descriptor = await self._raw.read_passed(_READ_BYTES)
        if descriptor is not None:
            self.close_descriptor()
            self._descriptor = descriptor
        return data

    def take_descriptor(self) -> int | None:
        """The last that the client passed; whoever takes it closes it."""
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def close_descriptor(self) -> None:
        """Nobody takes it."""
        if (descriptor := self.take_descriptor()) is not None:
            os.close(descriptor)


Verb = Callable[[Caller, Args], Awaitable[dict[str, Any]]]


class ControlServer:
    """Answers local clients with the given verbs."""

    def __init__(self, verbs: Mapping[str, Verb], token: str, log: Log) -> None:
        self._verbs = verbs
        self._token = token
        self._log = log
        self._clients = 0
        self._idle = trio.Event()

    async def drained(self) -> None:
        """Wait until no client is being served."""
        while self._clients:
            self._idle = trio.Event()
            await self._idle.wait()

    async def answer(self, stream: trio.SocketStream) -> None:
        """Serve one connection. A fault of the peer's own is answered, logged, and ends here."""
        raw = _raw(stream)
        caller = Caller(raw)
        self._clients += 1
        try:
            await self._answer(caller)
        finally:
            caller.close_descriptor()
            raw.shut()
            self._clients -= 1
            self._idle.set()

    async def _answer(self, caller: Caller) -> None:
        answered = trio.Event()
        async with trio.open_nursery() as nursery:
            try:
                verb, args = await self._request(caller)
                nursery.start_soon(caller.say_waiting, answered)
                reply = {"done": await verb(caller, args)}
            except CocoonError as error:
                reply = _told(error)
            except Exception as error:                  # supervisor border: one client must not end the peer
                self._log.failure("control_failed", error)
                reply = _told(CocoonError("internal error; see the log"))
            answered.set()
        try:
            await caller.say(reply)
        except LocalPeerLost:
            self._log.debug("client_gone")
        if caller.afterwards is not None:
            caller.afterwards()

    async def _request(self, caller: Caller) -> tuple[Verb, Args]:
        """What the client asks for, once it has shown that it may."""
        if self._clients > CONTROL_CLIENTS:
            raise PolicyRefusal(f"more than {CONTROL_CLIENTS} local clients at one time")
        request: dict[str, Any] | None = None
        with trio.move_on_after(CONTROL_READ_NS / SECOND_NS):
            request = await caller.hear()
        if request is None:
            raise UsageError(f"no request within {CONTROL_READ_NS // SECOND_NS} s")
        token, verb, args = request.get("token"), request.get("verb"), request.get("args")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self._token.encode()):
            raise PolicyRefusal("the token is not the one in control.json")
        if not isinstance(verb, str) or verb not in self._verbs or not isinstance(args, dict):
            raise UsageError(f"verb {str(verb)[:32]!r} does not exist here")
        return self._verbs[verb], args


def _raw(stream: trio.SocketStream) -> SocketBytes:
    connected = socket.socket(fileno=stream.socket.detach())
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return SocketBytes(connected)


def _told(error: CocoonError) -> dict[str, Any]:
    return {"error": {"code": error.code, "text": error.text, "remedy": error.remedy}}


@asynccontextmanager
async def open_control(home: Path, verbs: Mapping[str, Verb], log: Log) -> AsyncIterator[ControlServer]:
    """Listen in ``home`` until the block ends; then the socket and its file are gone."""
    server = ControlServer(verbs, token := secrets.token_hex(32), log)
    hide(bytes.fromhex(token))
    listener = _listen(home)
    write_private(home / CONTROL_FILE, json.dumps({"path": SOCKET_FILE, "token": token, "pid": os.getpid()}).encode())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.answer, [listener])
            yield server
            nursery.cancel_scope.cancel()
    finally:
        for name in (CONTROL_FILE, SOCKET_FILE):
            (home / name).unlink(missing_ok=True)


def _listen(home: Path) -> trio.SocketListener:
    """Bind below ``home``, whose path may be longer than a socket address holds."""
    (home / SOCKET_FILE).unlink(missing_ok=True)        # left by a crash; ``lock_home`` says that nobody uses it
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    previous = os.umask(0o177)
    try:
        has_proc = os.path.isdir("/proc/self/fd")
        bound.bind(f"/proc/self/fd/{folder}/{SOCKET_FILE}" if has_proc else str(home / SOCKET_FILE))
    finally:
        os.umask(previous)
        os.close(folder)
    bound.listen(CONTROL_CLIENTS)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))
