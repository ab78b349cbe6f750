"""A decoder of random weights, about half a megabyte: for tests, which need its form and not its wits.

Purity: pure. Spec: docs/spec/tokens.md, rule TOK-3.
"""

from __future__ import annotations

import numpy as np

from cocoon.convert.graph import build
from cocoon.convert.weights import Array, Sizes

SIZES = Sizes(
    layers=2, width=64, heads=4, kv_heads=2, head_width=16, inner=128, vocabulary=512, context=128,
    rope_base=10_000.0, epsilon=1e-5, interleaved=True,
)


def weights(sizes: Sizes = SIZES, seed: int = 0) -> dict[str, Array]:
    """Random weights under their names, float32; equal seeds give equal weights."""
    drawn = np.random.default_rng(seed)
    heads, kv = sizes.heads * sizes.head_width, sizes.kv_heads * sizes.head_width
    layer = {
        "attn_q": (heads, sizes.width), "attn_k": (kv, sizes.width), "attn_v": (kv, sizes.width),
        "attn_output": (sizes.width, heads), "ffn_gate": (sizes.inner, sizes.width),
        "ffn_up": (sizes.inner, sizes.width), "ffn_down": (sizes.width, sizes.inner),
    }
    found = {"token_embd.weight": drawn.standard_normal((sizes.vocabulary, sizes.width))}
    for number in range(sizes.layers):
        for name, shape in layer.items():
            found[f"blk.{number}.{name}.weight"] = 2 * drawn.standard_normal(shape) / np.sqrt(shape[1])
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{number}.{name}.weight"] = 1 + drawn.standard_normal(sizes.width) / 8
    found["output_norm.weight"] = 1 + drawn.standard_normal(sizes.width) / 8
    return {name: array.astype(np.float32) for name, array in found.items()}


def tiny_decoder(sizes: Sizes = SIZES, seed: int = 0, exact: bool = True) -> bytes:
    """The ONNX file; ``exact`` keeps float32, else matrices are 8-bit blocks."""
    return build(sizes, weights(sizes, seed).get, exact)
