"""Names and sizes of the device that really runs models.

Purity: shell (reads /proc and /sys); only a worker process may import it.
Spec: docs/spec/runtime.md, rule RUN-13.
"""

from __future__ import annotations

import os
import platform

from cocoon.core.values import Value
from cocoon.runtime.cards import find_card


class Hardware(Value):
    """A device by its maker's name, and its memory."""

    name: str
    memory_bytes: int


def cpu() -> Hardware:
    """This machine's processor, with the memory that this process may at most have."""
    name = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine() or "CPU"
    return Hardware(name, min(_physical_bytes(), *_group_limits()))


def gpu() -> Hardware:
    """The first CUDA card, asked from the driver; the machine's memory if it does not answer."""
    card = find_card()
    return Hardware("CUDA device", _physical_bytes()) if card is None else Hardware(card.name, card.memory_bytes)


def system() -> str:
    """Operating system and architecture, as ``linux-x86_64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits() -> list[int]:
    """Memory limits of the control group, version 2 and 1; one huge value if there is none."""
    limits = [1 << 62]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return limits


def _field(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return " ".join(value.split())
    except OSError:
        pass
    return ""
