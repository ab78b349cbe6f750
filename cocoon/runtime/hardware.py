"""Names and sizes of the device that really runs models.

Purity: shell (reads /proc, /sys and the NVIDIA driver); only a worker process may import it.
Spec: docs/spec/runtime.md, rule RUN-13.
"""

from __future__ import annotations

import ctypes
import os
import platform

from cocoon.core.values import Value


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
    try:
        return _nvml()
    except (OSError, AttributeError):
        return Hardware("CUDA device", _physical_bytes())


def system() -> str:
    """Operating system and architecture, as ``linux-x86_64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def _nvml() -> Hardware:
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    card, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _Memory()
    failed = (
        nvml.nvmlInit_v2()
        or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(card))
        or nvml.nvmlDeviceGetName(card, name, ctypes.c_uint(len(name)))
        or nvml.nvmlDeviceGetMemoryInfo(card, ctypes.byref(memory))
    )
    if failed:
        raise OSError("the NVIDIA driver does not answer")
    return Hardware(name.value.decode("ascii", "replace"), int(memory.total))


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
