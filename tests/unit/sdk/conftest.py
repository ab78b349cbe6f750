"""A home and a model file for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory for a peer; empty."""
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that passes for a model: the test peer does not look inside."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not looked at")
    return path
