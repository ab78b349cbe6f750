"""Counting: how many units a run is billed for. Both sides count, from the same bytes, and believe only that (MON-5).

Of a decoder's run it reads no more than it counts, and without numpy: whether the
rest makes sense is for the worker to say, and for who asked.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-32 and TOK-33.
"""

from __future__ import annotations

from cocoon.core.errors import Malformed, wrong
from cocoon.core.limits import CONTEXT_TOKENS, PROMPT_TOKENS_A_UNIT, STOP_TOKENS
from cocoon.core.units import UnitKind, ceil_div
from cocoon.core.values import Value
from cocoon.wire.layout import numbers


def token_units(prompt_tokens: int, answer_tokens: int) -> int:
    """What is billed for reading a prompt and making an answer, in tokens of an answer (TOK-32)."""
    return ceil_div(prompt_tokens, PROMPT_TOKENS_A_UNIT) + answer_tokens


def most_units(unit: int, inputs: bytes) -> int:
    """The most that a run of these inputs is billed for; 1 if no run can come of them."""
    if unit != UnitKind.OUTPUT_TOKEN:
        return 1
    try:
        asked = _asked(inputs)
    except Malformed:
        return 1
    return token_units(asked.prompt_tokens, asked.most_tokens)


def counted_units(unit: int, inputs: bytes, outputs: bytes) -> int:
    """What a run is billed for.

    Raises:
        Malformed: these are no question to a decoder, or no answer to it.
        WrongField: ``wrong_output``, more tokens than were asked for, or some behind one that ends the answer.
    """
    if unit != UnitKind.OUTPUT_TOKEN:
        return 1
    asked, tokens = _asked(inputs), numbers(outputs, {"tokens": CONTEXT_TOKENS}).get("tokens")
    if tokens is None:
        raise Malformed("the outputs are no answer of a decoder")
    if len(tokens) > asked.most_tokens:
        raise wrong("output", f"an answer of {len(tokens)} tokens where {asked.most_tokens} were asked for")
    if not asked.stop_tokens.isdisjoint(tokens[:-1]):
        raise wrong("output", "an answer goes on behind a token that ends it")
    return token_units(asked.prompt_tokens, len(tokens))


class _Asked(Value):
    """The part of a question that counts."""

    prompt_tokens: int
    most_tokens: int
    stop_tokens: frozenset[int]


def _asked(inputs: bytes) -> _Asked:
    found = numbers(inputs, {"prompt": CONTEXT_TOKENS, "most_tokens": 1, "stop_tokens": STOP_TOKENS})
    if not found.get("prompt") or len(found.get("most_tokens", ())) != 1:
        raise Malformed("the inputs are no question to a decoder")
    most_tokens = min(max(found["most_tokens"][0], 1), CONTEXT_TOKENS)
    return _Asked(len(found["prompt"]), most_tokens, frozenset(found.get("stop_tokens", ())))
