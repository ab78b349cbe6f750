"""RUN-17 to RUN-20 and RUN-25 to RUN-28: a worker that was taken over, and what it cannot do all the same."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys

import pytest

from tests.adapters.runtime.attempts import FORBIDDEN, TRIES


def _landlock_version() -> int:
    """Of this kernel; below 1 without Landlock."""
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1)) if sys.platform == "linux" else 0


pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or _landlock_version() < 6,
    reason="tries system calls of Linux on x86-64, with a Landlock of version 6",
)

ENDS = {
    "make a thread": "did",
    "make a socket in a thread": "SIGSYS",
    "make a socket in an older thread": "SIGSYS",
    "fork": "SIGSYS",
    "run a program": "SIGSYS",
    "map memory to write and execute": "SIGSYS",
    "make memory executable": "SIGSYS",
    "make a socket": "SIGSYS",
    "signal the peer's thread": "SIGSYS",
    "raise the peer's limits": "SIGSYS",
    "leave its cores": "SIGSYS",
    "ask about filters": "SIGSYS",
    "set up a terminal": "ENOTTY",
    "write to a file that is open": "EFBIG",
    "share a mapping with the peer": "did",
    "open more descriptors than its share": "EMFILE",
    "take more memory than the model's limit": "refused",
    "soft limit of CPU time": "bounded",
    "limit of core files": "(0, 0)",
    "read a public file": "EACCES",
    **{f"call {name}": "SIGSYS" for name in FORBIDDEN},
    "read a public file, by Landlock": "EACCES",
    "read a public file, by the first layer": "did",
    "write a file, by the first layer": "EACCES",
    "link a file, by the first layer": "EACCES",
    "read the peer's memory, by Landlock": "EACCES",
    "run a program, by Landlock": "EACCES",
    "connect, by Landlock": "EACCES",
    "listen, by Landlock": "EACCES",
    "connect to an abstract socket, by Landlock": "EPERM",
    "signal the peer, by Landlock": "EPERM",
    "connect, by the empty namespace": "ENETUNREACH",
    "share memory, by the empty namespace": "own",
    "whether privileges can be gained": "1",
    "what comes when the peer dies": "SIGKILL",
}
#: What holds only here and there: for whom, and the end.
SOMETIMES = {
    "cores of a model with one thread": (len(os.sched_getaffinity(0)) > 1, "1"),
    "who it is": (os.geteuid() == 0, "(65534, 65534, 65534)"),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of a try to its end: all of them, from one stage."""
    command = [sys.executable, "-m", "tests.adapters.runtime.attempts", str(tmp_path_factory.mktemp("outside"))]
    plain = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}  # one thread, as in a worker
    done = subprocess.run(command, env=plain, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _id(name: str) -> str:
    return name.replace("'", "").replace(",", "").replace(" ", "-")


@pytest.mark.parametrize("name", ENDS, ids=_id)
def test_a_worker_that_was_taken_over_gets_no_further(ends: dict[str, str], name: str) -> None:
    assert ends[name] == ENDS[name]


@pytest.mark.parametrize("name", SOMETIMES, ids=_id)
def test_what_depends_on_the_machine_holds_where_it_can(ends: dict[str, str], name: str) -> None:
    can, end = SOMETIMES[name]
    if not can:
        pytest.skip("needs root, or a second core")
    assert ends[name] == end


def test_every_try_has_an_end_that_is_looked_at() -> None:
    assert set(TRIES) == {*ENDS, *SOMETIMES}
