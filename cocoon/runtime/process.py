"""One worker process and its whole life, seen from the peer.

A worker serves one model. It is killed, never asked to stop: at a deadline, on
cancellation, when it breaks the protocol, and when its owner is done with it.
So nothing that a model does can outlast its time.

Invariants
    A worker whose exchange did not end with a proper answer is dead.
    After ``close`` its process is gone and reaped, and its directory removed.

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-1 to RUN-6, RUN-14 to RUN-16 and RUN-29.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import trio

from cocoon.core import turns
from cocoon.core.alarms import Alarm
from cocoon.core.errors import (
    CocoonError,
    LimitExceeded,
    Malformed,
    PeerFault,
    RunTimeout,
    UsageError,
    WorkerLost,
)
from cocoon.core.limits import (
    ALIGNMENT_BYTES,
    BATCH_RUNS,
    MEMORY_BYTES,
    MODEL_LOAD_NS,
    PAYLOAD_BYTES,
    RUN_NS,
    SMALL_PAYLOAD_BYTES,
    SPOKEN_ROWS,
    WORKER_REAP_NS,
    WORKER_START_NS,
    WORKER_STDERR_BYTES,
)
from cocoon.core.shared import new_shared
from cocoon.core.units import MICROSECOND_NS, SECOND_NS
from cocoon.core.values import Value, replace
from cocoon.runtime.channel import Channel, ChannelClosed
from cocoon.runtime.death import LOADING, RUNNING, STARTING, classify
from cocoon.runtime.protocol import (
    Failed,
    Load,
    Loaded,
    Made,
    NoRoom,
    Order,
    Outcome,
    Ran,
    Ready,
    Reply,
    Run,
    Span,
    Token,
    Turn,
    Turned,
    pack_order,
    unpack_reply,
)
from cocoon.runtime.shared import BOTH_BYTES, Shared
from cocoon.runtime.spawning import open_model, remove_empty, spawn
from cocoon.runtime.specs import TensorSpec
from cocoon.wire.layout import largest_raw

#: What a Linux pipe holds (pipe(7)): one read empties it.
_PIPE_BYTES = 65_536


class WorkerLimits(Value):
    """What one model may take.

    Attributes:
        memory_bytes: Above the worker's own size after its imports; on CUDA, of the card.
        load_ns, run_ns: Wall time from order to answer; then the worker is killed.
        threads: Of ONNX Runtime inside one operator.
        gpu: Use CUDA where it really works.
    """

    memory_bytes: int = MEMORY_BYTES
    load_ns: int = MODEL_LOAD_NS
    run_ns: int = RUN_NS
    threads: int = 1
    gpu: bool = True


class DeviceReport(Value):
    """What a worker measured about itself: the fields of a ``Profile``, and its confinement."""

    engine: str
    provider: str
    device: str
    threads: int
    optimisation: str
    memory_bytes: int
    platform: str
    confinement: tuple[str, ...]


class LoadReport(Value):
    """A loaded model; ``provider`` is what its session really runs on."""

    load_us: int
    provider: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class RunReport(Value):
    """Encoded output tensors, in memory shared with the worker until its next run, and microseconds inside the engine.

    The worker may change them while they are read: copy first, then check, hash and seal the copy.
    """

    outputs: memoryview
    ran_us: int
    #: As ``Made`` has them.
    joined: int = 1
    place: int = 0


class Answer(Value):
    """Encoded outputs of one sequence, a copy, and the microseconds since it was asked, as the worker says."""

    outputs: bytes
    ran_us: int
    #: A sequence is an execution of its own for its statement, whoever shared its steps.
    joined: int = 1
    place: int = 0


#: A new sequence of a decoder: its number, whose it is as a number, and its encoded inputs (TOK-22).
Asked = tuple[int, int, bytes]


class TurnReport(Value):
    """The tokens of one turn of a decoder, and what became of sequences that are over."""

    told: tuple[Token, ...]
    ended: tuple[tuple[int, Answer | CocoonError], ...]


class Worker:
    """One spawned process. Use ``start``; calls on one worker wait for each other."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, stderr: int, home: Path) -> None:
        """Take over a process that was just spawned; ``stderr`` is non-blocking."""
        self._process = process
        self._channel = channel
        self._stderr = stderr
        self._home = home
        self._last_words = b""
        self._listened_ns = 0
        self._shared: Shared | None = None
        self._closed = False
        self._turn = turns.Turn()
        self._alarm, self._is_late = Alarm(self._give_up), False
        self.limits = WorkerLimits()
        self.device = DeviceReport("", "", "", 0, "", 0, "", ())

    @classmethod
    async def start(cls, limits: WorkerLimits, workdir: Path) -> Worker:
        """Spawn a worker and wait until its imports are done and its privileges gone.

        Args:
            workdir: An existing directory; the worker gets an empty one below it.

        Raises:
            WorkerLost: it died, or did not get ready within ``WORKER_START_NS``.
        """
        worker = cls(*spawn(workdir, gpu=limits.gpu))
        try:
            ready, _ = await worker._exchange(None, (), WORKER_START_NS, STARTING)
        except RunTimeout as error:
            raise WorkerLost(error.text) from None
        if not isinstance(ready, Ready):
            await worker.close()
            raise WorkerLost("the worker did not say that it is ready")
        worker.limits = limits
        worker.device = DeviceReport(
            ready.engine, ready.provider, ready.device, limits.threads, ready.optimisation,
            ready.memory_bytes, ready.platform, ready.confinement,
        )
        return worker

    @property
    def pid(self) -> int:
        """Process id; meaningless after ``close``."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._closed and self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The end of its stderr, for a person's diagnosis. May quote data: never log it."""
        return self._last_words.decode("utf-8", "replace")

    async def load(
        self, model_file: Path, pieces_file: Path | None = None, tolerance: tuple[int, int] | None = (0, 0)
    ) -> LoadReport:
        """Give the worker its one model; its descriptor is passed, the worker opens no path.

        Args:
            pieces_file: The bytes of a decoder's tokens (TOK-4): it takes turns then, and no runs.
            tolerance: What runs that are joined may differ from the same alone, relative in ppm and absolute in 1e-9;
                None if none may be joined.

        Raises:
            ModelRefused, DtypeUnsupported, LimitExceeded, MemoryExceeded: the model's fault.
            RunTimeout: not loaded within ``limits.load_ns``.
            WorkerLost: the process died. After any error the worker is dead.
        """
        if self._shared is not None:
            raise UsageError("a worker serves one model in its life")
        limits = self.limits
        with ExitStack() as stack:
            memory = new_shared(BOTH_BYTES)
            stack.callback(os.close, memory)
            files: list[tuple[int, int]] = []
            for path in (model_file, pieces_file):
                if path is not None:
                    files.append(opened := open_model(path))
                    stack.callback(os.close, opened[0])
            self._shared = Shared.of(memory)
            relative_ppm, absolute_nano = tolerance or (0, 0)
            order = Load(
                files[0][1], limits.memory_bytes, limits.threads, limits.load_ns, limits.run_ns,
                joins=int(tolerance is not None), relative_ppm=relative_ppm, absolute_nano=absolute_nano,
            )
            if pieces_file is not None:
                order = replace(order, pieces_bytes=files[1][1], rows=SPOKEN_ROWS)
            descriptors = (memory, *(descriptor for descriptor, _ in files))
            async with self._turn:
                reply, wall_us = await self._exchange(order, descriptors, limits.load_ns, LOADING)
        if isinstance(reply, Loaded):
            return LoadReport(min(reply.load_us, wall_us), reply.provider, reply.inputs, reply.outputs)
        await self.close()
        raise _fault(reply)

    async def run(self, payload: bytes) -> RunReport:
        """Run the model once on exactly these encoded tensors.

        Raises:
            InputsMismatch, RunFailed, MemoryExceeded, LimitExceeded, DtypeUnsupported,
            Malformed: the fault of inputs or model; the worker lives on.
            RunTimeout: no answer within ``limits.run_ns``; the worker was killed.
            WorkerLost: the process died. A cancelled run kills it too.
        """
        return _only(await self.run_all([payload]))

    async def run_all(self, payloads: Sequence[bytes]) -> list[RunReport | CocoonError]:
        """Run the model on each of these, in order; what became of each, or of the first ones.

        Fewer outcomes than payloads: outputs of the next one found no room beside those before it.

        Raises:
            LimitExceeded: more than ``BATCH_RUNS``, or more bytes than there is room for.
            RunTimeout, WorkerLost: as ``run``; nothing is known of any of them.
        """
        if self._shared is None:
            raise UsageError("load a model before running it")
        if len(payloads) > BATCH_RUNS:
            raise LimitExceeded(f"{len(payloads)} runs in one order, above {BATCH_RUNS}")
        async with self._turn:                   # what another wrote is not written over before it was read
            return await self._order(_write(self._shared.inputs, payloads))

    async def _order(self, spans: tuple[Span, ...]) -> list[RunReport | CocoonError]:
        if self._shared is None:
            raise UsageError("load a model before running it")
        limit_ns = self.limits.run_ns * len(spans)
        reply, wall_us = await self._exchange(Run(spans), (), limit_ns, RUNNING)
        if not isinstance(reply, Ran) or len(reply.outcomes) != len(spans):
            await self.close()
            raise _fault(reply)
        reports: list[RunReport | CocoonError] = []
        outputs = self._shared.outputs
        for outcome in reply.outcomes:
            match outcome:
                case Made(ran_us, (offset, size_bytes), joined, place):
                    made = outputs[offset : offset + size_bytes]
                    reports.append(RunReport(made, min(ran_us, wall_us), joined, place))
                case Failed():
                    reports.append(outcome.error())
                case NoRoom():
                    break
        if not reports:
            await self.close()
            raise WorkerLost("the worker found no room for the first of its outputs")
        return reports

    def room(self, size_bytes: int, raw_at: int = 0) -> tuple[Span, memoryview]:
        """Where to write the inputs of the next run, so that nobody copies them again; then call ``run_in``.

        Args:
            raw_at: Offset in them of the tensor's raw bytes that matter most, which then lie at an aligned address.
        """
        if self._shared is None:
            raise UsageError("load a model before running it")
        begin = -raw_at % ALIGNMENT_BYTES
        return (begin, size_bytes), self._shared.inputs[begin : begin + size_bytes]

    async def run_in(self, span: Span) -> RunReport:
        """Run the model once on the encoded tensors that were written there; raises as ``run`` does."""
        async with self._turn:
            return _only(await self._order((span,)))

    async def turn(self, asked: Sequence[Asked], cancelled: Sequence[int] = ()) -> TurnReport:
        """Begin and cancel these sequences of a decoder, and have it do one piece or step.

        Raises:
            LimitExceeded: the inputs have no room. RunTimeout, WorkerLost: as ``run``.
        """
        if self._shared is None:
            raise UsageError("load a decoder before it takes turns")
        async with self._turn:
            spans = _write(self._shared.inputs, [payload for _, _, payload in asked])
            begun = tuple((number, whose, span) for (number, whose, _), span in zip(asked, spans, strict=True))
            order = Turn(begun, tuple(cancelled))
            reply, _ = await self._exchange(order, (), self.limits.run_ns, RUNNING)
            if not isinstance(reply, Turned):
                await self.close()
                raise _fault(reply)
            return TurnReport(reply.told, tuple((number, self._answer(one)) for number, one in reply.ended))

    def _answer(self, outcome: Outcome) -> Answer | CocoonError:
        match outcome:
            case Made(ran_us, (offset, size_bytes)) if self._shared is not None:
                return Answer(bytes(self._shared.outputs[offset : offset + size_bytes]), ran_us)
            case Failed():
                return outcome.error()
        return WorkerLost("the worker found no room for an answer")

    async def close(self) -> None:
        """Kill the process, reap it, remove its directory. Safe to repeat; not cancellable, but bounded."""
        if self._closed:
            return
        self._closed = True
        self._alarm.end()
        self._process.kill()
        self._channel.close()
        with trio.CancelScope(shield=True):
            await self._end()
        self._listen()
        os.close(self._stderr)
        remove_empty(self._home)

    async def __aenter__(self) -> Worker:
        """The worker itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def _exchange(
        self, order: Order | None, descriptors: Sequence[int], limit_ns: int, doing: str
    ) -> tuple[Reply, int]:
        """One order and its answer, or a dead worker; with the wall time in microseconds."""
        if self._closed:
            raise WorkerLost("the worker is closed")
        answered, began_ns = False, time.monotonic_ns()
        self._alarm.set(trio.current_time() + limit_ns / SECOND_NS)
        try:
            if order is not None:
                await self._channel.send(pack_order(order), descriptors)
            reply = unpack_reply(await self._channel.receive())
            if self._is_late:                       # it was given up while its answer lay here, and is killed
                raise ChannelClosed
            answered = True
        except ChannelClosed:
            if self._is_late:
                spent = f"{limit_ns / SECOND_NS:g} s of {doing}"
                raise RunTimeout(f"no answer after {spent}; the worker was killed") from None
            raise await self._cause(doing) from None
        except PeerFault as error:
            raise WorkerLost(f"the worker broke the protocol while {doing}: {error.text}") from None
        finally:
            self._alarm.off()
            if not answered:
                await self.close()
        if time.monotonic_ns() - self._listened_ns > SECOND_NS:
            self._listen()                          # a pipe that is full loses words, and the last ones matter
        return reply, (time.monotonic_ns() - began_ns) // MICROSECOND_NS

    def _give_up(self) -> None:
        """An exchange took too long: whoever waits for it finds the channel closed."""
        self._is_late = True
        self._process.kill()
        self._channel.close()

    async def _cause(self, doing: str) -> CocoonError:
        """Why the socket closed. A worker that lives on without its socket is killed."""
        returncode = await self._end()
        await self.close()
        return classify(returncode, self.last_words, doing)

    async def _end(self) -> int | None:
        """How the process ended; None if it has not after ``WORKER_REAP_NS``."""
        try:
            return await trio.to_thread.run_sync(self._process.wait, WORKER_REAP_NS / SECOND_NS)
        except subprocess.TimeoutExpired:
            return None

    def _listen(self) -> None:
        """Take what the worker said on stderr, and keep the end of it; one read, for it may never fall silent."""
        self._listened_ns = time.monotonic_ns()
        try:
            heard = os.read(self._stderr, _PIPE_BYTES)
        except BlockingIOError:
            return
        self._last_words = (self._last_words + heard)[-WORKER_STDERR_BYTES:]


def _write(inputs: memoryview, payloads: Sequence[bytes]) -> tuple[Span, ...]:
    """Put payloads into shared memory, large ones where the worker need not copy them.

    Raises:
        LimitExceeded: one is above ``PAYLOAD_BYTES``, or there is no room for all.
    """
    spans: list[Span] = []
    at = 0
    for payload in payloads:
        if len(payload) > PAYLOAD_BYTES:
            raise LimitExceeded(f"the inputs take {len(payload)} bytes, above {PAYLOAD_BYTES} of one run")
        at += -(at + _alignable(payload)) % ALIGNMENT_BYTES
        end = at + len(payload)
        if end > len(inputs):
            raise LimitExceeded(f"the inputs of one order take {end} bytes, above {len(inputs)}")
        inputs[at:end] = payload
        spans.append((at, len(payload)))
        at = end
    return tuple(spans)


def _only(reports: list[RunReport | CocoonError]) -> RunReport:
    report, = reports
    if isinstance(report, CocoonError):
        raise report
    return report


def _fault(reply: Reply) -> CocoonError:
    if isinstance(reply, Failed):
        return reply.error()
    return WorkerLost(f"the worker answered {type(reply).__name__} to another question")


def _alignable(payload: bytes) -> int:
    """Where aligned bytes save a large copy in the worker; 0 for what is small, or no tensors at all."""
    if len(payload) < SMALL_PAYLOAD_BYTES:
        return 0
    try:
        return largest_raw(payload)
    except Malformed:
        return 0                                        # the worker says what is wrong with it
