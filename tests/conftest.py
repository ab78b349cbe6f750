"""What every test shares: the root of the tree, Hypothesis without wall-clock deadlines, signals that arrive."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Under nohup, or started by a script in the background, these come to us ignored; every process of the tests would
# inherit that, and a peer respects it, so that what a test sends would be lost.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On two shared cores an example may take a second for no fault of its own; timings are never asserted.
settings.register_profile("cocoon", deadline=None, print_blob=True)
settings.load_profile("cocoon")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the tree under test."""
    return Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first, or at the end one process works and the others look on."""
    items.sort(key=lambda item: item.path.name != "test_all_faults.py")
