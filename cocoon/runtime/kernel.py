"""System calls that Python has no name for.

Purity: shell; only a worker process may import it.
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def call(number: int, *arguments: int | bytes) -> int:
    """Make the system call ``number``; of bytes their address is passed.

    Raises:
        OSError: it failed.
    """
    passed = (ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments)
    answer: int = _LIBC.syscall(ctypes.c_long(number), *passed)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def prctl(option: int, *arguments: int) -> bool:
    """Whether the process took the setting ``option``."""
    filled = (*arguments, 0, 0, 0, 0)[:4]
    return bool(_LIBC.prctl(option, *(ctypes.c_ulong(each) for each in filled)) == 0)


def unshare(flags: int) -> bool:
    """Whether the process now stands in new namespaces."""
    return bool(_LIBC.unshare(flags) == 0)
