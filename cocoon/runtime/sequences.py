"""A sequence: a prompt, how its tokens are chosen, what ends it; and the record of each token.

Temperature and share are whole parts of a million, so that a request has one spelling.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-5, TOK-9 and TOK-13.
"""

from __future__ import annotations

from enum import Enum

from cocoon.core.errors import InputsMismatch, LimitExceeded
from cocoon.core.limits import STOP_TEXT_BYTES, STOP_TEXTS, STOP_TOKENS
from cocoon.core.units import PPM
from cocoon.core.values import Value
from cocoon.runtime.company import RunId

#: A hundred: at this temperature logits that differ by 100 are one e apart, and all tokens are about equal.
_HOTTEST_PPM = 100 * PPM


class Sampling(Value):
    """How the next token is chosen.

    Attributes:
        temperature_ppm: 0 takes the most likely token, and the rest of this is without effect.
        top_tokens: Only so many of the most likely are drawn from; 0 is all.
        top_share_ppm: Only the most likely that together have this share are drawn from; ``PPM`` is all.
        seed: Decides every draw, together with the token's number.
    """

    temperature_ppm: int = 0
    top_tokens: int = 0
    top_share_ppm: int = PPM
    seed: int = 0


#: The most likely token, always.
GREEDY = Sampling()


class Sequence(Value):
    """What somebody asks for.

    Attributes:
        most_tokens: It ends after so many.
        stop_tokens: It ends with any of these.
        stop_texts: It ends before any of these, which need not begin or end where a token does.
    """

    id: RunId
    prompt: tuple[int, ...]
    most_tokens: int
    stop_tokens: frozenset[int] = frozenset()
    stop_texts: tuple[bytes, ...] = ()
    sampling: Sampling = GREEDY


class TokenRecord(Value):
    """One token of an answer: its number from 1, its id, and the running hash over prompt and tokens up to it."""

    number: int
    token: int
    head: bytes


class Reason(Enum):
    """Why a sequence ended."""

    STOP_TOKEN = "stop_token"
    STOP_TEXT = "stop_text"
    LENGTH = "length"
    CANCELLED = "cancelled"
    FAILED = "failed"


def check(sequence: Sequence, vocabulary: int, capacity: int) -> None:
    """Refuse what a decoder of so many tokens, with room for ``capacity`` a sequence, cannot do.

    Raises:
        InputsMismatch: a token that does not exist, an empty prompt, a number outside of its range.
        LimitExceeded: prompt and answer have no room together; too many stops, or too long ones.
    """
    how = sequence.sampling
    if not sequence.prompt or sequence.most_tokens < 1 or b"" in sequence.stop_texts:
        raise InputsMismatch("a sequence has a prompt, at least one token to make, and no empty stop text")
    if not all(0 <= token < vocabulary for token in sequence.prompt):
        raise InputsMismatch(f"a token of the prompt is not below {vocabulary}")
    if not (0 <= how.temperature_ppm <= _HOTTEST_PPM and 0 <= how.top_tokens and 0 < how.top_share_ppm <= PPM):
        raise InputsMismatch(f"temperature is 0 to {_HOTTEST_PPM} ppm, top tokens from 0, top share 1 to {PPM} ppm")
    if not -(1 << 63) <= how.seed < 1 << 63:
        raise InputsMismatch("a seed has 64 bits")
    if (wanted := len(sequence.prompt) + sequence.most_tokens) > capacity:
        raise LimitExceeded(f"prompt and answer have {wanted} tokens together, above {capacity}")
    if len(sequence.stop_tokens) > STOP_TOKENS or len(sequence.stop_texts) > STOP_TEXTS:
        raise LimitExceeded(f"more than {STOP_TOKENS} stop tokens or {STOP_TEXTS} stop texts")
    if any(len(text) > STOP_TEXT_BYTES for text in sequence.stop_texts):
        raise LimitExceeded(f"a stop text of more than {STOP_TEXT_BYTES} bytes")
