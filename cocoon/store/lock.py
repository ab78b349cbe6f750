"""One peer per home: an advisory lock that the kernel frees when the process dies.

Purity: shell. Spec: docs/spec/store.md, rule STO-11.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cocoon.core.errors import HomeInUse
from cocoon.identity.files import private_dir, touch_private

LOCK_FILE = "lock"


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Hold ``home`` for this process; the directory is made if missing.

    Raises:
        HomeInUse: another process holds it; the message names it.
        LaxPermissions: the directory is open to others.
    """
    handle = touch_private(private_dir(home) / LOCK_FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            raise HomeInUse(f"process {holder or 'unknown'} runs on {home}") from None
        # The number is for people; only the lock decides. A full disk may refuse it.
        os.ftruncate(handle, 0)
        try:
            os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
