"""Files for the user: written whole or not at all, replaced only when told so.

Purity: shell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cocoon.core.errors import CocoonError, StorageFull, UsageError


def write_whole(target: Path, fill: Callable[[IO[bytes]], object], *, overwrite: bool) -> None:
    """Write ``target`` through a draft beside it.

    Raises:
        UsageError: the file exists, or its directory does not or forbids it.
        StorageFull: no space on that disk.
    """
    draft = target.parent / f".cocoon-{os.urandom(8).hex()}.part"
    try:
        try:
            with open(draft, "xb") as file:
                fill(file)
            _publish(draft, target, overwrite)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _typed(error, target) from None


def _publish(draft: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(draft, target)
        return
    try:
        os.link(draft, target)  # fails if the name exists, in one step with creating it
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(str(target)) from None
        os.rename(draft, target)


def _typed(error: OSError, target: Path) -> CocoonError:
    if isinstance(error, FileExistsError):
        return UsageError(f"{str(target)!r} exists and is not replaced without being told so (--force)")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left for {str(target)!r}")
    return UsageError(f"{str(target)!r} cannot be written: {error.strerror or error}")
