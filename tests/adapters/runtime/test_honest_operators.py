"""RUN-27: what honest models do is on the list of system calls."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _ends(how: str) -> list[str]:
    plain = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.adapters.runtime.operators", how]
    done = subprocess.run(command, env=plain, stdout=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, f"ended by {done.returncode} after {done.stdout.splitlines()[-1:]}"
    return done.stdout.splitlines()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="confines by Linux")
def test_every_operator_ends_confined_as_it_ends_without() -> None:
    confined, plain = _ends("confined"), _ends("plain")
    assert confined == plain
    assert sum(line.endswith(" ran") for line in plain) > 1_000
