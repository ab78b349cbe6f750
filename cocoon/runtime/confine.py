"""What a worker gives away before it meets a stranger's model.

Each step is taken where the system allows it and named in the result, so that
the profile tells which ones hold. The kill at the deadline needs none of them. The
file system is ``landlock``'s, system calls are ``seccomp``'s, cores are ``cores``'.

Purity: shell; only a worker process may import it.
Spec: docs/spec/runtime.md, rules RUN-17 to RUN-20.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from functools import cache

from cocoon.core.limits import WORKER_DESCRIPTORS, WORKER_DESCRIPTORS_CUDA, WORKER_THREAD_BYTES
from cocoon.core.units import SECOND_NS
from cocoon.runtime import kernel

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_CLONE_NEWIPC = 0x0800_0000
_NOBODY = 65_534
_LINUX = sys.platform == "linux"
_SIZE = "/proc/self/statm"
_SIBLINGS = "/proc/{0}/task/{0}/children"
_GAUGE_BYTES = 4_096  # five hundred pids


def leave_network() -> list[str]:
    """Move into an empty network and IPC namespace; call while there is one thread."""
    if not _LINUX:
        return []
    flags = _CLONE_NEWNET | _CLONE_NEWIPC
    if os.geteuid() != 0:
        flags |= _CLONE_NEWUSER  # lets an ordinary user make the other two
    return ["no_network"] if kernel.unshare(flags) else []


def refuse_privileges() -> list[str]:
    """No program that is executed gives this process more than it has; Landlock and the filter ask for that."""
    return ["no_new_privileges"] if _LINUX and kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1) else []


def drop_user() -> list[str]:
    """Become nobody, if we were root. Files opened later must be readable by all."""
    if not _LINUX or os.geteuid() != 0:
        return []
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return []
    return ["nobody"]


def die_with(parent_pid: int) -> list[str]:
    """Let the kernel kill this process when its peer dies, busy or not.

    Call last: a change of user clears the request. The signal follows the
    parent's *thread*, so the peer must start workers from the thread of its loop.
    """
    if not _LINUX:
        return []
    done = ["dies_with_peer"] if kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) else []
    if os.getppid() != parent_pid:
        raise SystemExit(0)  # it died before we asked
    return done


def limit_files(cuda: bool) -> list[str]:
    """No core dump, few descriptors and, without CUDA, no byte written to any file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, WORKER_DESCRIPTORS_CUDA if cuda else WORKER_DESCRIPTORS)
    if cuda:
        return []
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return ["writes_no_files"]


def limit_memory(memory_bytes: int, threads: int) -> None:
    """Bound the address space to what is mapped now, ``memory_bytes`` and the threads to come.

    Not for CUDA: its driver reserves more address space than any budget.
    """
    if _LINUX:
        _lower(resource.RLIMIT_AS, mapped_bytes() + memory_bytes + threads * WORKER_THREAD_BYTES)


def limit_cpu(wall_ns: int, threads: int, ends_ns: int = 0) -> int:
    """Let the kernel end a worker whose peer is frozen: CPU time for ``wall_ns`` on all threads.

    Args:
        ends_ns: CPU time of this process at which the limit of the call before ends; one that is enough is kept.

    Returns:
        When the limit ends now.
    """
    used_ns = time.process_time_ns()
    seconds = used_ns // SECOND_NS + (threads + 1) * (wall_ns // SECOND_NS + 1)
    if ends_ns < seconds * SECOND_NS:
        seconds += 1                                    # so that it is set once a second of many short runs
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds if hard < 0 else min(seconds, hard), hard))
        ends_ns = seconds * SECOND_NS
    return ends_ns


def open_gauges(parent_pid: int) -> None:
    """Open what is read later, when no path can be opened any more."""
    if _LINUX:
        _gauge(_SIZE)
        _gauge(_SIBLINGS.format(parent_pid))


def mapped_bytes() -> int:
    """Address space in use."""
    return int(_read(_SIZE).split()[0]) * resource.getpagesize()


def siblings(parent_pid: int) -> list[int]:
    """Pids of the processes that the peer's loop has started; none where the system does not say."""
    return [int(pid) for pid in _read(_SIBLINGS.format(parent_pid)).split()] if _LINUX else []


@cache
def _gauge(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _read(path: str) -> bytes:
    descriptor = _gauge(path)
    return b"" if descriptor is None else os.pread(descriptor, _GAUGE_BYTES, 0)


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    bound = value if hard < 0 else min(value, hard)
    resource.setrlimit(which, (bound, bound))
