"""Memory that two processes share: one makes it, and gives the other a descriptor of it.

Pages that nobody touched take no memory. Whoever maps it may write into all of it
at any time: what is read twice may differ, so what matters is copied before it is
looked at.

Purity: shell.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

from cocoon.core.errors import UsageError

#: Whether its size can be fixed, so that another process cannot end this one by cutting it (Linux).
SEALS = hasattr(os, "memfd_create")


def new_shared(size_bytes: int) -> int:
    """A descriptor of memory without a name, whose size nobody can change (where there are seals)."""
    if not SEALS:
        with tempfile.TemporaryFile() as file:
            file.truncate(size_bytes)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("cocoon", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def map_shared(descriptor: int, size_bytes: int) -> memoryview:
    """Map what another process made; it ends when nothing refers to its parts any more.

    Raises:
        UsageError: it is no such memory, it is shorter, or it could be made so: an access beyond its end is deadly.
    """
    try:
        is_fixed = bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
        if is_fixed and os.fstat(descriptor).st_size >= size_bytes:
            return memoryview(mmap.mmap(descriptor, size_bytes))
    except OSError as error:
        raise UsageError(f"the descriptor is not of memory to share: {error.strerror}") from None
    raise UsageError(f"the memory to share has less than {size_bytes} bytes, or its size is not sealed")
