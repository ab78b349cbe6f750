"""Counting: how many units a run is billed for. Both sides count, from the same bytes, and believe only that (MON-5).

Of a run it reads no more than it counts, and without numpy: whether the rest makes
sense is for the worker to say, and for who asked.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-32, TOK-33 and TOK-36.
"""

from __future__ import annotations

from math import prod

from cocoon.core.errors import Malformed, wrong
from cocoon.core.limits import CONTEXT_TOKENS, PROMPT_TOKENS_A_UNIT, STOP_TOKENS
from cocoon.core.units import UnitKind, ceil_div
from cocoon.core.values import Value
from cocoon.wire.layout import numbers, shapes

#: What an encoder may be given, each with one item per token (TOK-36).
EMBED_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def token_units(prompt_tokens: int, answer_tokens: int) -> int:
    """What is billed for reading a prompt and making an answer, in tokens of an answer (TOK-32)."""
    return ceil_div(prompt_tokens, PROMPT_TOKENS_A_UNIT) + answer_tokens


def asked_units(unit: int, inputs: bytes) -> int:
    """The most that a run of these inputs is billed for.

    Raises:
        Malformed: no run that is billed can come of them: these are no tokens to embed, or no question to a decoder.
    """
    if unit == UnitKind.PROMPT_TOKEN:
        return _embedded(inputs)
    if unit == UnitKind.OUTPUT_TOKEN:
        asked = _asked(inputs)
        return token_units(asked.prompt_tokens, asked.most_tokens)
    return 1


def most_units(unit: int, inputs: bytes) -> int:
    """As ``asked_units``; 1 if no run can come of them."""
    try:
        return asked_units(unit, inputs)
    except Malformed:
        return 1


def counted_units(unit: int, inputs: bytes, outputs: bytes) -> int:
    """What a run is billed for.

    Raises:
        Malformed: these are no tokens to embed, no question to a decoder, or no answer to it.
        WrongField: ``wrong_output``, more tokens than were asked for, or some behind one that ends the answer.
    """
    if unit == UnitKind.PROMPT_TOKEN:
        return _embedded(inputs)
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


def _embedded(inputs: bytes) -> int:
    """How many tokens are to be embedded, those that only fill a row among them (TOK-36)."""
    given = {name: lengths for name, _, lengths in shapes(inputs)}
    lengths = given.get(EMBED_INPUTS[0], ())
    # Anything else could make a model work for long, for the price of a token.
    if not given.keys() <= set(EMBED_INPUTS) or set(given.values()) != {lengths} or not 1 <= len(lengths) <= 2:
        raise Malformed(f"what is embedded is {EMBED_INPUTS[0]} and perhaps others of {EMBED_INPUTS}, all of one shape")
    if not 0 < (count := prod(lengths)) <= CONTEXT_TOKENS:
        raise Malformed(f"{count} tokens to embed, where a run has 1 to {CONTEXT_TOKENS}")
    return count


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
