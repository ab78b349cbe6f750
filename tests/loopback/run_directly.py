"""The oracle: ONNX Runtime runs of a model, one an input, with the session options that a worker documents.

usage: python -m tests.loopback.run_directly MODEL IN.npz OUT.npz [IN.npz OUT.npz ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime

from cocoon.sdk.npz import load, save


def main(model: str, *files: str) -> None:
    """Run each input once, batch as given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    session = onnxruntime.InferenceSession(Path(model).read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for inputs, outputs in zip(files[::2], files[1::2], strict=True):
        save(Path(outputs), dict(zip(names, session.run(names, load(Path(inputs))), strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
