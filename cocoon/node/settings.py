"""The settings of this process, for who starts or examines a peer.

Purity: shell.
"""

from __future__ import annotations

from collections.abc import Mapping

from cocoon.config import service
from cocoon.config.settings import Resolved


def load(flags: Mapping[str, object] | None = None) -> Resolved:
    """Defaults, then config.toml, then the environment, then ``flags`` by setting name; errors as ``resolve``."""
    return service.load(flags=flags)
