"""The worker process: take a model, run it, answer; never speak on stdout.

Started as ``python -m cocoon.runtime.worker SOCKET PARENT GPU``. It serves one
model and ends when its socket closes. An error it does not know ends it too: the
traceback goes to stderr, which the peer keeps but never logs.

Purity: shell; the entry point of the worker process.
Spec: docs/spec/runtime.md, rules RUN-1 to RUN-6 and RUN-25 to RUN-28.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cocoon.core.errors import CocoonError, LimitExceeded, Malformed, MemoryExceeded
from cocoon.core.imports import uncollected
from cocoon.core.limits import MODEL_COPIES, PAYLOAD_BYTES, WORKER_HEADER_BYTES
from cocoon.core.units import MICROSECOND_NS
from cocoon.runtime import confine, cores, landlock, seccomp
from cocoon.runtime.protocol import (
    Load,
    Loaded,
    Ran,
    Ready,
    Reply,
    Run,
    Turn,
    failure,
    pack_reply,
    unpack_order,
)
from cocoon.runtime.shared import Shared
from cocoon.wire.framing import FrameParser, frame
from cocoon.wire.tokens import unpack_pieces

if TYPE_CHECKING:
    from cocoon.runtime.session import Model
    from cocoon.runtime.speaking import Speech

#: Orders are shorter than this, so one is received at once.
_RECEIVED_BYTES = 65_536
#: Shared memory, the model's file, and the bytes of a decoder's tokens.
_LOAD_DESCRIPTORS = 3
Work = TypeVar("Work", Run, Turn)


class PeerGone(Exception):
    """The peer closed the socket: the worker's work is over."""


def main(arguments: Sequence[str]) -> int:
    """Serve until the peer is gone; the exit status of the process."""
    link = Link(socket.socket(fileno=int(arguments[0])))
    ready = confined_start(parent_pid=int(arguments[1]), gpu=arguments[2] == "1")
    try:
        link.send(ready)
        serve(link, ready.provider)
    except (PeerGone, ConnectionError):
        pass
    return 0


def confined_start(parent_pid: int, gpu: bool) -> Ready:
    """Import the giants, give up privileges, and say what this worker is."""
    holds = confine.leave_network() + confine.refuse_privileges() + landlock.read_only()
    with uncollected():
        from cocoon.runtime import hardware, session, speaking  # noqa: F401 (later there are no files)

    provider = session.effective_provider(gpu)
    cuda = provider == session.CUDA
    warm_up(provider)
    device = hardware.gpu() if cuda else hardware.cpu()
    if not cuda:  # CUDA loads its libraries as it goes, from wherever they lie
        holds += confine.drop_user()
    holds += confine.limit_files(cuda)
    holds += confine.die_with(parent_pid)
    system = hardware.system()
    confine.open_gauges(parent_pid)
    if not cuda:
        holds += landlock.nothing() + seccomp.available()
    return Ready(
        session.ENGINE, provider, device.name, device.memory_bytes, session.OPTIMISATION,
        system, tuple(dict.fromkeys(holds)),
    )


def warm_up(provider: str) -> None:
    """Walk the whole path once: what it imports late may be unreadable without privileges."""
    from cocoon.runtime import screen, session
    from cocoon.runtime.joining import Joiner
    from cocoon.runtime.room import Room
    from cocoon.wire.tensors import encode_tensors

    data = session.probe_model()
    joiner = Joiner(session.Model(data, screen.screen(data), provider, 1, PAYLOAD_BYTES))
    payload = memoryview(encode_tensors(session.probe_inputs()))
    joiner.execute([payload], Room(memoryview(bytearray(len(payload)))), 0)


def serve(link: Link, provider: str) -> None:
    """One ``Load``, then any number of ``Run``, or of ``Turn`` if that is what was loaded."""
    order, memory, files = link.receive_load()
    shared = Shared.of(memory)
    os.close(memory)
    try:
        model, speech, loaded = load(order, files, provider)
    except CocoonError as error:
        link.send(failure(error))
        return
    link.send(loaded)
    if speech is None:
        serve_runs(link, order, model, shared)
    else:
        serve_turns(link, order, speech, shared)


