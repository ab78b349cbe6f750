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
from typing import TYPE_CHECKING

from cocoon.core.errors import CocoonError, LimitExceeded, Malformed, MemoryExceeded
from cocoon.core.imports import uncollected
from cocoon.core.limits import MODEL_COPIES, PAYLOAD_BYTES, WORKER_HEADER_BYTES
from cocoon.runtime import confine, cores, landlock, seccomp
from cocoon.runtime.protocol import (
    Load,
    Loaded,
    Made,
    NoRoom,
    Outcome,
    Ran,
    Ready,
    Reply,
    Run,
    failure,
    pack_reply,
    unpack_order,
)
from cocoon.runtime.shared import Shared
from cocoon.wire.framing import FrameParser, frame

if TYPE_CHECKING:
    from cocoon.runtime.room import Room
    from cocoon.runtime.session import Model
    from cocoon.wire.tensors import TensorDecoder

#: Orders are shorter than this, so one is received at once.
_RECEIVED_BYTES = 65_536


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
        from cocoon.runtime import hardware, session

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
    from cocoon.runtime.room import Room
    from cocoon.wire.tensors import TensorDecoder, encode_tensors

    data = session.probe_model()
    model = session.Model(data, screen.screen(data), provider, 1, PAYLOAD_BYTES)
    payload = encode_tensors(session.probe_inputs())
    run(model, TensorDecoder(), memoryview(payload), Room(memoryview(bytearray(len(payload)))))


def serve(link: Link, provider: str) -> None:
    """One ``Load``, then any number of ``Run``."""
    from cocoon.runtime.room import Room
    from cocoon.wire.tensors import TensorDecoder

    order, model_file, memory = link.receive_load()
    shared = Shared.of(memory)
    os.close(memory)
    try:
        model, loaded = load(order, model_file, provider)
    except CocoonError as error:
        link.send(failure(error))
        return
    link.send(loaded)
    decoder, ends_ns = TensorDecoder(), 0
    while True:
        work = link.receive_run()
        ends_ns = confine.limit_cpu(order.run_ns * len(work.inputs), order.threads, ends_ns)
        inputs, room = shared.inputs, Room(shared.outputs)
        link.send(Ran(tuple([run(model, decoder, inputs[at : at + size], room) for at, size in work.inputs])))


def load(order: Load, descriptor: int, provider: str) -> tuple[Model, Loaded]:
    """Read, screen and open the model, all of it under the model's own memory limit."""
    from cocoon.runtime import screen, session

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
        data = read(descriptor, order.model_bytes + 1)
        if len(data) != order.model_bytes:
            raise LimitExceeded("the model's file changed while it was read")
        model = session.Model(data, screen.screen(data), provider, order.threads, order.memory_bytes)
    except MemoryError:
        raise MemoryExceeded("the model needs more memory than its limit to be read") from None
    load_us = (time.perf_counter_ns() - began_ns) // 1_000
    return model, Loaded(load_us, model.provider, model.inputs, model.outputs)


def read(descriptor: int, most_bytes: int) -> bytes:
    """At most so many bytes of a file: without ``open``, which looks whether it is a terminal."""
    parts = []
    while most_bytes and (part := os.read(descriptor, most_bytes)):
        parts.append(part)
        most_bytes -= len(part)
    os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def run(model: Model, decoder: TensorDecoder, payload: memoryview, room: Room) -> Outcome:
    """Exactly one execution of exactly these tensors; the encoded outputs go where there is room."""
    try:
        feeds = decoder.decode(payload)
        plan = model.plan(feeds)
        outputs, ran_us = model.run(feeds, plan, room.lend(plan.outputs))
        span = room.place(outputs)
    except MemoryError:
        return failure(MemoryExceeded("the tensors of the run need more memory than the model's limit"))
    except CocoonError as error:
        return failure(error)
    return NoRoom() if span is None else Made(ran_us, span)


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

    def receive_load(self) -> tuple[Load, int, int]:
        """The first order, with the descriptors of the model's file and of the shared memory."""
        first, descriptors, _, _ = socket.recv_fds(self.socket, _RECEIVED_BYTES, 2)
        self._take(first)
        order = unpack_order(self._next())
        if not isinstance(order, Load) or len(descriptors) != 2:
            raise Malformed("the first order of a worker loads one model")
        model_file, memory = descriptors
        return order, model_file, memory

    def receive_run(self) -> Run:
        """The next runs."""
        order = unpack_order(self._next())
        if not isinstance(order, Run):
            raise Malformed("a loaded worker only runs")
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
