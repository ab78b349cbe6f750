"""What every test shares: the root of the tree, and Hypothesis without wall-clock deadlines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# On two shared cores an example may take a second for no fault of its own; timings are never asserted.
settings.register_profile("cocoon", deadline=None, print_blob=True)
settings.load_profile("cocoon")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the tree under test."""
    return Path(__file__).resolve().parents[1]
