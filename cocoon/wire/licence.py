"""Licences of models: SPDX expressions, and what a policy makes of them.

``MIT OR (Apache-2.0 AND CC-BY-4.0)`` offers two ways to use a model. A policy
permits it if it permits every licence of one of them. An exception after
``WITH`` only grants more, so the licence before it decides. Names are compared
without regard to case, as SPDX has it.

Purity: pure. Spec: docs/spec/models.md, rule MOD-8.
"""

from __future__ import annotations

import string
from collections import deque
from collections.abc import Collection

from cocoon.core.errors import UsageError

#: What a model that declares nothing counts as.
NO_LICENCE = "none"
_NAME_ALPHABET = frozenset(string.ascii_letters + string.digits + ".-:")
_WORDS = frozenset({"AND", "OR", "WITH", "(", ")"})


def check_expression(text: str) -> None:
    """Return if ``text`` is an SPDX expression.

    Raises:
        UsageError: it is none; says where.
    """
    permitted(text, allowed=(), denied=())


def permitted(expression: str, *, allowed: Collection[str], denied: Collection[str]) -> bool:
    """Whether the model may be used by one of the ways that its licence offers.

    Args:
        expression: Of a manifest, so at most ``LICENCE_CHARS`` long; "" counts as ``NO_LICENCE``.
        allowed: The only licences that will do; none given means that any will.
        denied: Licences that never do.

    Raises:
        UsageError: it is no SPDX expression.
    """
    reading = _Reading(expression or NO_LICENCE, _names(allowed), _names(denied))
    found = reading.either()
    reading.end()
    return found


def _names(licences: Collection[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in licences)


class _Reading:
    """One expression, judged while it is read; it nests no deeper than it is long."""

    def __init__(self, text: str, allowed: frozenset[str], denied: frozenset[str]) -> None:
        self._tokens = deque(text.replace("(", " ( ").replace(")", " ) ").split())
        self._allowed = allowed
        self._denied = denied

    def either(self) -> bool:
        """``a OR b``: one will do."""
        found = self._both()
        while self._took("OR"):
            found = self._both() or found
        return found

    def end(self) -> None:
        """Nothing may follow."""
        if self._tokens:
            raise UsageError(f"{self._tokens[0]!r:.40} stands where the licence should end, or go on with AND or OR")

    def _both(self) -> bool:
        found = self._one()
        while self._took("AND"):
            found = self._one() and found
        return found

    def _one(self) -> bool:
        if self._took("("):
            found = self.either()
            if not self._took(")"):
                raise UsageError("a licence opens a parenthesis that it does not close")
            return found
        name = self._name()
        if self._took("WITH"):
            self._name()
        return name not in self._denied and (not self._allowed or name in self._allowed)

    def _name(self) -> str:
        token = self._tokens.popleft() if self._tokens else ""
        name = token.removesuffix("+")                  # "or any later version": the same licence to a policy
        if token in _WORDS or not name or not _NAME_ALPHABET.issuperset(name):
            raise UsageError(f"{token!r:.40} is no licence of SPDX")
        return name.casefold()

    def _took(self, word: str) -> bool:
        if not self._tokens or self._tokens[0] != word:
            return False
        self._tokens.popleft()
        return True
