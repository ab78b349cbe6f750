"""The model in every rival: one session, the same options, raw float32 in and out.

Purity: shell.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import onnxruntime as ort

MODEL = "COCOON_BENCH_MODEL"


def open_session() -> ort.InferenceSession:
    """A session of the model that the environment names, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(os.environ[MODEL], options, providers=["CPUExecutionProvider"])


def open_model() -> Callable[[bytes], bytes]:
    """A function from the bytes of one row to the bytes of its answer."""
    session = open_session()

    def run(body: bytes) -> bytes:
        return session.run(None, {"x": np.frombuffer(body, "f4").reshape(1, -1)})[0].tobytes()

    return run
