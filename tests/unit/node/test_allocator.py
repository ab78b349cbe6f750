"""Payloads that come and go take the same memory again."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Pages taken anew per round, by a process that holds 24 MiB in pieces and as a whole, again and again.
_PROGRAM = """
import resource
from cocoon.node.allocator import keep_freed_memory
{call}
def round():
    pieces = [bytearray(1 << 18) for _ in range(32)]
    return len(b"".join(pieces[:16])) + len(b"".join(pieces[16:]))
for _ in range(8):
    round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    round()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 50)
"""


def _faults(call: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(call=call)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_payloads_that_come_and_go_take_the_same_pages_again() -> None:
    assert _faults("keep_freed_memory()") < 100 < _faults("") / 5
