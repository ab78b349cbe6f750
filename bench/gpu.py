"""The figures of `make bench-gpu`: honest noise between processor and card, through real workers.

What is compared: the processor with the card; the card with itself, in another session; TF32
off, as the execution profile has it, with TF32 on. The figures are written as JSON, one file a
card, with the tolerances that follow from them; the specification takes its table from there.

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-12, RUN-13 and RUN-33.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import trio

from bench.packaged import Feeds, Packaged, packaged
from bench.plain import CUDA, carry, plain
from bench.rows import ROOT, Row
from cocoon.core.units import GIB, SECOND_NS
from cocoon.runtime.service import DeviceReport, Worker, WorkerLimits, probe_device
from cocoon.wire.tensors import decode_tensors, encode_tensors

RUNS = 24
ROWS = 8
FIGURES = ROOT / "build" / "gpu"
#: A card's first session compiles kernels.
LIMITS = WorkerLimits(memory_bytes=2 * GIB, load_ns=300 * SECOND_NS, run_ns=60 * SECOND_NS)
#: The provider options of RUN-12, written out once more on purpose.
PROFILE = {
    "gpu_mem_limit": str(LIMITS.memory_bytes), "arena_extend_strategy": "kSameAsRequested",
    "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC",
}
_ROOM = 3


@dataclass(frozen=True)
class Answers:
    """What one worker said: where its session ran, outputs of each run, the median of a run's wall time."""

    provider: str
    outputs: list[Feeds]
    p50_us: float


@dataclass(frozen=True)
class Noise:
    """Largest absolute differences of one model's outputs.

    Attributes:
        provider: What the session that was asked to use the card really ran on.
        card: Between processor and card.
        again: Between two sessions on the card; anything but 0 breaks the profile.
        tf32: Between TF32 off and on, plain sessions; None where the card did not run the model.
        tolerance: What ``card`` allows honest providers.
    """

    model: str
    provider: str
    card: float
    again: float
    tf32: float | None
    tolerance: float
    cpu_p50_us: float
    card_p50_us: float


def inputs_of(model: Packaged) -> list[Feeds]:
    """The runs that are compared; rows in numbers that suit a card, where no state ties a run to the one before."""
    return model.inputs(RUNS) if model.carried else model.inputs(RUNS, ROWS)


async def through_worker(model: Packaged, feeds: Sequence[Feeds], *, gpu: bool) -> Answers:
    """Every run, in a worker of its own."""
    outputs: list[Feeds] = []
    took_us: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cocoon-gpu-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model.read())
        limits = WorkerLimits(LIMITS.memory_bytes, LIMITS.load_ns, LIMITS.run_ns, gpu=gpu)
        async with await Worker.start(limits, Path(folder)) as worker:
            provider = (await worker.load(path)).provider
            for arrays in feeds:
                payload = encode_tensors(carry(arrays, outputs[-1] if outputs else None, model.carried))
                began_ns = time.perf_counter_ns()
                report = await worker.run(payload)
                took_us.append((time.perf_counter_ns() - began_ns) / 1_000)
                outputs.append(decode_tensors(bytes(report.outputs)))
    return Answers(provider, outputs, median(took_us))


def farthest(some: Sequence[Feeds], others: Sequence[Feeds]) -> float:
    """The largest absolute difference of any number of any output."""
    return max(
        float(abs(one[name].astype("f8") - other[name]).max())
        for one, other in zip(some, others, strict=True)
        for name in one
    )


def tolerance(measured: float) -> float:
    """Three times what was measured, rounded up to 1, 2 or 5 of its decade; 0 stays 0."""
    if measured == 0:
        return 0.0
    decade = 10.0 ** math.floor(math.log10(_ROOM * measured))
    return next(float(f"{step * decade:.0e}") for step in (1, 2, 5, 10) if step * decade >= _ROOM * measured)


async def noise(model: Packaged, *, gpu: bool = True) -> Noise:
    """The figures of one model; ``gpu`` False compares the processor with itself, which shows that all this works."""
    feeds = inputs_of(model)
    there = await through_worker(model, feeds, gpu=False)
    here, again = [await through_worker(model, feeds, gpu=gpu) for _ in range(2)]
    tf32 = None
    if here.provider == CUDA:
        off, on = [
            plain(model.read(), feeds, model.carried, provider=CUDA, settings={**PROFILE, "use_tf32": switch})
            for switch in "01"
        ]
        tf32 = farthest(off, on)
    card = farthest(there.outputs, here.outputs)
    return Noise(
        model.name, here.provider, card, farthest(here.outputs, again.outputs), tf32, tolerance(card),
        there.p50_us, here.p50_us,
    )


def write(report: DeviceReport, found: Sequence[Noise], folder: Path = FIGURES) -> Path:
    """The figures of one card as JSON; the file's name is the card's."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in report.device.lower()).strip("-")
    path = folder / f"{name}.json"
    card = {"device": report.device, "engine": report.engine, "optimisation": report.optimisation}
    path.write_text(json.dumps({**card, "models": [asdict(one) for one in found]}, indent=2) + "\n", encoding="utf-8")
    return path


def rows(found: Sequence[Noise]) -> list[Row]:
    """A line for each figure."""
    lines = []
    for one in found:
        what = f"{one.model}, {one.provider.removesuffix('ExecutionProvider')}"
        lines += [
            Row(f"{what}, processor against card", f"{one.card:.1e}", f"tolerance {one.tolerance:.0e}"),
            Row(f"{what}, card against card", f"{one.again:.1e}", "0"),
            Row(f"{what}, TF32 off against on", "none" if one.tf32 is None else f"{one.tf32:.1e}"),
            Row(f"{what}, a run, processor and card, p50", f"{one.cpu_p50_us:.0f}, {one.card_p50_us:.0f} us"),
        ]
    return lines


async def missing_card() -> tuple[DeviceReport, str]:
    """What a worker's session says, and why there is nothing to measure; "" if there is a card."""
    report = await probe_device(LIMITS)
    if report.provider == CUDA:
        return report, ""
    return report, f"no CUDA card: a worker's session ran on {report.provider} of {report.device}"


async def main() -> int:
    """Print and write the figures of this machine's card."""
    report, why = await missing_card()
    if why:
        print(f"skipped: {why}")
        return 1
    found = [await noise(model) for model in packaged()]
    print(f"{report.device}, {report.engine}, {report.optimisation}")
    for row in rows(found):
        print(f"{row.what:<58} {row.value:>16}   {row.goal}")
    print(f"written to {write(report, found).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(trio.run(main))
