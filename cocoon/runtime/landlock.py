"""Take the file system away from this process, by the kernel's Landlock.

Two layers, each of which binds the calling thread and all that it makes later. The
first comes before the imports: files are read, none is written. The second comes
after them, where no CUDA is: no path can be opened at all, and what is open stays
usable. Both take TCP, abstract sockets and signals to others, where the kernel can.
Names, sizes and times of files can still be asked for.

On CUDA the first layer is all: the driver goes on opening devices and libraries.

Purity: shell; only a worker process may import it.
Spec: docs/spec/runtime.md, rules RUN-25 and RUN-26.
"""

from __future__ import annotations

import os
import struct
import sys

from cocoon.runtime import kernel

# The same numbers on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
# linux/landlock.h
_ASK_VERSION = 1
_BENEATH_PATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
#: How many rights over files a version knows; the newest one listed is that of all later ones.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract Unix sockets, signals


def read_only() -> list[str]:
    """Read and execute what can be read; write to devices (a card's driver does), and nowhere else."""
    return _restrict("reads_only", {"/": _READ, "/dev": _READ | _WRITE})


def nothing() -> list[str]:
    """Open no path any more."""
    return _restrict("opens_no_files", {})


def _restrict(name: str, beneath: dict[str, int]) -> list[str]:
    """Enforce one layer; what holds then, nothing if the kernel has no Landlock."""
    if (version := _version()) == 0 or len(os.listdir("/proc/self/task")) > 1:
        return []  # other threads would keep what this one gives up
    rights = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    tcp, scopes = _TCP * (version >= _TCP_SINCE), _SCOPES * (version >= _SCOPES_SINCE)
    handled = struct.pack("@QQQ", rights, tcp, scopes)  # an old kernel takes the zeros that it does not know
    ruleset = kernel.call(_CREATE_RULESET, handled, len(handled), 0)
    try:
        for path, allowed in beneath.items():
            _allow(ruleset, path, allowed & rights)
        kernel.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return [name, *(["no_tcp"] if tcp else []), *(["signals_nobody"] if scopes else [])]


def _version() -> int:
    if sys.platform != "linux":
        return 0
    try:
        return kernel.call(_CREATE_RULESET, 0, 0, _ASK_VERSION)
    except OSError:
        return 0


def _allow(ruleset: int, path: str, rights: int) -> None:
    where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kernel.call(_ADD_RULE, ruleset, _BENEATH_PATH, struct.pack("=Qi", rights, where), 0)
    finally:
        os.close(where)
