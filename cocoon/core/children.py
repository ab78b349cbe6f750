"""The environment of a process that a peer starts.

Purity: shell.
"""

from __future__ import annotations

import os
import site
from collections.abc import Iterable, Mapping
from pathlib import Path

import cocoon


def child_environment(kept: Iterable[str], more: Mapping[str, str]) -> dict[str, str]:
    """All of it: what is kept of ours, what is set, and a way to Cocoon from a checkout too; none of our secrets."""
    found = {name: os.environ[name] for name in kept if name in os.environ}
    root = str(Path(cocoon.__file__).parent.parent)
    if root not in site.getsitepackages():
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (root, found.get("PYTHONPATH"))))
    return {**found, **more}
