"""The client library: what an application says to the peer that runs beside it.

Synchronous, one connection per task, no thread and no event loop of its own; the user's
threads may share clients and sessions. ``own_peer`` starts the peer too, as a process.
Nothing is ever unpickled. The names below are resolved on first use, so that importing the
package costs nothing and numpy is read only when tensors are.

Boundary: imports cocoon.core, cocoon.wire, numpy and (for offline verification)
cocoon.ledger.verify and export. Invariant: every failure is a ``CocoonError``.

Purity: shell (resolves its own names lazily).
Spec: docs/spec/control.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoon.core.units import format_nanoton
    from cocoon.sdk.client import Client, connect
    from cocoon.sdk.embedding import Vector
    from cocoon.sdk.generation import Answer
    from cocoon.sdk.own import own_peer
    from cocoon.sdk.results import Failure, Result
    from cocoon.sdk.session import Session
    from cocoon.wire.generation import Ask

_NAMES = {
    "Ask": "cocoon.wire.generation",
    "Answer": "cocoon.sdk.generation",
    "Client": "cocoon.sdk.client",
    "connect": "cocoon.sdk.client",
    "Failure": "cocoon.sdk.results",
    "format_nanoton": "cocoon.core.units",
    "own_peer": "cocoon.sdk.own",
    "Result": "cocoon.sdk.results",
    "Session": "cocoon.sdk.session",
    "Vector": "cocoon.sdk.embedding",
}

__all__ = [
    "Answer", "Ask", "Client", "Failure", "Result", "Session", "Vector", "connect", "format_nanoton", "map", "offers",
    "own_peer", "run",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name lazily (PEP 562)."""
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'cocoon.sdk' has no attribute {name!r}")


def run(model: Any, inputs: Any, **options: Any) -> Any:
    """``connect().run(...)`` on the default COCOON_HOME; see ``Client.run``."""
    return import_module("cocoon.sdk.client").connect().run(model, inputs, **options)


def map(model: Any, inputs: Iterable[Mapping[str, Any]], **options: Any) -> Iterator[Any]:
    """``connect().map(...)`` on the default COCOON_HOME; see ``Client.map``."""
    stream: Iterator[Any] = import_module("cocoon.sdk.client").connect().map(model, inputs, **options)
    return stream


def offers() -> list[dict[str, Any]]:
    """``connect().offers()`` on the default COCOON_HOME; see ``Client.offers``."""
    found: list[dict[str, Any]] = import_module("cocoon.sdk.client").connect().offers()
    return found
