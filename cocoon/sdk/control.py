"""One conversation with the local peer: frames over a Unix socket.

Reading and writing go on at the same time, because the peer returns results
while the client still sends inputs: a client that only wrote would fill both
buffers and stand still. Every wait has an end, every length is checked before
memory is taken, and at most one frame waits to be written.

Purity: shell. Spec: docs/spec/control.md, rules CTL-3 to CTL-5 and CTL-24.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cocoon.core import limits
from cocoon.core.errors import CocoonError, LocalPeerLost, Malformed, NoLocalPeer, from_code
from cocoon.core.pieces import PIECES, unsent
from cocoon.core.shared import map_shared, new_shared
from cocoon.core.units import KIB, MIB, MILLISECOND_NS, SECOND_NS
from cocoon.sdk.fields import take_map, take_text
from cocoon.sdk.home import Contact
from cocoon.wire import codec
from cocoon.wire.framing import FrameParser, framed

_READ_BYTES = 256 * KIB
#: What the system keeps for a peer that is busy; as much as it grants.
_BUFFER_BYTES = MIB
#: Frames wait together up to this, and leave in one call of the system.
_WAITING_BYTES = 64 * KIB
# sun_path holds 108 bytes on Linux and 104 on macOS, the final NUL included.
_SOCKET_PATH_BYTES = 100

Message = dict[str, Any]


class Connection:
    """A socket to the local peer that speaks frames of canonical msgpack maps."""

    def __init__(self, contact: Contact) -> None:
        """Connect.

        Raises:
            NoLocalPeer: nothing listens there.
        """
        self._socket = _dial(contact)
        self._token = contact.token
        self._parser = FrameParser(limits.MESSAGE_BYTES)
        self._inbox: deque[bytes] = deque()
        #: Pieces of frames that wait to be written.
        self._outgoing: list[memoryview] = []
        #: A descriptor that leaves with what is written next.
        self._passing: int | None = None
        self._deaf = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the peer abandons what this conversation asked for."""
        self._socket.close()
        self._passed()

    @property
    def idle(self) -> bool:
        """True if nothing waits to be written."""
        return not self._outgoing

    @property
    def roomy(self) -> bool:
        """True if one frame more may wait."""
        return sum(map(len, self._outgoing)) < _WAITING_BYTES

    def request(self, verb: str, args: Message) -> None:
        """Queue the first frame of a conversation."""
        self.send({"token": self._token, "verb": verb, "args": args})

    def send(self, message: Message) -> None:
        """Queue one frame; it leaves while ``step`` waits. Only when ``roomy``."""
        if not self._deaf:
            self._outgoing += map(memoryview, framed(codec.encode_pieces(message, keys="str")))

    def share(self) -> memoryview:
        """Memory that the peer sees too, before what is sent next; once in a conversation."""
        self._passing = new_shared(limits.SHARED_TASK_BYTES)
        self.send({"shared_bytes": limits.SHARED_TASK_BYTES})
        return map_shared(self._passing, limits.SHARED_TASK_BYTES)

    def receive(self, deadline_ns: int) -> Message:
        """The next frame, however long the writing takes; see ``step``."""
        while (message := self.step(deadline_ns)) is None:
            pass
        return message

    def step(self, deadline_ns: int) -> Message | None:
        """Write and read until a frame is there, or until everything is written.

        Args:
            deadline_ns: ``time.monotonic_ns`` at which an idle wait ends.

        Returns:
            The next frame, or None when a queued frame has just left.

        Raises:
            LocalPeerLost: the peer hung up, or was silent until the deadline.
            Malformed: the peer sent something that is no frame of ours.
        """
        had_to_write = not self.idle
        while (message := self.next()) is None:
            if had_to_write and self.idle and not self._deaf:
                return None
            self.move(self.wait(deadline_ns))
        return message

    def next(self) -> Message | None:
        """The next frame that was read already; None if there is none."""
        return _decode(self._inbox.popleft()) if self._inbox else None

    def wait(self, deadline_ns: int, bell: socket.socket | None = None) -> int:
        """Sleep until one can read, or write what waits, or until there is something to read in ``bell``.

        Returns:
            For ``move``: what can be done. Only this may run while another thread uses the connection.

        Raises:
            LocalPeerLost: the peer was silent until the deadline.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (0 if self.idle else select.POLLOUT))
        if bell is not None:
            poll.register(bell, select.POLLIN)
        # Past the deadline one more look: what already lies in the buffer is not late.
        left_ns = max(deadline_ns - time.monotonic_ns(), 0)
        ready = dict(poll.poll(left_ns // MILLISECOND_NS + 1))
        if not ready:
            raise LocalPeerLost("the local peer was silent for too long; it may be stopped or overloaded")
        return ready.get(self._socket.fileno(), 0)

    def move(self, ready: int) -> None:
        """Write and read what can be without waiting, as ``wait`` said.

        Raises:
            LocalPeerLost, Malformed: as ``step``.
        """
        if ready & select.POLLOUT:
            self.push()
        if ready & ~select.POLLOUT:
            self._read()

    def push(self) -> None:
        """Write what waits, as far as the system takes it now."""
        if self.idle:
            return
        try:
            sent = self._socket.sendmsg(self._outgoing[:PIECES], self._rights())
        except BlockingIOError:
            return
        except OSError:
            # The peer closed its end, perhaps after saying why: from now on only read.
            self._outgoing = []
            self._deaf = True
            return
        self._outgoing = unsent(self._outgoing, sent)
        self._passed()

    def _rights(self) -> list[tuple[int, int, bytes]]:
        """What goes beside the next bytes: the descriptor, if one is to be passed."""
        if self._passing is None:
            return []
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, self._passing.to_bytes(4, sys.byteorder))]

    def _passed(self) -> None:
        """The descriptor is the peer's now, or nobody's."""
        if self._passing is not None:
            os.close(self._passing)
            self._passing = None

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise LocalPeerLost(f"the connection to the local peer broke: {error.strerror}") from None
        if not data:
            raise LocalPeerLost("the local peer ended while it was being asked")
        try:
            self._inbox.extend(self._parser.feed(data))
        except Malformed as error:
            raise type(error)(f"the local peer sent what is no frame: {error.text}") from None


def _dial(contact: Contact) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        connection.settimeout(limits.CONTROL_READ_NS / SECOND_NS)
        _connect(connection, contact.path)
    except OSError as error:
        connection.close()
        why = error.strerror or str(error)
        raise NoLocalPeer(f"nothing listens on {contact.path} ({why}); the peer is gone") from None
    connection.setblocking(False)
    return connection


def _connect(connection: socket.socket, path: str) -> None:
    """Connect, also below directories whose name is longer than a socket address."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        connection.connect(path)
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def _decode(data: bytes) -> Message:
    try:
        message = codec.decode(data, max_bytes=limits.MESSAGE_BYTES, keys="str")
    except Malformed as error:
        raise type(error)(f"the local peer sent what is no reply: {error.text}") from None
    if not isinstance(message, dict):
        raise Malformed(f"the local peer sent a {type(message).__name__} where a map should be")
    return message


def error_of(message: Message) -> CocoonError | None:
    """The typed error that a reply carries, or None."""
    if "error" not in message:
        return None
    detail = take_map(message, "error")
    text = take_text(detail, "text", chars=1 << 16)[: limits.ERROR_TEXT_CHARS]
    return from_code(take_text(detail, "code", chars=64), text)


def call(
    contact: Contact,
    verb: str,
    args: Message,
    on_event: Callable[[Message], None] | None = None,
) -> Message:
    """Ask one question and return what ``done`` carries, however long the peer says that it still waits.

    Raises:
        CocoonError: whatever the peer answered, typed.
        LocalPeerLost: it hung up, or said nothing for ``CONTROL_REPLY_NS``.
    """
    with Connection(contact) as connection:
        connection.request(verb, args)
        while True:
            message = connection.receive(time.monotonic_ns() + limits.CONTROL_REPLY_NS)
            if error := error_of(message):
                raise error
            if "done" in message:
                return take_map(message, "done")
            take_text(message, "event", chars=64)
            if on_event is not None:
                on_event(message)
