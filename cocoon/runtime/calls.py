"""The system calls that a worker may make while it holds a stranger's model.

The list was measured: what glibc, CPython and ONNX Runtime call from the reading of
a model to the end of its runs, with one thread and with several, when memory runs
out and when the process aborts. Whatever is not listed ends the process. Three kinds
are answered instead, because honest libraries try them and go on without: a thread
made the new way, a look at a file by its path, and a look at a terminal.

Purity: pure.
Spec: docs/spec/runtime.md, rule RUN-27.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from cocoon.runtime.bpf import ALLOW, Check, Instruction, program, refuse, rule

_PROT_EXEC = 4
#: CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID and CHILD_CLEARTID: what
#: pthread_create asks for, exactly. A process, or a namespace, needs other flags.
_THREAD = 0x003D_0F00
_F_DUPFD_CLOEXEC = 1_030
_WORD = 0xFFFF_FFFF


class Machine(NamedTuple):
    """``number`` is the kernel's AUDIT_ARCH constant; ``column`` that of ``NUMBERS``."""

    number: int
    column: int


#: By ``uname -m``. Both are little-endian, as ``bpf.rule`` takes for granted.
MACHINES = {"x86_64": Machine(0xC000_003E, 0), "aarch64": Machine(0xC000_00B7, 1)}

#: Name to number on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.1) and on aarch64
#: (include/uapi/asm-generic/unistd.h); -1 where the machine has no such call. Numbers are for ever.
NUMBERS: dict[str, tuple[int, int]] = {
    "access": (21, -1), "brk": (12, 214), "clock_getres": (229, 114), "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115), "clone": (56, 220), "clone3": (435, 435), "close": (3, 57),
    "exit": (60, 93), "exit_group": (231, 94), "faccessat": (269, 48), "faccessat2": (439, 439),
    "fcntl": (72, 25), "fstat": (5, 80), "futex": (202, 98), "getcpu": (309, 168), "getpeername": (52, 205),
    "getpid": (39, 172), "getrandom": (318, 278), "getrusage": (98, 165), "getsockname": (51, 204),
    "gettid": (186, 178), "gettimeofday": (96, 169), "ioctl": (16, 29), "lseek": (8, 62), "lstat": (6, -1),
    "madvise": (28, 233), "mmap": (9, 222), "mprotect": (10, 226), "mremap": (25, 216), "munmap": (11, 215),
    "nanosleep": (35, 101), "newfstatat": (262, 79), "open": (2, -1), "openat": (257, 56),
    "openat2": (437, 437), "poll": (7, -1), "ppoll": (271, 73), "pread64": (17, 67), "prlimit64": (302, 261),
    "read": (0, 63), "readlink": (89, -1), "readlinkat": (267, 78), "readv": (19, 65), "recvfrom": (45, 207),
    "recvmsg": (47, 212), "restart_syscall": (219, 128), "rseq": (334, 293), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124), "sendmsg": (46, 211), "sendto": (44, 206), "set_robust_list": (273, 99),
    "sigaltstack": (131, 132), "stat": (4, -1), "statx": (332, 291), "sysinfo": (99, 179),
    "tgkill": (234, 131), "time": (201, -1), "write": (1, 64), "writev": (20, 66),
}  # fmt: skip

#: Whatever the arguments: memory, threads waiting for each other, the clock, descriptors that are open.
FREE = (
    "read", "write", "readv", "writev", "pread64", "lseek", "fstat", "close",
    "recvfrom", "recvmsg", "sendto", "sendmsg", "poll", "ppoll",
    "getsockname", "getpeername",  # a socket names itself when CPython ends by an error
    "munmap", "mremap", "madvise", "brk",
    "futex", "set_robust_list", "rseq", "sched_yield", "gettid", "getpid", "exit", "exit_group",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    "getcpu", "getrandom", "getrusage", "sysinfo",
)  # fmt: skip

#: With one argument looked at. No memory is ever made executable: ONNX Runtime compiles nothing.
CHECKED = {
    "mmap": Check(2, _PROT_EXEC, 0),
    "mprotect": Check(2, _PROT_EXEC, 0),
    "clone": Check(0, _WORD, _THREAD),
    "prlimit64": Check(0, _WORD, 0),  # its own limits, and those only downwards
    "sched_getaffinity": Check(0, _WORD, 0),
    "fcntl": Check(1, _WORD, _F_DUPFD_CLOEXEC),  # CPython duplicates what it maps
}

#: Not made, but no crime. glibc then makes its thread with ``clone``, whose flags a filter can see
#: (those of ``clone3`` lie in memory). A locale, a list of cores or a line of source for a traceback
#: that cannot be opened does without.
ANSWERED = {
    "clone3": errno.ENOSYS,
    "ioctl": errno.ENOTTY,
    **dict.fromkeys(
        ("open", "openat", "openat2", "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat",
         "statx", "readlink", "readlinkat"),
        errno.EACCES,
    ),
}  # fmt: skip


def worker_filter(machine: Machine, pid: int) -> list[Instruction]:
    """The program for the worker ``pid``, which may send signals to itself alone (to abort)."""
    rules = [
        *((name, ALLOW, None) for name in FREE),
        *((name, ALLOW, check) for name, check in CHECKED.items()),
        ("tgkill", ALLOW, Check(0, _WORD, pid)),
        *((name, refuse(code), None) for name, code in ANSWERED.items()),
    ]
    numbered = [(NUMBERS[name][machine.column], verdict, check) for name, verdict, check in rules]
    return program(machine.number, [rule(*each) for each in numbered if each[0] >= 0])
