"""Starting a worker's process: what it gets of ours, and where it stands.

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-1 to RUN-3.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from cocoon.core.children import child_environment
from cocoon.core.errors import ModelRefused, WorkerLost
from cocoon.core.limits import MODEL_BYTES
from cocoon.runtime.channel import Channel, pair

#: What a worker's environment keeps of ours: where libraries lie and which card is ours to use.
_KEPT = (
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
)
#: One allocator arena keeps the address space predictable; no thread pool but ONNX Runtime's, which would also
#: keep a data base of what it did in the user's home and send it to its makers.
_SET = {
    "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_CACHE_DISABLE": "1", "ORT_DISABLE_TELEMETRY": "1",
}


class Spawned(NamedTuple):
    """A process that was just started, our end of its socket, its stderr (non-blocking), and its empty directory."""

    process: subprocess.Popen[bytes]
    channel: Channel
    stderr: int
    home: Path


def spawn(workdir: Path, *, gpu: bool) -> Spawned:
    """Start the process, from this very thread.

    The kernel kills a worker when the *thread* that spawned it ends; trio's own
    ``open_process`` spawns from a pooled thread that ends after ten idle seconds.
    """
    home = Path(tempfile.mkdtemp(prefix="worker-", dir=workdir))
    channel, theirs = pair()
    heard, spoken = os.pipe()
    try:
        # Neither end blocks: a worker that chatters loses words instead of time.
        os.set_blocking(heard, False)
        os.set_blocking(spoken, False)
        arguments = [str(theirs.fileno()), str(os.getpid()), "1" if gpu else "0"]
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-X", "faulthandler", "-m", "cocoon.runtime.worker", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=spoken, cwd=home,
            env=child_environment(_KEPT, _SET), pass_fds=(theirs.fileno(),), start_new_session=True,
        )
    except OSError as error:
        channel.close()
        os.close(heard)
        remove_empty(home)
        raise WorkerLost(f"no worker could be spawned: {error.strerror}") from None
    finally:
        theirs.close()
        os.close(spoken)
    return Spawned(process, channel, heard, home)


def open_model(path: Path) -> tuple[int, int]:
    """A read-only descriptor of a regular file and its size; ModelRefused if it is none, or too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelRefused(f"the model's file cannot be read: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MODEL_BYTES:
        os.close(descriptor)
        raise ModelRefused(f"the model is no regular file of at most {MODEL_BYTES} bytes")
    return descriptor, status.st_size


def remove_empty(home: Path) -> None:
    """Remove the directory of a worker that is gone."""
    try:
        home.rmdir()
    except OSError:
        pass  # something was written into it: left for a person to see
