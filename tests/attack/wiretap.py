"""A packet capture on loopback, made with nothing but a raw socket (Linux, root)."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 256 << 20
_FRAME_BYTES = 1 << 17
#: Far more than the peers of one test send.
_KEPT_BYTES = 1 << 30


def may_capture() -> bool:
    """Whether this process may open a raw packet socket."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)).close()
    except (AttributeError, OSError):
        return False
    return True


@dataclass
class Wiretap:
    """Everything that passed over loopback while the tap was open, frame by frame."""

    frames: list[bytes] = field(default_factory=list)
    #: Frames that the kernel or we could not keep; anything but 0 makes the capture worthless.
    dropped: int = 0
    _room_bytes: int = _KEPT_BYTES

    @property
    def size_bytes(self) -> int:
        """All frames together."""
        return sum(map(len, self.frames))

    def keep(self, frame: bytes) -> None:
        """Take one frame; what others send over loopback meanwhile must not fill the memory."""
        self._room_bytes -= len(frame)
        if self._room_bytes < 0:
            self.dropped += 1
        else:
            self.frames.append(frame)

    def count(self, marker: bytes) -> int:
        """How many frames hold ``marker``."""
        return sum(marker in frame for frame in self.frames)


@contextmanager
def tapped() -> Iterator[Wiretap]:
    """Capture loopback until the block ends."""
    tap, stop = Wiretap(), threading.Event()
    wake_read, wake_write = os.pipe()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)     # each packet passes loopback twice
        raw.bind(("lo", 0))
        raw.setblocking(False)
        thread = threading.Thread(target=_listen, args=(raw, wake_read, stop, tap), daemon=True)
        thread.start()
        try:
            yield tap
        finally:
            stop.set()
            os.write(wake_write, b"x")
            thread.join()
            tap.dropped += _dropped(raw)
            os.close(wake_read)
            os.close(wake_write)


def _listen(raw: socket.socket, wake: int, stop: threading.Event, tap: Wiretap) -> None:
    while True:
        select.select([raw, wake], [], [])
        try:
            while not stop.is_set():
                tap.keep(raw.recv(_FRAME_BYTES))
        except BlockingIOError:
            continue
        _drain(raw, tap)
        return


def _drain(raw: socket.socket, tap: Wiretap) -> None:
    """What was sent before the end; of traffic that never ends, as much as the kernel can have kept."""
    left_bytes = _BUFFER_BYTES
    try:
        while left_bytes > 0:
            frame = raw.recv(_FRAME_BYTES)
            left_bytes -= len(frame)
            tap.keep(frame)
    except BlockingIOError:
        return


def _dropped(raw: socket.socket) -> int:
    received_and_dropped = raw.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 2 * ctypes.sizeof(ctypes.c_uint32))
    return int.from_bytes(received_and_dropped[4:], "little")
