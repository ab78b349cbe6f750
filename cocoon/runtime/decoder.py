"""A decoder with its cache: rows of sequences of any length, read and continued together.

The cache is one array a layer and part, allocated once; the model finds its past there
and writes its present into the same memory, so a step copies nothing, and rows of
different lengths go together. What lies behind the end of a row is never read.

A row may be idle between two that are not. It is computed along, and what that
writes lies behind its end.

Imports numpy, so only a worker imports it; the session is its only access to ONNX Runtime.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-2 and TOK-14 to TOK-16.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cocoon.core.errors import LimitExceeded, MemoryExceeded, ModelRefused, UsageError
from cocoon.core.limits import CONTEXT_TOKENS, DECODE_ROWS, VOCABULARY
from cocoon.runtime.specs import TensorSpec

Array = np.ndarray[Any, Any]

_PAST = re.compile(r"past_key_values\.(\d+\.(?:key|value))")
_NOT_LAYERS = {"input_ids", "attention_mask"}
#: Where a row that is computed along writes, even if it is full.
_SPARE_TOKENS = 1


class Places(Protocol):
    """What ``session.Bound`` can do."""

    def input(self, name: str, array: Array) -> None:
        """Name the place of an input."""

    def output(self, name: str, array: Array) -> None:
        """Name the place of an output."""

    def run(self) -> None:
        """Execute once."""


class Engine(Protocol):
    """What ``session.Model`` can do, as far as a decoder needs it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def bound(self) -> Places:
        """Places of inputs and outputs."""


class Decoder:
    """Rows are numbered from 0; each has a length, the tokens whose keys and values it holds."""

    def __init__(self, engine: Engine, rows: int, capacity: int) -> None:
        """Allocate the cache.

        Args:
            capacity: Most tokens of a row.

        Raises:
            ModelRefused: the model is no decoder by the convention (TOK-2).
            LimitExceeded: more rows or tokens than a limit allows.
            MemoryExceeded: the cache has no room.
        """
        if not 1 <= rows <= DECODE_ROWS or not 1 <= capacity <= CONTEXT_TOKENS:
            raise LimitExceeded(f"1 to {DECODE_ROWS} rows of 1 to {CONTEXT_TOKENS} tokens, not {rows} of {capacity}")
        forms, self.vocabulary, self._all_positions = _read_convention(engine)
        self.rows, self.capacity = rows, capacity
        self._lengths = np.zeros(rows, np.int64)
        try:
            self._cache = {
                part: np.zeros((rows, heads, capacity + _SPARE_TOKENS, width), dtype)
                for part, (dtype, heads, width) in forms.items()
            }
            self._logits = np.empty((rows, 1, self.vocabulary), np.float32)
        except MemoryError:
            raise MemoryExceeded(f"{rows} rows of {capacity} tokens have no room in memory") from None
        self._places = engine.bound()
        self._window = (0, 0)

    def begin(self, row: int) -> None:
        """The row is empty now; what it held is never read again."""
        self._lengths[row] = 0

    def read(self, row: int, tokens: Sequence[int]) -> Array:
        """Append a piece of a prompt to one row; the logits of what would follow, float32, shape (vocabulary,).

        Raises:
            RunFailed, MemoryExceeded: the model failed; the row is as it was.
        """
        found: Array = self._run(row, row + 1, np.array([tokens], np.int64), [row])[0]
        return found

    def step(self, taken: Sequence[tuple[int, int]]) -> Array:
        """Append one token to each of some rows; logits, float32, shape (rows given, vocabulary), until the next call.

        Args:
            taken: (row, token), rows rising.

        Raises:
            RunFailed, MemoryExceeded: the model failed; the rows are as they were.
        """
        rows = [row for row, _ in taken]
        first, end = rows[0], rows[-1] + 1
        tokens = np.zeros((end - first, 1), np.int64)
        tokens[[row - first for row in rows], 0] = [token for _, token in taken]
        return self._run(first, end, tokens, rows)

    def _run(self, first: int, end: int, tokens: Array, rows: list[int]) -> Array:
        lengths = self._lengths[first:end] + tokens.shape[1]
        if (self._lengths[rows] + tokens.shape[1] > self.capacity).any():
            raise UsageError(f"a row would have more than {self.capacity} tokens")
        self._place_cache(first, end)
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        logits = self._logits[: end - first]
        if self._all_positions:
            logits = np.empty((end - first, tokens.shape[1], self.vocabulary), np.float32)
        self._places.input("input_ids", tokens)
        self._places.input("attention_mask", mask)
        self._places.output("logits", logits)
        self._places.run()
        self._lengths[rows] += tokens.shape[1]
        found: Array = logits[:, -1]
        return found if len(rows) == len(found) else found[[row - first for row in rows]]

    def _place_cache(self, first: int, end: int) -> None:
        """Rows of the cache that the next execution reads and writes; they lie one behind the other."""
        if self._window == (first, end):
            return
        for part, array in self._cache.items():
            self._places.input(f"past_key_values.{part}", array[first:end])
            self._places.output(f"present.{part}", array[first:end])
        self._window = (first, end)


_Form = tuple[np.dtype[Any], int, int]


def token_bytes(engine: Engine) -> int:
    """Memory that the cache takes for one token of one row.

    Raises:
        ModelRefused: as ``Decoder``.
    """
    forms, _, _ = _read_convention(engine)
    return sum(dtype.itemsize * heads * width for dtype, heads, width in forms.values())


def _read_convention(engine: Engine) -> tuple[dict[str, _Form], int, bool]:
    """Parts of the cache with dtype, heads and width; size of the vocabulary; whether all positions have logits."""
    inputs, outputs = ({spec.name: spec for spec in specs} for specs in (engine.inputs, engine.outputs))
    forms: dict[str, _Form] = {}
    for name, spec in inputs.items():
        if name in _NOT_LAYERS:
            continue
        match, shape = _PAST.fullmatch(name), spec.shape or ()
        if match is None or spec.dtype not in ("float32", "float16") or len(shape) != 4:
            raise ModelRefused(f"{name!r} is no input of a decoder")
        heads, width = shape[1], shape[3]
        if not isinstance(heads, int) or not isinstance(width, int) or f"present.{match[1]}" not in outputs:
            raise ModelRefused(f"{name!r} does not tell heads and width, or has no present")
        forms[match[1]] = np.dtype(spec.dtype), heads, width
    logits = outputs["logits"].shape if "logits" in outputs else None
    complete = inputs.keys() >= _NOT_LAYERS and forms and len(outputs) == len(forms) + 1
    if not complete or logits is None or len(logits) != 3:
        raise ModelRefused("a decoder takes input_ids, attention_mask and a cache, and gives logits and the cache")
    vocabulary = logits[2]
    if not isinstance(vocabulary, int) or not 1 <= vocabulary <= VOCABULARY or outputs["logits"].dtype != "float32":
        raise ModelRefused("the logits of a decoder are float32 and tell the size of the vocabulary")
    return forms, vocabulary, logits[1] != 1
