"""What an application may hand over as tensors, and how it is made plain.

numpy has more spellings than the wire: byte order, memory order, fixed-width
text. They are converted here, once, without changing a value; anything that
would need a guess is refused.

Purity: pure (numpy only). Spec: docs/spec/tensors.md, rules TEN-7 to TEN-9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cocoon.core.errors import BadInput, DtypeUnsupported, UsageError
from cocoon.wire.tensors import DTYPE_NAMES, NUMERIC

Array = npt.NDArray[Any]


def plain_tensors(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """Return ``tensors`` in the one form that the wire takes.

    Args:
        tensors: Names to numpy arrays or scalars, any shape, dtype of ``NUMERIC``
            in any byte order, ``U``, ``S`` (UTF-8) or object arrays of ``str``.

    Returns:
        Little-endian C-contiguous arrays; text as object arrays of ``str``.

    Raises:
        UsageError: not a mapping of text to arrays.
        DtypeUnsupported: bfloat16, float8, complex, time, records.
        BadInput: an object array that holds something else than ``str``.
    """
    if not isinstance(tensors, Mapping):
        raise UsageError(f"inputs are a map from tensor names to arrays, not {type(tensors).__name__}")
    return {_name(name): plain_array(name, value) for name, value in tensors.items()}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"a tensor name is text, not {type(name).__name__}")
    return name


def plain_array(name: str, value: Any) -> Array:
    """One array in the form of ``plain_tensors``; ``name`` is for the message only."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise UsageError(f"tensor {name!r} is a {type(value).__name__}; give a numpy array with a dtype")
    array = np.asarray(value)
    # Extension dtypes (bfloat16, float8 of ml_dtypes) are "V", complex "c", times "M" and "m".
    if array.dtype.kind in "US":
        return _from_fixed_width(name, array)
    if array.dtype.kind == "O":
        return _checked_text(name, array)
    little = array
    if array.dtype not in DTYPE_NAMES:
        if array.dtype.name not in NUMERIC:
            raise DtypeUnsupported(f"tensor {name!r} has dtype {array.dtype.name}, which is not carried yet")
        little = array.astype(array.dtype.newbyteorder("<"))
    # ascontiguousarray would turn a scalar into one dimension.
    return little if little.flags.c_contiguous else little.copy(order="C")


def _from_fixed_width(name: str, array: Array) -> Array:
    if array.dtype.kind == "U" and not _are_characters(array):
        raise BadInput(f"tensor {name!r} holds code points that are no characters")
    text = np.empty(array.size, dtype=object)
    for index, item in enumerate(array.reshape(-1).tolist()):
        text[index] = item if isinstance(item, str) else _decoded(name, item)
    return text.reshape(array.shape)


def _are_characters(array: Array) -> bool:
    """Whether each 4-byte cell is a Unicode scalar value; numpy does not look when it reads bytes."""
    if not array.size or not array.dtype.itemsize:
        return True
    flat = np.ascontiguousarray(array).reshape(-1)
    codes = flat.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return not bool(np.any((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))))


def _decoded(name: str, item: bytes) -> str:
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"tensor {name!r} holds bytes that are no UTF-8 text") from None


def _checked_text(name: str, array: Array) -> Array:
    for item in array.reshape(-1).tolist():
        if not isinstance(item, str):
            raise BadInput(f"tensor {name!r} holds a {type(item).__name__} as object; only str travels")
        try:
            item.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput(f"tensor {name!r} holds a lone surrogate, which has no UTF-8 form") from None
    return array if array.flags.c_contiguous else array.copy(order="C")
