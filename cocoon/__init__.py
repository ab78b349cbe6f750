"""Cocoon: a market for AI computation without a middleman.

``import cocoon`` gives an application the verbs of the command line. The names
below are resolved on first use, so that importing the package costs nothing.

Purity: shell (resolves names through importlib).
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "Client": "cocoon.sdk",
    "Result": "cocoon.sdk",
    "connect": "cocoon.sdk",
    "run": "cocoon.sdk",
    "map": "cocoon.sdk",
    "own_peer": "cocoon.sdk",
    "offers": "cocoon.sdk",
}

__all__ = ["__version__", *sorted(_VERBS)]


def __getattr__(name: str) -> Any:
    """Resolve a public verb lazily (PEP 562)."""
    if name in _VERBS:
        return getattr(import_module(_VERBS[name]), name)
    raise AttributeError(f"module 'cocoon' has no attribute {name!r}")
