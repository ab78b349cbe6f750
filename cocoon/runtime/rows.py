"""Joining and splitting tensors along their batch axis, the first one.

Runs that are executed together have inputs of equal names, dtypes and lengths but
for the first axis (their form); the outputs are cut again where the inputs
were put together. What comes out of a split are views: nothing is copied.

Imports numpy, so only a worker imports it.

Purity: pure. Spec: docs/spec/batching.md, rules JOI-2 and JOI-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cocoon.core.errors import InputsMismatch, RunFailed
from cocoon.runtime.company import Form, form_of
from cocoon.wire.tensors import DTYPE_NAMES, STRING, Array

Tensors = Mapping[str, Array]


def describe(tensors: Tensors) -> tuple[Form, int | None]:
    """Form of named arrays, and the rows that all of them have; None if they do not agree, or have none."""
    return form_of([(name, _dtype(array), array.shape) for name, array in tensors.items()])


def join(parts: Sequence[Tensors]) -> dict[str, Array]:
    """The tensors of several runs, one behind the other; those of a single one as they are.

    Raises:
        InputsMismatch: the parts have different forms, or a part has no rows.
    """
    described = [describe(part) for part in parts]
    if len({form for form, _ in described}) != 1 or any(rows is None for _, rows in described):
        raise InputsMismatch("only runs of one form, with rows, are joined")
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, Array]]:
    """The outputs of each run, views of the joined ones.

    Args:
        outputs: Of one execution of joined inputs.
        rows: Of each run, in the order in which they were joined.

    Raises:
        RunFailed: an output has not one row for each row of the inputs, so nobody knows whose it is.
    """
    total = sum(rows)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise RunFailed(f"output {name!r} has shape {array.shape}; its first axis should have {total} rows")
    ends = np.cumsum(rows).tolist()
    return [
        {name: array[end - own : end] for name, array in outputs.items()}
        for own, end in zip(rows, ends, strict=True)
    ]


def _dtype(array: Array) -> str:
    known = DTYPE_NAMES.get(array.dtype)
    return known or (STRING if array.dtype == object else array.dtype.name)
