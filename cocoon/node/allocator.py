"""The C library's allocator, told to keep memory that is needed again at once.

glibc gives a freed payload of some megabytes back to the system, and takes each page of
the next one anew: a fault of a microsecond for every 4 KiB, more than to seal and hash it.

Purity: shell.
"""

from __future__ import annotations

import ctypes

from cocoon.core.units import MIB

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Freed memory that stays at most, and the block from which each is a mapping of its own that does not.
KEPT_BYTES = 16 * MIB
_MAPPED_BYTES = 8 * MIB


def keep_freed_memory() -> None:
    """Keep up to ``KEPT_BYTES`` of freed memory for what this process allocates next; nothing without a glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
