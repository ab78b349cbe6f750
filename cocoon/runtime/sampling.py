"""Choosing a token from logits, so that whoever has the logits can choose it again.

The draw of a token is decided by seed and number alone: it does not depend on the tokens
before it, on the row, or on the company. Two who compute the logits on different
machines may get different last bits of a probability; a choice whose draw is farther
from a border between two tokens than that is the same for both.

Imports numpy, so only a worker or an auditor imports it.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-6 to TOK-8.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from cocoon.core.rng import stream
from cocoon.core.units import PPM
from cocoon.runtime.sequences import Sampling

Array = np.ndarray[Any, Any]

_PURPOSE = "tokens"
#: Most likely tokens that are looked at first; more only if they have not the share that is needed.
_FIRST_LOOK = 64
_FURTHER = 16


def draw(seed: int, number: int) -> float:
    """The uniform number in [0, 1) that decides token ``number`` of a sequence: 53 bits of block ``number`` (TOK-6)."""
    block = hashlib.blake2b(number.to_bytes(8, "big"), key=stream(seed, b"", _PURPOSE).key, digest_size=8)
    return float(int.from_bytes(block.digest(), "big") >> 11) / float(1 << 53)


def choose(logits: Array, sampling: Sampling, number: int) -> int | None:
    """The token of this number; None if the logits choose none, because one is no number or none is finite.

    Args:
        logits: float32, shape (vocabulary,).
    """
    best = int(logits.argmax())                         # of equals the lowest id; a NaN comes first
    if not np.isfinite(logits[best]):
        return None
    if sampling.temperature_ppm == 0:
        return best
    scaled = (logits.astype(np.float64) - float(logits[best])) * (PPM / sampling.temperature_ppm)
    return _drawn(scaled, sampling, draw(sampling.seed, number))


def _drawn(scaled: Array, sampling: Sampling, uniform: float) -> int:
    """The first token, most likely first, at which the sum of weights exceeds the draw's part of the whole (TOK-7)."""
    most = sampling.top_tokens or len(scaled)
    total = _total(scaled, sampling.top_tokens)
    all_of_it = sampling.top_share_ppm == PPM
    enough = total * (uniform if all_of_it else sampling.top_share_ppm / PPM)
    look = min(_FIRST_LOOK, most)
    while True:
        order = ranked(scaled, look)
        sums = np.cumsum(np.exp(scaled[order]))
        if sums[-1] > enough or look >= most or look >= len(scaled):
            break
        look = min(_FURTHER * look, most)
    among = len(sums) if all_of_it else min(int(np.searchsorted(sums, enough)) + 1, len(sums))
    whole = total if all_of_it else sums[among - 1]
    return int(order[min(int(np.searchsorted(sums, uniform * whole, side="right")), among - 1)])


def _total(scaled: Array, top_tokens: int) -> float:
    """Weight of all tokens that may be drawn."""
    if 0 < top_tokens < len(scaled):
        scaled = scaled[ranked(scaled, top_tokens)]
    return float(np.exp(scaled).sum())


def ranked(scores: Array, count: int) -> Array:
    """The ids of the ``count`` highest scores, highest first, of equals the lowest id first."""
    found = np.arange(len(scores))
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = np.flatnonzero(scores >= least)
    best: Array = found[np.argsort(-scores[found], kind="stable")][:count]
    return best
