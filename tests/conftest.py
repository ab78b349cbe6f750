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

_TESTS = Path(__file__).resolve().parent
#: Where tests start processes and wait for them.
_WAITING = {"adapters", "attack", "bridge", "crash", "gpu", "loopback", "oracle"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the tree under test."""
    return Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for processes side by side with files that compute; the longest first, short ones at the end."""
    files = list(dict.fromkeys(item.path for item in items))
    waiting = [file for file in files if file.relative_to(_TESTS).parts[0] in _WAITING]
    computing = [file for file in files if file not in waiting]
    place = {file: number / len(computing) for number, file in enumerate(computing)}
    place |= {file: 0.85 * number / len(waiting) for number, file in enumerate(waiting)}
    items.sort(key=lambda item: -1.0 if item.path.name == "test_all_faults.py" else place[item.path])
