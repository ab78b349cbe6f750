"""Text to tokens and back, for who speaks to a decoder: its tokenizer, its chat template, the bytes of its tokens.

All three come out of the decoder's package, so a stranger may have written
them: the template runs in a sandbox and a process of its own, the tokenizer in a library of its own, and
files have bounds.

Purity: shell (third-party libraries, imported late). Spec: docs/spec/tokens.md, rules TOK-4 and TOK-28.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cocoon.core.errors import ModelRefused, UsageError
from cocoon.core.limits import STOP_TOKENS, TEMPLATE_CHARS
from cocoon.sdk.rendering import Turn, render
from cocoon.wire.tokens import unpack_pieces

FILES = ("tokenizer.json", "decoder.json", "tokens.bin")


@dataclass(slots=True)
class Text:
    """The text side of one decoder. Made by ``read_text``."""

    pieces: tuple[bytes, ...]
    stop_tokens: tuple[int, ...]
    template: str | None
    first_token: int | None
    _tokenizer: Any

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, as the package's tokenizer cuts it; the first token of a text before them."""
        found = tuple(cut(self._tokenizer, text, ends=False).ids)
        return found if self.first_token is None else (self.first_token, *found)

    def chat(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """The tokens of a conversation that the decoder is to answer, as the package's template writes it.

        Raises:
            UsageError: the package has no template.
            ModelRefused: its template does not work, writes far too much, or takes too much time or memory.
        """
        if self.template is None:
            raise UsageError("this decoder has no chat template; continue a plain text instead (--raw)")
        return tuple(cut(self._tokenizer, render(self.template, turns), ends=False).ids)

    def reader(self) -> Reader:
        """For the tokens of one answer, as they come."""
        return Reader(self)

    def text(self, tokens: Sequence[int], text_bytes: int) -> str:
        """A whole answer."""
        return b"".join(self.piece(token) for token in tokens)[:text_bytes].decode(errors="replace")

    def piece(self, token: int) -> bytes:
        """The bytes of a token; none of a stop token, or of one that does not exist."""
        return b"" if token in self.stop_tokens or token >= len(self.pieces) else self.pieces[token]


@dataclass(slots=True)
class Reader:
    """Turns tokens into text; a character that is split between two comes with the second."""

    of: Text
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def feed(self, token: int) -> str:
        """The text that this token completes."""
        return self._decoder.decode(self.of.piece(token))


def read_text(tokenizer: bytes, described: bytes, pieces: bytes) -> Text:
    """The text side of a package, from its files ``FILES``.

    Raises:
        UsageError: the package ``tokenizers`` is not installed.
        ModelRefused, Malformed: a file is not what it should be.
    """
    read = read_tokenizer(tokenizer)
    stops, template, first = _described(described)
    return Text(unpack_pieces(pieces), stops, template, first, read)


def read_tokenizer(data: bytes) -> Any:
    """The ``tokenizers.Tokenizer`` of a package's tokenizer.json; raises as ``read_text``."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError("text needs the packages tokenizers and jinja2: pip install cocoon-mesh[text]") from None
    with _panics("tokenizer.json cannot be read"):
        return Tokenizer.from_str(data.decode())


def cut(tokenizer: Any, text: str, *, ends: bool) -> Any:
    """The ``tokenizers.Encoding`` of a text, with the tokens that mark its ends or without.

    Raises:
        ModelRefused: the tokenizer, which a stranger may have written, cannot do it.
    """
    with _panics("the tokenizer of this package cannot cut a text"):
        return tokenizer.encode(text, add_special_tokens=ends)


@contextmanager
def _panics(what: str) -> Iterator[None]:
    """The library raises nothing more special than ``Exception``, and its panics are not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ModelRefused(f"{what}: {error}"[:200]) from None


def _described(data: bytes) -> tuple[tuple[int, ...], str | None, int | None]:
    """Stop tokens, chat template and first token of decoder.json."""
    try:
        told = json.loads(data)
        stops, template, first = told["stop_tokens"], told.get("chat_template"), told.get("first_token")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelRefused("decoder.json is not what a converter writes") from None
    are_numbers = isinstance(stops, list) and all(isinstance(stop, int) for stop in stops)
    is_text = template is None or isinstance(template, str) and len(template) <= TEMPLATE_CHARS
    if not are_numbers or len(stops) > STOP_TOKENS or not is_text or not isinstance(first, int | None):
        raise ModelRefused("decoder.json is not what a converter writes")
    return tuple(stops), template, first
