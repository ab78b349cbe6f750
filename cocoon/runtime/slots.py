"""Memory that a peer and one worker share: where inputs and outputs of runs lie.

It is cut into slots, so that the worker computes in one while the peer reads and
fills the other. A slot has a part for inputs and one for outputs. Pages that
nobody touched take no memory.

A worker may be taken over by its model and write into all of it at any time:
what the peer reads twice may differ, so it copies before it checks. It cannot
make the memory shorter, which would kill the peer at its next access (Linux;
elsewhere nothing prevents it).

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-4 and RUN-30.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from dataclasses import dataclass

from cocoon.core.limits import SLOT_BYTES, SLOTS

_PART_BYTES = SLOT_BYTES
_ALL_BYTES = 2 * SLOTS * _PART_BYTES


@dataclass(slots=True)
class Slots:
    """One mapping; it ends when nothing refers to it and its views any more."""

    _map: mmap.mmap
    _view: memoryview

    @classmethod
    def of(cls, descriptor: int) -> Slots:
        """Map what ``new_slots`` made; the descriptor may be closed afterwards."""
        shared = mmap.mmap(descriptor, _ALL_BYTES)
        return cls(shared, memoryview(shared))

    def inputs(self, slot: int) -> memoryview:
        """``SLOT_BYTES`` that the peer writes."""
        return self._part(2 * slot)

    def outputs(self, slot: int) -> memoryview:
        """``SLOT_BYTES`` that the worker writes."""
        return self._part(2 * slot + 1)

    def forget(self) -> None:
        """Give the pages back; all of it reads as zeros afterwards."""
        if hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE)

    def _part(self, number: int) -> memoryview:
        return self._view[number * _PART_BYTES : (number + 1) * _PART_BYTES]


def new_slots() -> int:
    """A descriptor of memory for ``Slots``, without a name, whose size nobody can change (Linux)."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(_ALL_BYTES)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("cocoon-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _ALL_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
