"""The runtime of a peer: a bounded set of workers, one of them always warm.

Starting a worker costs about a second (interpreter, ONNX Runtime). So one spare
waits, imports done, and the next one is started as soon as it is taken.

Purity: shell. Never imports numpy, onnx or onnxruntime: a peer's own process
stays free of them (RUN-2).
Spec: docs/spec/runtime.md, rules RUN-21 to RUN-23.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cocoon.core.errors import CocoonError, ProviderBusy, UsageError
from cocoon.core.ids import LeaseId, PeerKey
from cocoon.core.limits import LEASES_SOLD, MODELS_APART, WARM_NS
from cocoon.core.units import SECOND_NS
from cocoon.core.values import replace
from cocoon.runtime.cards import Card, find_card
from cocoon.runtime.company import Joining
from cocoon.runtime.instances import Instance, Seat, Wanted
from cocoon.runtime.memory import free_memory_bytes
from cocoon.runtime.process import Answer, DeviceReport, LoadReport, RunReport, Worker, WorkerLimits
from cocoon.runtime.specs import CPU_PROVIDER, TensorSpec

__all__ = [
    "Answer", "DeviceReport", "Joining", "LoadReport", "RunReport", "Runtime", "Seat", "TensorSpec", "Wanted", "Worker",
    "WorkerLimits", "open_runtime", "probe_device",
]


async def probe_device(limits: WorkerLimits) -> DeviceReport:
    """What a real worker with a real session says about this machine.

    Raises:
        WorkerLost: no worker starts here.
    """
    with tempfile.TemporaryDirectory(prefix="cocoon-probe-") as workdir:
        async with await Worker.start(limits, Path(workdir)) as worker:
            return worker.device


@asynccontextmanager
async def open_runtime(
    limits: WorkerLimits, workdir: Path, *, workers: int = LEASES_SOLD, warm_ns: int = WARM_NS
) -> AsyncIterator[Runtime]:
    """A runtime whose first worker is ready; on leaving every worker is killed and reaped.

    Args:
        limits: Default limits of a model.
        workdir: A directory of ours; workers get empty directories below it.
        workers: Taken at one time; the spare is one more.
        warm_ns: How long a public model stays loaded that nobody runs; 0 ends it with its last lease.

    Raises:
        WorkerLost: not even the first worker starts.
    """
    first = await Worker.start(limits, workdir)
    card = None if first.device.provider == CPU_PROVIDER else await trio.to_thread.run_sync(find_card)
    runtime = Runtime(limits, workdir, workers, first.device, warm_ns, card)
    runtime._living.append(first)
    try:
        async with trio.open_nursery() as nursery:
            runtime._nursery = nursery
            nursery.start_soon(runtime._keep_a_spare, first)
            try:
                yield runtime
            finally:
                for instance in runtime._instances:
                    instance.be_still()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for worker in runtime._living:
                await worker.close()


@dataclass(slots=True)
class Runtime:
    """The workers of one peer. Made by ``open_runtime``."""

    limits: WorkerLimits
    workdir: Path
    workers: int
    device: DeviceReport
    #: How long a public model stays loaded that nobody runs.
    warm_ns: int = WARM_NS
    #: The card that models run on, where it is one and its driver answers.
    card: Card | None = None
    _living: list[Worker] = field(default_factory=list)
    _taken: list[Worker] = field(default_factory=list)
    _waiting: int = 0
    _apart: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _instances: list[Instance] = field(default_factory=list)
    _nursery: trio.Nursery = field(init=False)
    _offer: trio.MemorySendChannel[Worker | CocoonError] = field(init=False)
    _spares: trio.MemoryReceiveChannel[Worker | CocoonError] = field(init=False)

    def free_bytes(self) -> int:
        """Memory of the device that nobody uses now; 0 if the system does not tell."""
        if self.device.provider == CPU_PROVIDER:
            return free_memory_bytes()
        return 0 if self.card is None else self.card.free_bytes()

    def keep_apart(self, model: bytes) -> None:
        """A worker died with several runs of this model, or of several leases: none go together from now on."""
        self._apart[model] = None
        while len(self._apart) > MODELS_APART:
            self._apart.popitem(last=False)

    def may_join(self, model: bytes) -> bool:
        """Whether runs of this model may be executed together, if its worker finds that this changes nothing, and
        leases may share it.
        """
        return model not in self._apart

    def __post_init__(self) -> None:
        """A channel without room: the spare waits in its hand-over."""
        self._offer, self._spares = trio.open_memory_channel[Worker | CocoonError](0)

    async def seat(self, wanted: Wanted, lease: LeaseId, requester: PeerKey) -> Seat:
        """A loaded model for this lease, which has it for itself, or shares it (RUN-34); the caller's to close.

        Raises:
            ProviderBusy, WorkerLost: as ``take``. Else as ``Worker.load``.
        """
        instance = self._idle(wanted) or self._shared(wanted)
        if instance is None:
            instance = Instance(
                wanted, self._nursery, lambda: self.take(wanted.limits), lambda: self.keep_apart(wanted.model or b""),
            )
            self._instances.append(instance)
        instance.join(lease)
        seat: Seat | None = None
        try:
            seat = Seat(instance, lease, requester, await instance.ready(), self._give_back)
        finally:
            if seat is None:
                with trio.CancelScope(shield=True):
                    await self._give_back(instance, lease)
        return seat

    async def cool(self) -> None:
        """End what nobody runs now: the owner wants the memory."""
        for instance in [one for one in self._instances if one.idle]:
            await self._end(instance)

    def _idle(self, wanted: Wanted) -> Instance | None:
        """One that waits for just this."""
        return next((one for one in self._instances if one.idle and one.wanted == wanted), None)

    def _shared(self, wanted: Wanted) -> Instance | None:
        """The instance with the fewest leases, if another worker would find no core of its own."""
        if wanted.model is None or not self.may_join(wanted.model):
            return None
        if wanted.pieces_file is not None and wanted.joining is not Joining.LEASES:
            return None                                 # its sequences share every step
        busy = [one for one in self._instances if one.leases]
        same = [one for one in busy if one.wanted == wanted and not one.broken]
        rooms = max(1, _cores() // wanted.limits.threads) if self.device.provider == CPU_PROVIDER else 1
        return min(same, key=lambda one: len(one.leases), default=None) if len(busy) >= rooms else None

    async def _give_back(self, instance: Instance, lease: LeaseId) -> None:
        """A lease has ended; with the last one the worker does, if it is not kept for the next."""
        if lease not in instance.leases:
            return
        instance.leave(lease)
        if instance.leases:
            return
        if instance.idle and self._keeps(instance.wanted):
            instance.idle_since_ns = time.monotonic_ns()
            self._nursery.start_soon(self._let_cool, instance, instance.idle_since_ns)
        else:
            await self._end(instance)

    def _keeps(self, wanted: Wanted) -> bool:
        """Whether such a model stays loaded: others may want it, and there is memory for one that is not."""
        if wanted.model is None or not self.warm_ns:
            return False
        return self.may_join(wanted.model) and self.free_bytes() >= 2 * wanted.limits.memory_bytes

    async def _let_cool(self, instance: Instance, since_ns: int) -> None:
        await trio.sleep(self.warm_ns / SECOND_NS)
        if instance.idle_since_ns == since_ns:
            await self._end(instance)

    async def _end(self, instance: Instance) -> None:
        if instance in self._instances:
            self._instances.remove(instance)
        instance.idle_since_ns = None
        await instance.close()

    async def _make_room(self, memory_bytes: int) -> None:
        """End what has been idle for longest, while there is no place for another worker, or no memory."""
        while idle := [one for one in self._instances if one.idle]:
            has_place = len(self._alive()) + self._waiting < self.workers
            if has_place and not 0 < self.free_bytes() < memory_bytes:
                return
            await self._end(min(idle, key=lambda one: one.idle_since_ns or 0))

    async def take(self, limits: WorkerLimits | None = None) -> Worker:
        """A started worker without a model, the caller's to close.

        Args:
            limits: Of this model, where they differ from the runtime's; ``gpu``
                cannot, a worker has chosen its device at the start.

        Raises:
            ProviderBusy: ``workers`` are taken already.
            WorkerLost: no worker starts now.
        """
        if limits is not None and limits.gpu != self.limits.gpu:
            raise UsageError("a worker's device is chosen when the runtime opens")
        await self._make_room((limits or self.limits).memory_bytes)
        if len(self._alive()) + self._waiting >= self.workers:
            raise ProviderBusy(f"all {self.workers} workers are taken")
        self._waiting += 1
        try:
            worker = await self._next_alive()
        finally:
            self._waiting -= 1
        worker.limits = limits or self.limits
        worker.device = replace(worker.device, threads=worker.limits.threads)
        self._taken.append(worker)
        return worker

    def _alive(self) -> list[Worker]:
        """Workers that are taken."""
        self._taken = [worker for worker in self._taken if worker.alive]
        return self._taken

    async def _next_alive(self) -> Worker:
        while True:
            spare = await self._spares.receive()
            if isinstance(spare, CocoonError):
                raise spare
            if spare.alive:
                return spare
            await spare.close()  # the system killed it while it waited

    async def _keep_a_spare(self, first: Worker) -> None:
        spare: Worker | CocoonError = first
        while True:
            # A failure waits for a taker like a worker does, so a broken machine is not retried in a loop.
            await self._offer.send(spare)
            try:
                spare = await Worker.start(self.limits, self.workdir)
            except CocoonError as error:
                spare = error
            else:
                self._living = [worker for worker in self._living if worker.alive]
                self._living.append(spare)


def _cores() -> int:
    """Of this machine, as far as they are ours."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
