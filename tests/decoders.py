"""A decoder of the Llama family in plain numpy, float64 and without a cache: what the graph must agree with.

It is written from the formulas, not from the graph: rotary positions turn pairs one by one, attention
is a loop over heads, and every call reads the whole sequence again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cocoon.convert.weights import Sizes

Array = np.ndarray[Any, Any]


def logits(sizes: Sizes, weights: Mapping[str, Array], tokens: Sequence[int]) -> Array:
    """Logits of what follows the tokens, shape (vocabulary,)."""
    state = weights["token_embd.weight"][list(tokens)].astype(np.float64)
    for number in range(sizes.layers):
        name = f"blk.{number}."
        calm = _norm(sizes, state, weights[name + "attn_norm.weight"])
        query, key, value = (calm @ weights[f"{name}attn_{part}.weight"].T for part in "qkv")
        state = state + _attention(sizes, query, key, value) @ weights[name + "attn_output.weight"].T
        calm = _norm(sizes, state, weights[name + "ffn_norm.weight"])
        gate = calm @ weights[name + "ffn_gate.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (calm @ weights[name + "ffn_up.weight"].T)
        state = state + inner @ weights[name + "ffn_down.weight"].T
    head = weights.get("output.weight", weights["token_embd.weight"])
    found: Array = head @ _norm(sizes, state[-1:], weights["output_norm.weight"])[0]
    return found


def _norm(sizes: Sizes, state: Array, weight: Array) -> Array:
    found: Array = state / np.sqrt((state**2).mean(axis=-1, keepdims=True) + sizes.epsilon) * weight
    return found


def _attention(sizes: Sizes, query: Array, key: Array, value: Array) -> Array:
    seen = []
    for head in range(sizes.heads):
        shared = head // (sizes.heads // sizes.kv_heads)
        mine, theirs = _turned(sizes, query, head), _turned(sizes, key, shared)
        scores = mine @ theirs.T / np.sqrt(sizes.head_width)
        scores[np.triu_indices(len(scores), 1)] = -np.inf
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        seen.append(shares @ value[:, shared * sizes.head_width : (shared + 1) * sizes.head_width])
    return np.concatenate(seen, axis=-1)


def _turned(sizes: Sizes, rows: Array, head: int) -> Array:
    """One head's part of each row, every pair of numbers turned by its position."""
    mine = rows[:, head * sizes.head_width : (head + 1) * sizes.head_width]
    found = np.empty_like(mine)
    for pair in range(sizes.head_width // 2):
        a, b = (2 * pair, 2 * pair + 1) if sizes.interleaved else (pair, pair + sizes.head_width // 2)
        angle = np.arange(len(mine)) * sizes.rope_base ** (-2 * pair / sizes.head_width)
        found[:, a] = mine[:, a] * np.cos(angle) - mine[:, b] * np.sin(angle)
        found[:, b] = mine[:, a] * np.sin(angle) + mine[:, b] * np.cos(angle)
    return found
