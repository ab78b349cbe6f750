"""Arguments of a verb of the control socket, checked.

Purity: pure. Spec: docs/spec/control.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cocoon.core.errors import UsageError

Args = Mapping[str, Any]


def text_of(args: Args, key: str) -> str:
    """The text under ``key``, of 1 to 4,096 characters."""
    value = args.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 4_096:
        raise UsageError(f"{key!r} is missing or no text")
    return value


def count_of(args: Args, key: str, low: int, high: int) -> int:
    """The whole number under ``key``, in [low, high]."""
    value = args.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{key!r} is a whole number from {low} to {high}")
    return value