def serve_runs(link: Link, order: Load, model: Model, shared: Shared) -> None:
    """Answer runs until the peer is gone."""
    from cocoon.runtime.joining import Joiner
    from cocoon.runtime.room import Room

    joiner, ends_ns = Joiner(model, order.relative_ppm, order.absolute_nano, joins=bool(order.joins)), 0
    while True:
        work = link.receive(Run)
        limit_ns = order.run_ns * len(work.inputs)
        ends_ns = confine.limit_cpu(limit_ns, order.threads, ends_ns)
        payloads = [shared.inputs[at : at + size] for at, size in work.inputs]
        link.send(Ran(tuple(joiner.execute(payloads, Room(shared.outputs), limit_ns // MICROSECOND_NS))))


def serve_turns(link: Link, order: Load, speech: Speech, shared: Shared) -> None:
    """Make tokens until the peer is gone."""
    from cocoon.runtime.room import Room

    ends_ns = 0
    while True:
        work = link.receive(Turn)
        ends_ns = confine.limit_cpu(order.run_ns, order.threads, ends_ns)
        asked = [(number, whose, shared.inputs[at : at + size]) for number, whose, (at, size) in work.asked]
        link.send(speech.turn(time.monotonic_ns(), asked, work.cancelled, Room(shared.outputs)))


def load(order: Load, files: Sequence[int], provider: str) -> tuple[Model, Speech | None, Loaded]:
    """Read, screen and open the model, all of it under the model's own memory limit.

    Args:
        files: Descriptors of the model's file and, of a decoder, of the bytes of its tokens.
    """
    from cocoon.runtime import screen, session, speaking

    began_ns = time.perf_counter_ns()
    cores.hold_to(order.threads, confine.siblings(os.getppid()))
    if provider == session.CPU:
        if (least_bytes := order.model_bytes * MODEL_COPIES) > order.memory_bytes:
            raise MemoryExceeded(f"loading the model takes {least_bytes} bytes, above {order.memory_bytes}")
        confine.limit_memory(order.memory_bytes, order.threads)
    confine.limit_cpu(order.load_ns, order.threads)
    if provider == session.CPU and seccomp.available():
        seccomp.install()
    try:
        data = read(files[0], order.model_bytes)
        model = session.Model(data, screen.screen(data), provider, order.threads, order.memory_bytes)
        speech = None
        if order.rows:
            pieces = unpack_pieces(read(files[1], order.pieces_bytes))
            speech = speaking.open_speech(model, pieces, order.rows, order.memory_bytes)
    except MemoryError:
        raise MemoryExceeded("the model needs more memory than its limit to be read") from None
    load_us = (time.perf_counter_ns() - began_ns) // 1_000
    return model, speech, Loaded(load_us, model.provider, model.inputs, model.outputs)


def read(descriptor: int, size_bytes: int) -> bytes:
    """A whole file of this size: without ``open``, which looks whether it is a terminal."""
    parts, left = [], size_bytes + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    os.close(descriptor)
    if left != 1:
        raise LimitExceeded("a file of the model changed while it was read")
    return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(slots=True)
class Link:
    """Blocking frames on the socket to the peer."""

    socket: socket.socket
    frames: FrameParser = field(default_factory=lambda: FrameParser(WORKER_HEADER_BYTES))
    waiting: list[bytes] = field(default_factory=list)

    def send(self, reply: Reply) -> None:
        """Send one answer."""
        header = pack_reply(reply)
        if len(header) > WORKER_HEADER_BYTES:
            header = pack_reply(failure(LimitExceeded("the model's names and shapes take too much room")))
        self.socket.sendall(frame(header))

    def receive_load(self) -> tuple[Load, int, list[int]]:
        """The first order, with the descriptors of the shared memory and of the model's files."""
        first, descriptors, _, _ = socket.recv_fds(self.socket, _RECEIVED_BYTES, _LOAD_DESCRIPTORS)
        self._take(first)
        order = unpack_order(self._next())
        if not isinstance(order, Load) or len(descriptors) != (3 if order.rows else 2):
            raise Malformed("the first order of a worker loads one model")
        memory, *files = descriptors
        return order, memory, files

    def receive(self, kind: type[Work]) -> Work:
        """The next order, which must be of this kind."""
        order = unpack_order(self._next())
        if not isinstance(order, kind):
            raise Malformed("a loaded worker does one kind of work")
        return order

    def _next(self) -> bytes:
        while not self.waiting:
            self._take(self.socket.recv(_RECEIVED_BYTES))
        return self.waiting.pop(0)

    def _take(self, data: bytes) -> None:
        if not data:
            raise PeerGone
        self.waiting += self.frames.feed(data)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # ONNX Runtime's threads may still be in a kernel; static destructors would wait for them.
    os._exit(status)
