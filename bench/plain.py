"""Plain ONNX Runtime in a process of its own: what every answer of ours is held against.

The session options of docs/spec/runtime.md, rule RUN-12, are written out once more here on purpose.

usage: python -m bench.plain FOLDER OPTIONS     (FOLDER holds model.onnx and 0.in, 1.in ...; 0.out ... are written)

Purity: shell.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.packaged import Feeds
from cocoon.wire.tensors import decode_tensors, encode_tensors

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def plain(
    model: bytes,
    feeds: Sequence[Feeds],
    carried: Mapping[str, str] = {},
    *,
    threads: int = 1,
    level: str = "ALL",
    provider: str = CPU,
    settings: Mapping[str, str] = {},
    bound_on: str = "",
) -> list[Feeds]:
    """The outputs of each run, in a session that nothing of Cocoon has touched.

    Args:
        carried: Outputs that the next run takes in place of the inputs of these names.
        level: Of graph optimisation, as in ``ORT_ENABLE_ALL``; or ``DISABLE_ALL``.
        settings: Of the provider.
        bound_on: The device (``cuda`` or ``cpu``) in whose memory inputs and outputs lie, bound there.
    """
    options = {
        "carried": dict(carried), "threads": threads, "level": level, "provider": provider,
        "settings": dict(settings), "bound_on": bound_on, "runs": len(feeds),
    }
    with tempfile.TemporaryDirectory(prefix="cocoon-plain-") as folder:
        Path(folder, "model.onnx").write_bytes(model)
        for number, arrays in enumerate(feeds):
            Path(folder, f"{number}.in").write_bytes(encode_tensors(arrays))
        command = [sys.executable, "-m", "bench.plain", folder, json.dumps(options)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"plain ONNX Runtime failed: {done.stderr[-500:]}")
        return [decode_tensors(Path(folder, f"{number}.out").read_bytes()) for number in range(len(feeds))]


def carry(feeds: Feeds, before: Mapping[str, Any] | None, carried: Mapping[str, str]) -> Feeds:
    """The inputs of a run, with what the run before left for it."""
    return feeds if before is None else {**feeds, **{name: before[output] for output, name in carried.items()}}


def _session(model: str, wanted: dict[str, Any]) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    name = wanted["level"] if wanted["level"] == "DISABLE_ALL" else f"ENABLE_{wanted['level']}"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{name}")
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = wanted["threads"]
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # more threads than cores may be asked
    if wanted["provider"] == CUDA:
        ort.preload_dlls()
    session = ort.InferenceSession(
        model, options, providers=[wanted["provider"]], provider_options=[wanted["settings"]]
    )
    if session.get_providers()[0] != wanted["provider"]:
        raise SystemExit(f"{wanted['provider']} is not effective")
    return session


def _bound(session: Any, feeds: Feeds, device: str) -> list[Any]:
    """One run whose inputs and outputs lie in the device's memory."""
    import onnxruntime as ort

    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)
    session.run_with_iobinding(binding)
    return [value.numpy() for value in binding.get_outputs()]


def main() -> None:
    """Every input of the folder, in order."""
    folder, wanted = Path(sys.argv[1]), json.loads(sys.argv[2])
    session, outputs = _session(str(folder / "model.onnx"), wanted), None
    names = [output.name for output in session.get_outputs()]
    for number in range(wanted["runs"]):
        feeds = carry(decode_tensors((folder / f"{number}.in").read_bytes()), outputs, wanted["carried"])
        results = _bound(session, feeds, wanted["bound_on"]) if wanted["bound_on"] else session.run(None, feeds)
        outputs = dict(zip(names, results, strict=True))
        (folder / f"{number}.out").write_bytes(encode_tensors(outputs))


if __name__ == "__main__":
    main()
