"""The card that CUDA uses first, as the NVIDIA driver tells of it: its memory, who is busy on it, and its power.

The driver counts by process, so what other programs do is told apart from what our workers do; in a
container whose processes have other numbers inside it cannot be, and that is said instead of guessed.

Purity: shell (NVIDIA's driver, through its own binding). Spec: docs/spec/runtime.md, rules RUN-13, RUN-24 and RUN-38.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from cocoon.core.errors import Unavailable
from cocoon.core.units import PPM

_PERCENT_PPM = PPM // 100
_W_MW = 1_000


class Card:
    """One card; ``find_card`` makes it. Every call asks the driver; ``others_ppm`` has it walk over processes."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._seen_us = 0
        self.name = str(nvml.nvmlDeviceGetName(handle))
        self.memory_bytes = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)

    def free_bytes(self) -> int:
        """Memory that nobody uses; 0 if the driver does not tell."""
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).free)
        except self._nvml.NVMLError:
            return 0

    def others_ppm(self, own: Collection[int]) -> int | None:
        """The share of the card's time that programs other than the processes ``own`` had since the last call.

        One of ``own`` must have a context there, as the spare worker does: if the driver shows none of them, it counts
        processes by other numbers than we do.

        Returns:
            None if the driver does not tell, or not by processes that we know.
        """
        nvml = self._nvml
        try:
            holders = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
            if holders.isdisjoint(own):
                return None
            samples = nvml.nvmlDeviceGetProcessUtilization(self._handle, self._seen_us)
        except nvml.NVMLError_NotFound:
            return 0                                    # nobody was busy on it
        except nvml.NVMLError:
            return None
        newest: dict[int, tuple[int, int]] = {}
        for sample in samples:
            newest[sample.pid] = max(newest.get(sample.pid, (0, 0)), (sample.timeStamp, sample.smUtil))
            self._seen_us = max(self._seen_us, sample.timeStamp)
        busy_percent = sum(percent for pid, (_, percent) in newest.items() if pid not in own)
        return min(PPM, busy_percent * _PERCENT_PPM)

    @contextmanager
    def held_to(self, limit_w: int) -> Iterator[None]:
        """Have the driver keep the card at or below so much power; the limit before is set again at the end.

        Raises:
            Unavailable: the driver refuses, as it does to who is not root.
        """
        nvml = self._nvml
        try:
            before_mw = nvml.nvmlDeviceGetPowerManagementLimit(self._handle)
            nvml.nvmlDeviceSetPowerManagementLimit(self._handle, limit_w * _W_MW)
        except nvml.NVMLError as error:
            raise Unavailable(
                f"the driver does not hold {self.name} to {limit_w} W: {error}; root can: nvidia-smi -pl {limit_w}"
            ) from None
        try:
            yield
        finally:
            nvml.nvmlDeviceSetPowerManagementLimit(self._handle, before_mw)


def find_card() -> Card | None:
    """The card that CUDA calls number 0; None where no driver answers."""
    try:
        import pynvml
    except ImportError:
        return None                                     # it is installed where cards can be
    try:
        pynvml.nvmlInit()
        return Card(pynvml, _first(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES", "")))
    except pynvml.NVMLError:
        return None


def _first(nvml: Any, visible: str) -> Any:
    """The driver's handle of the first visible card, which is named by its number on the bus or by its UUID."""
    first = visible.partition(",")[0].strip()
    if first and not first.isdigit():
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first or 0))
