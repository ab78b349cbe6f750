"""Running the real command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cocoon.sdk import npz

#: Far above any command here; a hang is a failure, not a wait.
LIMIT_S = 60.0


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Said]


def environment(home: Path, root: Path, **extra: str) -> dict[str, str]:
    """Nothing of the caller's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COCOON_")}
    return {**kept, "COCOON_HOME": str(home), "PYTHONPATH": str(root), **extra}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory for a peer; empty."""
    return tmp_path / "home"


@pytest.fixture
def command(home: Path, root: Path, tmp_path: Path) -> Command:
    """``command("status", "--json")`` runs it in ``tmp_path`` and waits."""

    def run(*arguments: str, **extra: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "cocoon", *arguments],
            env=environment(home, root, **extra), cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=LIMIT_S,
        )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in said.out + said.err
        return said

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """``model.onnx`` and three inputs ``a.npz``, ``b.npz``, ``c.npz`` in the working directory."""
    (tmp_path / "model.onnx").write_bytes(b"the test peer does not look inside")
    for index, name in enumerate("abc"):
        text = np.array([f"{name}\0"], dtype=object)
        npz.save(tmp_path / f"{name}.npz", {"x": np.full((2, 2), index, dtype=np.float16), "t": text})
    return tmp_path
