"""Texts that end a sequence, found across the borders of tokens.

What may be the beginning of such a text is held back until it is known not to be,
so a reader never sees half of one. Bytes are compared, not characters, because a
token may end inside one.

For each text the longest of its beginnings that the sequence ends with is known
(Knuth, Morris, Pratt), so a byte costs a step or two for each, whatever was before.

Purity: pure. Spec: docs/spec/tokens.md, rules TOK-11 and TOK-12.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Shown(NamedTuple):
    """What a further token makes of the text: bytes that may be shown now, and whether the text ended with them."""

    text: bytes
    ended: bool


@dataclass(slots=True)
class _Pattern:
    """One text, and how much of it the sequence ends with."""

    text: bytes
    matched: int = 0
    _shorter: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._shorter = _borders(self.text)

    def take(self, byte: int) -> bool:
        """Whether the text is complete with this byte."""
        while self.matched and self.text[self.matched] != byte:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.text[self.matched] == byte
        return self.matched == len(self.text)


class StopTexts:
    """Feed the bytes of each token; after the end nothing more is fed."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        """``texts`` are not empty."""
        self._patterns = [_Pattern(text) for text in texts]
        self._held = b""
        self.shown_bytes = 0

    def feed(self, piece: bytes) -> Shown:
        """Take one token's bytes; the text ends before the first stop text that is complete, of several the longest."""
        before, self._held = len(self._held), self._held + piece
        for at, byte in enumerate(piece, start=before + 1):
            complete = [len(pattern.text) for pattern in self._patterns if pattern.take(byte)]
            if complete:
                return self._show(at - max(complete), ended=True)
        begun = max((pattern.matched for pattern in self._patterns), default=0)
        return self._show(len(self._held) - begun, ended=False)

    def rest(self) -> bytes:
        """What was held back, where the sequence ended otherwise: it was no stop text after all."""
        return self._show(len(self._held), ended=True).text

    def _show(self, count: int, ended: bool) -> Shown:
        shown, self._held = self._held[:count], b"" if ended else self._held[count:]
        self.shown_bytes += count
        return Shown(shown, ended)


def _borders(text: bytes) -> list[int]:
    """For each beginning of the text: the longest shorter beginning that it ends with."""
    found, length = [0], 0
    for byte in text[1:]:
        while length and text[length] != byte:
            length = found[length - 1]
        length += text[length] == byte
        found.append(length)
    return found
