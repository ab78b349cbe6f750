"""Weights of a decoder: its sizes, and matrices as numbers or as 8-bit blocks.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-1 to TOK-3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cocoon.core.errors import ModelRefused
from cocoon.core.values import Value

Array = np.ndarray[Any, Any]

BLOCK = 32
"""Numbers that share a scale: what Q8_0 has, so that its weights are taken over bit by bit."""
_ZERO = 128
#: Below it a scale has not all its digits, and a step could be more than 127; such a block stands for zeros.
_LEAST_SCALE = np.finfo(np.float32).tiny


class Sizes(Value):
    """What decides the form of a decoder.

    Attributes:
        inner: Width between the two products of a feed-forward part.
        context: Most tokens, prompt included, that its positions were trained for.
        interleaved: Whether neighbours turn together in the rotary embedding (GGUF), or the two halves (safetensors).
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int
    context: int
    rope_base: float
    epsilon: float
    interleaved: bool


class Blocks(NamedTuple):
    """A matrix of (out, in) as ``(codes - 128) * scale`` in blocks of 32 along its rows.

    Attributes:
        codes: uint8, shape (out, in / 32, 32).
        scales: float32, shape (out, in / 32).
    """

    codes: Array
    scales: Array


#: A matrix of (out, in) as it is stored: float32, or blocks.
Matrix = Array | Blocks
#: The weight of a name, None if there is none. Names are those of GGUF.
Read = Callable[[str], Matrix | None]


def quantise(matrix: Array) -> Blocks:
    """The blocks nearest to a float32 matrix: symmetric, the largest number of a block is 127 steps from 0.

    Raises:
        ModelRefused: a number is not finite, or the rows are not whole blocks.
    """
    rows, width = matrix.shape
    if width % BLOCK:
        raise ModelRefused(f"rows of {width} numbers are not whole blocks of {BLOCK}")
    if not np.isfinite(matrix).all():
        raise ModelRefused("a weight is not a finite number")
    blocks = matrix.reshape(rows, width // BLOCK, BLOCK)
    scales = np.abs(blocks).max(axis=-1) / np.float32(127)
    scales[scales < _LEAST_SCALE] = 0
    steps = np.rint(blocks / np.where(scales == 0, np.float32(1), scales)[..., None])
    return Blocks((steps + _ZERO).astype(np.uint8), scales.astype(np.float32))


def from_q8_0(stored: Array, rows: int) -> Blocks:
    """The same numbers as blocks of Q8_0: a float16 scale, then 32 signed bytes.

    Args:
        stored: uint8, the blocks one behind the other.
    """
    blocks = stored.reshape(rows, -1, 2 + BLOCK)
    scales = blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
    return Blocks(blocks[..., 2:] ^ np.uint8(_ZERO), scales)


def numbers(matrix: Matrix) -> Array:
    """The float32 numbers that a matrix stands for."""
    if not isinstance(matrix, Blocks):
        return matrix
    steps = matrix.codes.astype(np.float32) - np.float32(_ZERO)
    found: Array = (steps * matrix.scales[..., None]).reshape(len(matrix.codes), -1)
    return found


def check(sizes: Sizes) -> None:
    """Refuse sizes that no decoder has, or that the graph cannot say.

    Raises:
        ModelRefused: a size is not positive, or two do not fit each other.
    """
    counts = [sizes.layers, sizes.width, sizes.heads, sizes.kv_heads, sizes.head_width, sizes.inner,
              sizes.vocabulary, sizes.context]
    if min(counts) < 1 or sizes.heads % sizes.kv_heads or sizes.head_width % 2:
        raise ModelRefused(f"no decoder has these sizes: {sizes}")
