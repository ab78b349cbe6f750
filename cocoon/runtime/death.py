"""Why a worker died, as a typed error.

Under an address-space limit most allocations fail politely inside ONNX Runtime,
but some libraries abort instead. Such a death still is the model's appetite,
not a crash, and its owner should hear that.

Purity: pure. Spec: docs/spec/runtime.md, rules RUN-14 to RUN-16.
"""

from __future__ import annotations

import re
import signal

from cocoon.core.errors import CocoonError, MemoryExceeded, RunTimeout, WorkerLost
from cocoon.runtime.specs import clip

STARTING = "starting"
LOADING = "loading the model"
RUNNING = "running the model"

#: What glibc, libstdc++, protobuf, Eigen, CUDA and ONNX Runtime say when an allocation fails.
_NO_MEMORY = re.compile(
    r"bad.?alloc|bad allocation|failed to allocate|cannot allocate|out of memory|memoryerror"
    r"|resource temporarily unavailable|failed to map|cuda failure 2\b",
    re.IGNORECASE,
)


def tells_no_memory(text: str) -> bool:
    """Whether an error text means that an allocation failed."""
    return _NO_MEMORY.search(text) is not None


def classify(returncode: int | None, stderr_tail: str, doing: str) -> CocoonError:
    """The error for a worker that ended by itself.

    Args:
        returncode: As in ``subprocess``: negative for a signal, None if unknown.
        stderr_tail: Its last words; quoted only from a start, before there is a
            model or data that they could quote.
        doing: ``STARTING``, ``LOADING`` or ``RUNNING``.
    """
    if returncode == -signal.SIGXCPU:
        return RunTimeout(f"the worker used up its CPU time while {doing}")
    if returncode == -signal.SIGSYS:
        return WorkerLost(f"the worker made a forbidden system call while {doing}, and was killed for it")
    if tells_no_memory(stderr_tail):
        return MemoryExceeded(f"an allocation failed and ended the worker while {doing}")
    text = f"the worker {_ending(returncode)} while {doing}"
    if doing == STARTING and (words := stderr_tail.strip()):
        text += f": {clip(words.splitlines()[-1])}"
    return WorkerLost(text)


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "broke its connection"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"died of {signal.Signals(-returncode).name}"
    except ValueError:
        return f"died of signal {-returncode}"
