"""What is left of the shared outputs while the runs of one order are executed.

Purity: shell; only a worker process may import it. Spec: docs/spec/runtime.md, rules RUN-30 and RUN-31.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cocoon.core.limits import ALIGNMENT_BYTES, SMALL_PAYLOAD_BYTES
from cocoon.runtime.protocol import Span
from cocoon.wire.tensors import NUMERIC, Array, raw_offsets, tensor_pieces

_Forms = Mapping[str, tuple[str, tuple[int, ...]]]


class _Loan(NamedTuple):
    """Memory of one output, and where the outputs begin that it lies among."""

    name: str
    array: Array
    begin: int
    at: int


@dataclass(slots=True)
class Room:
    """Encoded outputs lie in it one behind the other."""

    part: memoryview
    taken: int = 0
    _loan: _Loan | None = None

    def lend(self, forms: _Forms | None) -> dict[str, Array]:
        """Memory for the largest output of the next run, where its encoded outputs will have it; none for small ones.

        Args:
            forms: Dtype and shape of every output, if the model tells them.
        """
        self._loan = None
        if forms is None:
            return {}
        sizes = {name: math.prod(shape) * NUMERIC[dtype].itemsize for name, (dtype, shape) in forms.items()}
        # A bool that an engine made may hold any byte, so that these are written anew.
        large = [name for name, size in sizes.items() if size >= SMALL_PAYLOAD_BYTES and forms[name][0] != "bool"]
        if not large or sum(sizes.values()) > len(self.part):
            return {}
        name = max(large, key=sizes.__getitem__)
        offsets, length = raw_offsets(forms)
        begin = self.taken + -(self.taken + offsets[name]) % ALIGNMENT_BYTES
        if begin + length > len(self.part):
            return {}
        at, (dtype, shape) = begin + offsets[name], forms[name]
        array = np.frombuffer(self.part[at : at + sizes[name]], NUMERIC[dtype]).reshape(shape)
        self._loan = _Loan(name, array, begin, at)
        return {name: array}

    def place(self, outputs: Mapping[str, Array]) -> Span | None:
        """Encode them behind what is there; None if there is no room.

        Raises:
            As ``wire.tensors.encode_tensors``.
        """
        pieces = tensor_pieces(outputs)
        begin, kept_at = self.taken, -1
        if self._loan is not None and outputs[self._loan.name] is self._loan.array:
            begin, kept_at = self._loan.begin, self._loan.at
        size_bytes = sum(map(len, pieces))
        if begin + size_bytes > len(self.part):
            return None
        at = begin
        for piece in pieces:
            if at != kept_at:
                self.part[at : at + len(piece)] = piece
            at += len(piece)
        self.taken = at
        return begin, size_bytes
