"""Memory that a peer and one worker share: where inputs and outputs of runs lie.

A worker may be taken over by its model and write into all of it at any time. It
cannot make the memory shorter, which would kill the peer at its next access
(Linux; elsewhere nothing prevents it).

Purity: shell. Spec: docs/spec/runtime.md, rules RUN-4 and RUN-30.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from cocoon.core.limits import SHARED_BYTES

#: Of both parts.
BOTH_BYTES = 2 * SHARED_BYTES


@dataclass(frozen=True, slots=True)
class Shared:
    """One mapping; it ends when nothing refers to its parts any more.

    Attributes:
        inputs: ``SHARED_BYTES`` that the peer writes.
        outputs: As many that the worker writes.
    """

    inputs: memoryview
    outputs: memoryview

    @classmethod
    def of(cls, descriptor: int) -> Shared:
        """Map ``core.shared.new_shared(BOTH_BYTES)``; the descriptor may be closed afterwards."""
        whole = memoryview(mmap.mmap(descriptor, BOTH_BYTES))
        return cls(whole[:SHARED_BYTES], whole[SHARED_BYTES:])
