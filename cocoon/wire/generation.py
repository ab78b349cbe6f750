"""What is asked of a decoder and what it answers, as tensors: a run of one is a run like any other.

Inputs and outputs of a run are committed to, sealed and receipted as tensors
are, so a generation needs no second way. Who asks names a prompt and most
tokens; all else may be left out.

Imports numpy.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-5 and TOK-22.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cocoon.core.errors import InputsMismatch, Malformed
from cocoon.core.limits import CONTEXT_TOKENS, STOP_TEXTS, STOP_TOKENS
from cocoon.core.units import PPM
from cocoon.core.values import Value
from cocoon.wire.tensors import Array

#: Each a scalar, int64.
_NUMBERS = ("most_tokens", "temperature_ppm", "top_tokens", "top_share_ppm", "seed")
_LISTS = {"prompt": CONTEXT_TOKENS, "stop_tokens": STOP_TOKENS}
_NEEDED = {"prompt", "most_tokens"}
_OUTPUTS = {"tokens", "head", "reason", "text_bytes"}
_HEAD_BYTES = 32


class Ask(Value):
    """A request to continue a prompt; see ``runtime.sequences`` for what each part means."""

    prompt: tuple[int, ...]
    most_tokens: int
    stop_tokens: tuple[int, ...] = ()
    stop_texts: tuple[bytes, ...] = ()
    temperature_ppm: int = 0
    top_tokens: int = 0
    top_share_ppm: int = PPM
    seed: int = 0


class Said(Value):
    """The whole answer.

    Attributes:
        head: The running hash over prompt and tokens (TOK-9).
        reason: Why it ended: ``stop_token``, ``stop_text``, ``length`` or ``cancelled``.
        text_bytes: Of the tokens' text, what is the answer.
    """

    tokens: tuple[int, ...]
    head: bytes
    reason: str
    text_bytes: int


def ask_tensors(ask: Ask) -> dict[str, Array]:
    """The inputs of the run that asks this."""
    tensors: dict[str, Array] = {name: np.array(getattr(ask, name), np.int64) for name in _NUMBERS}
    tensors |= {name: np.array(getattr(ask, name), np.int64) for name in _LISTS}
    texts = np.empty(len(ask.stop_texts), object)
    texts[:] = [text.decode() for text in ask.stop_texts]
    return tensors | {"stop_texts": texts}


def read_ask(tensors: Mapping[str, Array]) -> Ask:
    """What a stranger's inputs ask for.

    Raises:
        InputsMismatch: another name, dtype or rank, too many of something, or something that is needed is not there.
    """
    if missing := _NEEDED - tensors.keys():
        raise InputsMismatch(f"a decoder takes {', '.join(sorted(missing))} too")
    if unknown := tensors.keys() - {*_NUMBERS, *_LISTS, "stop_texts"}:
        raise InputsMismatch(f"a decoder takes no {min(unknown)!r:.60}")
    numbers = {name: _numbers(name, tensors[name], 0, 1)[0] for name in _NUMBERS if name in tensors}
    lists = {name: _numbers(name, tensors[name], 1, most) for name, most in _LISTS.items() if name in tensors}
    texts = tensors.get("stop_texts")
    if texts is not None and (texts.dtype != object or texts.ndim != 1 or len(texts) > STOP_TEXTS):
        raise InputsMismatch(f"stop_texts are at most {STOP_TEXTS} texts, rank 1")
    return Ask(
        prompt=lists["prompt"], stop_tokens=lists.get("stop_tokens", ()),
        stop_texts=() if texts is None else tuple(text.encode() for text in texts), **numbers,
    )


def said_tensors(tokens: Sequence[int], head: bytes, reason: str, text_bytes: int) -> dict[str, Array]:
    """The outputs of a run that answered this."""
    why = np.empty((), object)
    why[()] = reason
    return {
        "tokens": np.array(tokens, np.int64), "head": np.frombuffer(head, np.uint8), "reason": why,
        "text_bytes": np.array(text_bytes, np.int64),
    }


def read_said(tensors: Mapping[str, Array]) -> Said:
    """What a stranger's outputs answer.

    Raises:
        Malformed: they are no answer of a decoder.
    """
    if tensors.keys() != _OUTPUTS:
        raise Malformed("the outputs are no answer of a decoder")
    head, reason = tensors["head"], tensors["reason"]
    if head.dtype != np.uint8 or head.shape != (_HEAD_BYTES,) or reason.dtype != object or reason.ndim:
        raise Malformed("the answer of a decoder has no hash, or no reason")
    try:
        tokens = _numbers("tokens", tensors["tokens"], 1, CONTEXT_TOKENS)
        (text_bytes,) = _numbers("text_bytes", tensors["text_bytes"], 0, 1)
    except InputsMismatch as error:
        raise Malformed(error.text) from None
    return Said(tokens, head.tobytes(), str(reason[()]), text_bytes)


def _numbers(name: str, array: Array, rank: int, most: int) -> tuple[int, ...]:
    if array.dtype.kind not in "iu" or array.ndim != rank or array.size > most:
        raise InputsMismatch(f"{name} is {'a number' if rank == 0 else f'at most {most} whole numbers'}")
    return tuple(array.reshape(-1).tolist())
