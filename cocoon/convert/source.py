"""What a reader of a published format finds, whatever the format.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-1 and TOK-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cocoon.convert.weights import Read, Sizes

#: A tokenizer.json, as the package ``tokenizers`` reads it.
Tokenizer = Mapping[str, Any]


class Source(NamedTuple):
    """A decoder that can be converted.

    Attributes:
        names: Of all tensors, by their GGUF names.
        stops: Tokens that end an answer.
        first: Token that stands before every text, if there is one.
        template: How a conversation is written as a prompt (Jinja), or "".
        told: Name, licence and the like, as the source says.
    """

    sizes: Sizes
    read: Read
    names: frozenset[str]
    tokenizer: Tokenizer
    stops: tuple[int, ...]
    first: int | None
    template: str
    told: Mapping[str, str]
