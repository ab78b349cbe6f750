"""The filter of system calls: the last word on what a worker may ask of the kernel.

It stands before the stranger's model is read, on every thread, and can only become
stricter. A kernel with a hole in an allowed call is not protected by it.

Purity: shell; only a worker process may import it.
Spec: docs/spec/runtime.md, rule RUN-27.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from cocoon.runtime import kernel
from cocoon.runtime.bpf import KILL, assemble
from cocoon.runtime.calls import MACHINES, worker_filter

#: The call itself, by ``uname -m``.
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2
_ALL_THREADS = 1


def available() -> list[str]:
    """Whether this kernel takes our filter; ``install`` then does or the worker ends."""
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        return []
    try:
        kernel.call(_SECCOMP[os.uname().machine], _GET_ACTION_AVAIL, 0, struct.pack("@I", KILL))
    except OSError:
        return []
    return ["few_system_calls"]


def install() -> None:
    """Filter every thread of this process from now on; the process must have given up new privileges.

    Raises:
        OSError: the kernel refuses.
    """
    machine = os.uname().machine
    code = assemble(worker_filter(MACHINES[machine], os.getpid()))
    room = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(room))  # struct sock_fprog
    if stuck := kernel.call(_SECCOMP[machine], _SET_MODE_FILTER, _ALL_THREADS, head):
        raise OSError(f"thread {stuck} could not be filtered")
