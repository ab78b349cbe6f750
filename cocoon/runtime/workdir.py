"""The directory below which workers get empty directories of their own.

It lies among temporary files, because the disk of COCOON_HOME may be full. A peer that
is killed cannot remove its own, so the next one on the same home does.

Purity: shell.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def working_directory(home: Path) -> Iterator[Path]:
    """A private, empty directory until the block ends; whoever calls holds the lock of ``home``."""
    tag = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    prefix = f"cocoon-work-{tag}-"
    for stale in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)        # not ours to mind if it belongs to somebody else
    with tempfile.TemporaryDirectory(prefix=prefix) as workdir:
        yield Path(workdir)
