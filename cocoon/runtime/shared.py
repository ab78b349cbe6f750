"""Memory that a peer and one worker share: where inputs and outputs of runs lie.

Pages that nobody touched take no memory. A worker may be taken over by its model
and write into all of it at any time: what the peer reads twice may differ, so it
copies before it checks. It cannot make the memory shorter, which would kill the
peer at its next access (Linux; elsewhere nothing prevents it).

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-4 and RUN-30.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from dataclasses import dataclass

from cocoon.core.limits import SHARED_BYTES


@dataclass(frozen=True, slots=True)
class Shared:
    """One mapping; it ends when nothing refers to its parts any more.

    Attributes:
        inputs: ``SHARED_BYTES`` that the peer writes.
        outputs: As many that the worker writes.
    """

    inputs: memoryview
    outputs: memoryview

    @classmethod
    def of(cls, descriptor: int) -> Shared:
        """Map what ``new_shared`` made; the descriptor may be closed afterwards."""
        whole = memoryview(mmap.mmap(descriptor, 2 * SHARED_BYTES))
        return cls(whole[:SHARED_BYTES], whole[SHARED_BYTES:])


def new_shared() -> int:
    """A descriptor of memory for ``Shared``, without a name, whose size nobody can change (Linux)."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(2 * SHARED_BYTES)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("cocoon", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 2 * SHARED_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
